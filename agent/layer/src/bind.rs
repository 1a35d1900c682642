//! Directories and files of the node as detached mounts, to be seen in a container: volumes, and what they are made of.
//!
//! Paths below a volume are resolved by descriptor and never lead out of it, whatever links a container has put there
//! (the class of CVE-2017-1002101 and CVE-2021-25741).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, mkdirat, openat, openat2, statx,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{LayerError, Result};

/// Opens a directory or file of the node, for the functions below.
///
/// # Errors
/// The kernel's.
pub fn open_place(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a path beneath a volume's root. With `make`, directories that are missing are made, root's and open to all for reading.
///
/// # Errors
/// The kernel's; NotFound without `make`.
pub fn open_beneath(root: BorrowedFd<'_>, path: &str, make: bool) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &str| openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    if path.is_empty() {
        return Ok(openat(root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    }
    match open(path) {
        Err(Errno::NOENT) if make => {}
        result => return Ok(result?),
    }
    let mut parent = openat(root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut so_far = String::new();
    for part in path.split('/') {
        so_far.push_str(part);
        match open(&so_far) {
            Ok(next) => parent = next,
            Err(Errno::NOENT) => {
                match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                parent = open(&so_far)?;
            }
            Err(e) => return Err(e.into()),
        }
        so_far.push('/');
    }
    Ok(parent)
}

/// A detached mount of what `place` is, and of nothing that is mounted below it. With a user namespace its files have that one's ids;
/// on disk they stay plain.
///
/// # Errors
/// [`LayerError::Mount`]; `name` is for its message. A file system that cannot be id-mapped says so.
pub fn clone_mapped(place: BorrowedFd<'_>, name: &Path, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let fail = |doing: &'static str, kernel: &str, source: io::Error| LayerError::Mount {
        doing,
        path: name.to_owned(),
        kernel: kernel.to_owned(),
        source,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(place, "", flags).map_err(|e| fail("cloning the mount of", "", e.into()))?;
    if let Some(userns) = userns {
        strata_sys::mount::set_idmap(tree.as_fd(), userns).map_err(|e| {
            let hint =
                " (its file system cannot show other ids on this kernel: use a path on ext4, xfs, btrfs or tmpfs)";
            fail("id-mapping", if Errno::from_io_error(&e) == Some(Errno::INVAL) { hint } else { "" }, e)
        })?;
    }
    let nodev = strata_sys::readonly::NODEV;
    strata_sys::readonly::add_attributes(tree.as_fd(), nodev, false).map_err(|e| fail("restricting", "", e))?;
    Ok(tree)
}

/// The node's ids of a user namespace's root: what it shows a directory of root's as.
///
/// # Errors
/// [`LayerError`].
pub fn owner_of_root(directory: &Path, userns: BorrowedFd<'_>) -> Result<(u32, u32)> {
    let place = open_place(directory).map_err(|e| LayerError::io("opening", directory, e))?;
    let tree = clone_mapped(place.as_fd(), directory, Some(userns))?;
    let about = statx(&tree, "", AtFlags::EMPTY_PATH, StatxFlags::UID | StatxFlags::GID)
        .map_err(|e| LayerError::io("inspecting", directory, e))?;
    Ok((about.stx_uid, about.stx_gid))
}

/// Whether something is mounted exactly here. What is not there is not mounted.
///
/// # Errors
/// The kernel's.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Ok(about) => Ok(about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_below_a_volume_stay_there() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        std::fs::create_dir_all(volume.join("real")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, volume.join("absolute")).unwrap();
        symlink("../outside", volume.join("relative")).unwrap();
        symlink("/real", volume.join("inner")).unwrap();
        let root = open_place(&volume).unwrap();
        let same = |fd: &OwnedFd, path: &Path| {
            let (a, b) = (rustix::fs::fstat(fd).unwrap(), std::fs::metadata(path).unwrap());
            use std::os::unix::fs::MetadataExt;
            (a.st_dev, a.st_ino) == (b.dev(), b.ino())
        };
        assert!(same(&open_beneath(root.as_fd(), "", false).unwrap(), &volume));
        assert!(same(&open_beneath(root.as_fd(), "inner", false).unwrap(), &volume.join("real")));
        assert!(same(&open_beneath(root.as_fd(), "inner/a/b", true).unwrap(), &volume.join("real/a/b")));
        for out in ["absolute", "relative"] {
            // Seen from the root, the link names something in the volume that is not there.
            assert!(open_beneath(root.as_fd(), out, false).is_err(), "{out}");
            if let Ok(made) = open_beneath(root.as_fd(), &format!("{out}/x"), true) {
                assert!(!same(&made, &outside.join("x")));
            }
            assert!(std::fs::read_dir(&outside).unwrap().next().is_none(), "{out}");
        }
        assert!(open_beneath(root.as_fd(), "missing", false).is_err());
    }
}
