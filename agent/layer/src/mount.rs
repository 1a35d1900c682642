//! Layer files as mounts: straight from the file (Linux 6.12), or over a read-only loop device (6.4, some 6.1).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags, fstatfs, openat, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};

use crate::directories::Directories;
use crate::error::{LayerError, Result};

const EROFS_MAGIC: u64 = 0xE0F5_E1E2;
/// The most messages read from a file-system context.
const MAX_KERNEL_MESSAGES: usize = 8;

/// How layer files are mounted on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountMode {
    /// Straight from the file.
    File,
    /// Over a read-only loop device.
    Loop,
}

impl MountMode {
    /// The word for the node's status (`layerMount`).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Loop => "loop",
        }
    }
}

/// Finds out how layers can be mounted, with a layer file that is known to be sound.
pub(crate) fn probe(directories: &Directories, name: &str) -> Result<MountMode> {
    let path = directories.layer_path(name);
    let file = match detached(directories, name, MountMode::File).and_then(|mount| check(&mount, &path)) {
        Ok(()) => return Ok(MountMode::File),
        Err(error) => error.to_string(),
    };
    match detached(directories, name, MountMode::Loop).and_then(|mount| check(&mount, &path)) {
        Ok(()) => Ok(MountMode::Loop),
        Err(error) => {
            Err(LayerError::Unsupported { path: directories.layer_path(""), file, loop_device: error.to_string() })
        }
    }
}

/// Reads the root directory of a mount.
fn check(mount: &OwnedFd, path: &Path) -> Result<()> {
    let fail = |error: Errno| LayerError::io("reading the mount of", path, error);
    let root = openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    let mut entries = rustix::fs::Dir::new(root).map_err(fail)?;
    entries.try_for_each(|entry| entry.map(|_| ())).map_err(fail)
}

/// Mounts a layer file nowhere: the mount lives as long as its descriptor or until it is attached.
pub(crate) fn detached(directories: &Directories, name: &str, mode: MountMode) -> Result<OwnedFd> {
    let path = directories.layer_path(name);
    match mode {
        MountMode::File => erofs(&path, &path),
        MountMode::Loop => {
            let file: File = directories.open_layer(name).map_err(|error| LayerError::io("opening", &path, error))?;
            let device = strata_sys::loop_device::attach_read_only(file.as_fd())
                .map_err(|error| LayerError::io("making a loop device of", &path, error))?;
            erofs(&device.path, &path)
        }
    }
}

fn erofs(source: &Path, layer: &Path) -> Result<OwnedFd> {
    let context =
        fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| refused("mounting layer", layer, error, None))?;
    let fail = |error| refused("mounting layer", layer, error, Some(context.as_fd()));
    fsconfig_set_string(&context, "source", source).map_err(fail)?;
    fsconfig_set_flag(&context, "ro").map_err(fail)?;
    fsconfig_create(&context).map_err(fail)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(fail)
}

/// An error with the kernel's own words, which it leaves in the file-system context.
pub(crate) fn refused(doing: &'static str, path: &Path, error: Errno, context: Option<BorrowedFd<'_>>) -> LayerError {
    let mut kernel = String::new();
    if let Some(context) = context {
        let mut buffer = [0; 512];
        for _ in 0..MAX_KERNEL_MESSAGES {
            let Ok(read @ 1..) = rustix::io::read(context, &mut buffer) else { break };
            let text = String::from_utf8_lossy(&buffer[..read]);
            kernel.push_str(if kernel.is_empty() { " (" } else { "; " });
            kernel.push_str(text.trim());
        }
        if !kernel.is_empty() {
            kernel.push(')');
        }
    }
    LayerError::Mount { doing, path: path.to_owned(), kernel, source: error.into() }
}

/// Whether a layer is mounted at its place in the calling thread's mount namespace.
pub(crate) fn is_mounted(directories: &Directories, name: &str) -> Result<bool> {
    let path = directories.mount_path(name);
    let fail = |error: Errno| LayerError::io("inspecting", &path, error);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = match openat(directories.mounts(), name, flags, Mode::empty()) {
        Ok(place) => place,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(fail(error)),
    };
    let about = statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE).map_err(fail)?;
    if !about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(false);
    }
    let kind = fstatfs(&place).map_err(fail)?.f_type;
    if kind.cast_unsigned() & 0xffff_ffff == EROFS_MAGIC {
        return Ok(true);
    }
    Err(LayerError::io("using", path, Errno::BUSY))
}

/// Mounts a layer at its place, `STATE/mnt/<name>`, unless it is there already. The caller holds the store's mount lock.
pub(crate) fn ensure(directories: &Directories, name: &str, mode: MountMode) -> Result<PathBuf> {
    let path = directories.mount_path(name);
    if is_mounted(directories, name)? {
        return Ok(path);
    }
    match rustix::fs::mkdirat(directories.mounts(), name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(LayerError::io("making", path, error)),
    }
    let mount = detached(directories, name, mode)?;
    move_mount(&mount, "", directories.mounts(), name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| refused("attaching the mount", &path, error, None))?;
    Ok(path)
}
