//! The files of a container, for people: its root as a descriptor with the ids that its files have there, and its writable layer.

use super::{Node, lock, start::lowers_of};
use crate::world::{PodSpec, Trouble};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    thread::{CapabilitySets, capabilities, set_capabilities},
};
use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Read,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::PathBuf,
    sync::{Arc, Mutex},
};
use strata_archive::Owners;
use strata_image::StoredImage;
use strata_layer::prepare_writable;
use strata_model::{ContainerName, Digest, Uid};
use strata_runtime::cgroup::{CgroupRoot, ContainerCgroup, Frozen, PodCgroup};

/// Bytes of a `/proc` file that are read.
const PROC_BYTES_MAX: u64 = 64 << 10;

/// A container's root.
pub(crate) struct Root {
    /// To resolve paths below.
    pub fd: OwnedFd,
    /// What ids its files have here.
    pub owners: Owners,
}

impl Root {
    /// Takes on the identity of the container's root for file accesses of this thread, with this agent's capabilities: what is made then belongs to
    /// ids that the container's mounts know. For a thread that ends afterwards.
    pub fn become_owner(&self) -> std::io::Result<()> {
        let Owners::From { uid, gid } = self.owners else { return Ok(()) };
        let sets = capabilities(None)?;
        strata_sys::mount::set_thread_fs_ids(uid, gid)?;
        set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets })?;
        Ok(())
    }
}

/// One lock for each writable layer that somebody is at: a container's start, or a copy of one that does not run.
#[derive(Default)]
pub(super) struct Locks(Mutex<HashMap<(Uid, ContainerName), WritableLock>>);

/// Held by who is at a writable layer.
type WritableLock = Arc<tokio::sync::Mutex<()>>;

fn trouble(doing: &str, e: impl std::fmt::Display) -> Trouble {
    Trouble::new("Io", format!("{doing}: {e}"))
}

impl Node {
    /// Held by whoever mounts a container's writable layer: one writer, ever.
    pub(crate) fn writable_lock(&self, pod: &Uid, container: &ContainerName) -> WritableLock {
        let mut locks = lock(&self.writables.0);
        locks.retain(|_, l| Arc::strong_count(l) > 1);
        locks.entry((pod.clone(), container.clone())).or_default().clone()
    }

    /// The root of a container that runs: as its first process sees it, volumes included. Blocks.
    pub(crate) fn running_root(&self, pod_uid: &str, pid: u32) -> Result<Root, Trouble> {
        let gone = |e: Errno| match e {
            Errno::NOENT | Errno::SRCH => Trouble::new("NotRunning", "the container has just ended"),
            e => trouble("opening the container's root", e),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Everything through one descriptor: it stands for this process, and not for a later one with its number.
        let process = openat(CWD, format!("/proc/{pid}").as_str(), flags, Mode::empty()).map_err(gone)?;
        let read = |name: &str| -> Result<String, Trouble> {
            let file = openat(&process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(gone)?;
            let mut text = String::new();
            File::from(file)
                .take(PROC_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(|e| trouble("reading of the container", e))?;
            Ok(text)
        };
        if !read("cgroup")?.contains(pod_uid) {
            return Err(Trouble::new("NotRunning", "the container has just ended"));
        }
        let fd = openat(&process, "root", flags, Mode::empty()).map_err(gone)?;
        let base = |name: &str| -> Result<u32, Trouble> {
            let map = read(name)?;
            let mut words = map.split_whitespace();
            let first = (words.next(), words.next().and_then(|w| w.parse().ok()));
            match first {
                (Some("0"), Some(base)) => Ok(base),
                _ => Err(trouble("reading the container's id map", format!("it does not begin with id 0: {map:?}"))),
            }
        };
        let (uid, gid) = (base("uid_map")?, base("gid_map")?);
        let owners = if (uid, gid) == (0, 0) { Owners::Same } else { Owners::From { uid, gid } };
        Ok(Root { fd, owners })
    }

    /// The root of a container whose pod is stopped: its layers below its writable one, with the ids that are on disk. Blocks.
    pub(crate) fn stopped_root(&self, pod: &PodSpec, container: &ContainerName) -> Result<Root, Trouble> {
        let lowers = self.lowers(pod, container)?;
        let dir = self.writable_dir(pod, container);
        if !dir.join("u").is_dir() {
            return Err(Trouble::new(
                "NotStarted",
                "the container has not been started yet, so it has no files of its own",
            ));
        }
        let layers = self.setup.images.layers();
        let failed = |e: strata_layer::LayerError| trouble("mounting the container's root", e);
        let attributes = layers.root_attributes(&lowers).map_err(failed)?;
        prepare_writable(&dir, attributes).map_err(failed)?;
        let fd = layers.mount_overlay(&lowers, &dir, None, true).map_err(failed)?;
        Ok(Root { fd, owners: Owners::Same })
    }

    /// `u` and `w` of a container.
    pub(crate) fn writable_dir(&self, pod: &PodSpec, container: &ContainerName) -> PathBuf {
        pod.dir.join("c").join(container.as_str())
    }

    /// The layers of a container's image, the lowest first.
    pub(crate) fn lowers(&self, pod: &PodSpec, container: &ContainerName) -> Result<Vec<Digest>, Trouble> {
        self.image_of(pod, container).map(|image| lowers_of(&image))
    }

    /// The image of a container.
    pub(crate) fn image_of(&self, pod: &PodSpec, container: &ContainerName) -> Result<Arc<StoredImage>, Trouble> {
        let c = pod.template.pod.containers.iter().find(|c| c.name == *container);
        let image = c.and_then(|c| pod.image_of(c)).and_then(|i| self.setup.images.image(&i.digest));
        image.ok_or_else(|| {
            Trouble::new("ImageNotFound", format!("the image of container {container} is not on its node any more"))
        })
    }

    /// Stops a container's processes from running until the answer is dropped; `None` if there are none.
    pub(crate) fn freeze(&self, pod: &Uid, container: &ContainerName) -> Result<Option<Frozen>, Trouble> {
        if self.live(pod).is_none() {
            return Ok(None);
        }
        let group = PodCgroup::existing(&self.setup.cgroups, pod.as_str());
        let frozen = group.and_then(|g| ContainerCgroup::existing(&g, container.as_str())).and_then(|g| g.freeze());
        frozen.map(Some).map_err(|e| Trouble::new("FreezeError", e.to_string()))
    }

    /// Lets a container run that was left frozen.
    pub(super) fn thaw(&self, pod: &Uid, container: &ContainerName) {
        let group = PodCgroup::existing(&self.setup.cgroups, pod.as_str());
        let thawed = group.and_then(|g| ContainerCgroup::existing(&g, container.as_str())).and_then(|g| g.thaw());
        if let Err(e) = thawed {
            tracing::warn!(%pod, %container, "it may be frozen: {e}");
        }
    }

    /// The groups of this node's containers.
    pub(crate) fn cgroups(&self) -> &CgroupRoot {
        &self.setup.cgroups
    }

    /// STATE.
    pub(crate) fn state_dir(&self) -> &std::path::Path {
        &self.setup.state_dir
    }

    /// Bytes on the disk of a container's writable layer; at most so many entries are counted.
    pub(crate) fn writable_bytes(&self, pod: &str, container: &str, entries_max: usize) -> u64 {
        let mut todo = vec![self.setup.state_dir.join("pods").join(pod).join("c").join(container).join("u")];
        let (mut bytes, mut entries) = (0, 0);
        while let Some(dir) = todo.pop() {
            // Entries come and go meanwhile, and links are not followed.
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                entries += 1;
                if entries > entries_max {
                    return bytes;
                }
                let Ok(about) = entry.metadata() else { continue };
                bytes += about.blocks() * 512;
                if about.is_dir() {
                    todo.push(entry.path());
                }
            }
        }
        bytes
    }

    /// The layers that builds may use again. With `forget` none are, from now on.
    pub(crate) fn build_cache_layers(&self, forget: bool) -> HashSet<Digest> {
        let mut layers = HashSet::new();
        for entry in std::fs::read_dir(self.setup.state_dir.join("build-cache")).into_iter().flatten().flatten() {
            if forget {
                if let Err(e) = std::fs::remove_file(entry.path()) {
                    tracing::warn!(path = %entry.path().display(), "a note of the build cache stays: {e}");
                }
                continue;
            }
            let note =
                std::fs::read(entry.path()).ok().and_then(|b| serde_json::from_slice::<serde_json::Value>(&b).ok());
            layers.extend(note.and_then(|n| n["layer"].as_str().and_then(|d| d.parse().ok())));
        }
        layers
    }
}
