//! Volumes of a pod as mounts of its containers.
//!
//! ```text
//! STATE/pods/<uid>/v/<volume>             scratch space on disk
//! STATE/pods/<uid>/m/<volume>             where files and scratch space in memory are mounted, in the node's mount namespace only
//! STATE/volumes/<namespace>/<name>        named volumes: plain ids on disk, so nobody but root may get that far
//! ```
//! What is on disk is shown through id-mapped clones; what is in memory belongs to the pod's own root. The shim gets detached clones of
//! exactly what a container may see. Everything here can be done again: an agent that dies in between leaves what the next one uses.

mod named;

use super::environment::content;
use crate::world::PodSpec;
use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};
use strata_layer::{
    LayerError,
    bind::{clone_mapped, is_mount_point, open_beneath, open_place, owner_of_root},
    memory::{MemoryFile, mount_files, mount_scratch, unmount_all},
    remove_tree,
};
use strata_model::{Container, Files, HostPathKind, Mount, Volume, VolumeSource};
use strata_runtime::spec::BindMount;

pub(super) use named::{ensure_named, remove_named, sweep_named};

const IN_MEMORY: &str = "m";
const ON_DISK: &str = "v";

/// A container's mounts: what the specification says, and the descriptors in the same order.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub binds: Vec<BindMount>,
    pub trees: Vec<OwnedFd>,
}

/// Where a volume is on this node, and whether its files have the pod's ids already.
struct Place {
    path: PathBuf,
    mapped: bool,
    /// Directories of sub paths may be made.
    make: bool,
}

/// Makes what the container's mounts need. The error is a sentence for its status.
pub(super) fn mounts(
    state_dir: &Path,
    pod: &PodSpec,
    container: &Container,
    userns: BorrowedFd<'_>,
) -> Result<Mounts, String> {
    let mut wanted: Vec<&Mount> = container.mounts.iter().collect();
    // What lies below another mount comes after it.
    wanted.sort_by_key(|m| m.path.split('/').count());
    let mut made = Mounts::default();
    for mount in wanted {
        let volume = pod.template.pod.volumes.iter().find(|v| v.name == mount.volume);
        let volume = volume.ok_or_else(|| format!("the pod has no volume {}", mount.volume))?;
        let told = |e: String| format!("volume {} at {}: {e}", volume.name, mount.path);
        let place = ensure(state_dir, pod, volume, userns).map_err(told)?;
        let root = open_place(&place.path).map_err(|e| told(format!("opening {}: {e}", place.path.display())))?;
        let seen = open_beneath(root.as_fd(), &mount.sub_path, place.make && !mount.sub_path.is_empty());
        let seen = seen.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => told(format!("it has nothing at subPath {}", mount.sub_path)),
            _ => told(format!("opening subPath {}: {e}", mount.sub_path)),
        })?;
        let tree = clone_mapped(seen.as_fd(), &place.path, (!place.mapped).then_some(userns));
        made.trees.push(tree.map_err(|e| told(e.to_string()))?);
        let read_only = mount.read_only || matches!(volume.source, VolumeSource::Files(_));
        made.binds.push(BindMount { source: place.path, target: mount.path.clone().into(), read_only });
    }
    Ok(made)
}

fn ensure(state_dir: &Path, pod: &PodSpec, volume: &Volume, userns: BorrowedFd<'_>) -> Result<Place, String> {
    let text = |e: LayerError| e.to_string();
    match &volume.source {
        VolumeSource::Named(name) => {
            let path = ensure_named(state_dir, &pod.name.namespace, name).map_err(|e| format!("making it: {e}"))?;
            Ok(Place { path, mapped: false, make: true })
        }
        VolumeSource::Scratch { memory: false, .. } => {
            let path = pod.dir.join(ON_DISK).join(&volume.name);
            open_to_all(&path).map_err(|e| format!("making {}: {e}", path.display()))?;
            Ok(Place { path, mapped: false, make: true })
        }
        VolumeSource::Scratch { memory: true, size_bytes } => {
            let path = mount_place(pod, volume)?;
            if !is_mount_point(&path).map_err(|e| e.to_string())? {
                let owner = owner_of_root(&pod.dir, userns).map_err(text)?;
                mount_scratch(&path, owner, *size_bytes).map_err(text)?;
            }
            Ok(Place { path, mapped: true, make: true })
        }
        VolumeSource::Files(files) => {
            let path = mount_place(pod, volume)?;
            if !is_mount_point(&path).map_err(|e| e.to_string())? {
                let owner = owner_of_root(&pod.dir, userns).map_err(text)?;
                mount_files(&path, owner, &files_of(pod, files)?).map_err(text)?;
            }
            Ok(Place { path, mapped: true, make: false })
        }
        VolumeSource::HostPath { path, kind } => host_path(Path::new(path), *kind),
    }
}

/// The directory on which what is in memory is mounted.
fn mount_place(pod: &PodSpec, volume: &Volume) -> Result<PathBuf, String> {
    let path = pod.dir.join(IN_MEMORY).join(&volume.name);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|e| format!("making {}: {e}", path.display()))?;
    Ok(path)
}

/// A directory in which any user of the pod may write, as Kubernetes' emptyDir; made once, then the pod's.
fn open_to_all(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o777)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

fn files_of<'a>(pod: &'a PodSpec, files: &'a Files) -> Result<Vec<MemoryFile<'a>>, String> {
    let Some(content) = content(pod, files.kind, &files.name, files.optional)? else { return Ok(Vec::new()) };
    if files.items.is_empty() {
        let all = content.iter().map(|(key, value)| MemoryFile { path: key, content: value, mode: files.mode });
        return Ok(all.collect());
    }
    let mut made = Vec::with_capacity(files.items.len());
    for item in &files.items {
        match content.get(&item.key) {
            Some(value) => made.push(MemoryFile { path: &item.path, content: value, mode: item.mode }),
            None if files.optional => {}
            None => return Err(format!("{} {} has no key {}", files.kind.word(), files.name, item.key)),
        }
    }
    Ok(made)
}

fn host_path(path: &Path, kind: HostPathKind) -> Result<Place, String> {
    let fail = |doing: &str, e: &io::Error| format!("{doing} the host path {}: {e}", path.display());
    match kind {
        HostPathKind::DirectoryOrCreate => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|e| fail("making", &e))?;
        }
        HostPathKind::FileOrCreate => match fs::File::options().append(true).create_new(true).open(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail("making", &e)),
            _ => {}
        },
        HostPathKind::Any | HostPathKind::Directory | HostPathKind::File => {}
    }
    let about = fs::metadata(path).map_err(|e| fail("looking at", &e))?;
    let fits = match kind {
        HostPathKind::Any => !about.file_type().is_block_device(),
        HostPathKind::Directory | HostPathKind::DirectoryOrCreate => about.is_dir(),
        HostPathKind::File | HostPathKind::FileOrCreate => about.is_file(),
    };
    if !fits {
        return Err(format!("the host path {} is not what its type says: {kind:?}", path.display()));
    }
    Ok(Place { path: path.to_owned(), mapped: false, make: about.is_dir() })
}

/// Takes away what the pod has in memory. Its containers are gone.
pub(super) fn unmount(pod_dir: &Path) -> Result<(), LayerError> {
    let places = pod_dir.join(IN_MEMORY);
    let entries = match fs::read_dir(&places) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(LayerError::Io { doing: "reading", path: places, source }),
    };
    for entry in entries.flatten() {
        unmount_all(&entry.path())?;
    }
    Ok(())
}

/// Removes the pod's scratch space for good.
pub(super) fn forget(pod_dir: &Path) -> Result<(), LayerError> {
    unmount(pod_dir)?;
    remove_tree(&pod_dir.join(ON_DISK))
}
