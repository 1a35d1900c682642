//! Overlays for kernels that want layers as paths (before 6.13, detached ones before 6.15).
//!
//! The paths exist only in a mount namespace of the creating thread: a tmpfs that lies on the first layer's mount point, with short
//! names so that the options of 500 layers fit in a page. The namespace goes with the thread, the overlay stays as a descriptor.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount, open_tree,
};
use rustix::process::chdir;

use super::{OPTIONS, Overlay, Upper, become_owner};
use crate::error::{LayerError, Result};
use crate::mount::refused;

/// Creates the overlay. Must run on a thread that ends afterwards.
pub(super) fn create(lowers: &[OwnedFd], upper: Option<&Upper>, overlay: &Overlay<'_>, name: &Path) -> Result<OwnedFd> {
    let fail = |error: Errno| refused("mounting by path the overlay of", name, error, None);
    let io = |error: std::io::Error| LayerError::io("mounting by path the overlay of", name, error);
    let place = overlay.lowers.first().ok_or_else(|| fail(Errno::INVAL))?;
    nix::sched::unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).map_err(|error| io(error.into()))?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).map_err(fail)?;
    mount("strata", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0700").map_err(fail)?;
    chdir(place).map_err(fail)?;
    let attach = |tree: &OwnedFd, name: &str| {
        std::fs::create_dir(name).map_err(io)?;
        move_mount(tree, "", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(fail)
    };
    let mut names = Vec::with_capacity(lowers.len());
    for (nth, lower) in lowers.iter().enumerate() {
        names.push(format!("{nth:x}"));
        attach(lower, &format!("{nth:x}"))?;
    }
    let mut options = vec![format!("lowerdir={}", names.join(":"))];
    options.extend(OPTIONS.iter().map(|(option, value)| format!("{option}={value}")));
    let mut flags = MountFlags::empty();
    if overlay.userns.is_some() {
        flags |= MountFlags::NODEV;
    }
    if let Some(upper) = upper {
        attach(&upper.tree, "up")?;
        options.push("upperdir=up/u,workdir=up/w".into());
        if overlay.volatile {
            options.push("volatile".into());
        }
    } else {
        flags |= MountFlags::RDONLY;
    }
    std::fs::create_dir("root").map_err(io)?;
    if let (Some(upper), Some(_)) = (upper, overlay.userns) {
        become_owner(upper.owner).map_err(io)?;
    }
    let options = std::ffi::CString::new(options.join(",")).map_err(|error| io(error.into()))?;
    mount("strata", "root", "overlay", flags, options.as_c_str()).map_err(fail)?;
    open_tree(CWD, "root", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC).map_err(fail)
}
