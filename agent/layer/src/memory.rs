//! File systems in memory: files that never touch a disk, and scratch space.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_reconfigure,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::error::{LayerError, Result};

/// A file to be made.
#[derive(Debug, Clone, Copy)]
pub struct MemoryFile<'a> {
    /// Relative, without "..".
    pub path: &'a str,
    /// What is in it.
    pub content: &'a [u8],
    /// Permission bits.
    pub mode: u32,
}

/// Mounts a read-only file system with these files at `place`, owned by `owner`. It is there complete or not at all, and its pages are
/// never swapped out where the kernel can promise that (Linux 6.4).
///
/// # Errors
/// The kernel's; two files in each other's way are one.
pub fn mount_files(place: &Path, owner: (u32, u32), files: &[MemoryFile<'_>]) -> Result<()> {
    let fail = |e: io::Error| LayerError::io("making files in memory for", place, e);
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| fail(e.into()))?;
    // An older kernel does not know the word; its swap is the administrator's to encrypt.
    fsconfig_set_flag(&context, "noswap").ok();
    let tree = create(context.as_fd(), owner, 0o755, 0).map_err(fail)?;
    for file in files {
        write(tree.as_fd(), owner, file)
            .map_err(|e| LayerError::io("making files in memory for", place.join(file.path), e))?;
    }
    // The file system itself, not only this mount: nobody in the container can undo it.
    fsconfig_set_flag(&context, "ro").and_then(|()| fsconfig_reconfigure(&context)).map_err(|e| fail(e.into()))?;
    attach(tree.as_fd(), place).map_err(fail)
}

/// Mounts an empty file system in memory at `place`, of at most `size_bytes` (0: as the kernel has it, half of the memory).
///
/// # Errors
/// The kernel's.
pub fn mount_scratch(place: &Path, owner: (u32, u32), size_bytes: u64) -> Result<()> {
    let fail = |e: io::Error| LayerError::io("making scratch space in memory at", place, e);
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| fail(e.into()))?;
    let tree = create(context.as_fd(), owner, 0o777, size_bytes).map_err(fail)?;
    attach(tree.as_fd(), place).map_err(fail)
}

/// Takes away whatever is mounted at `place`. Nothing is fine.
///
/// # Errors
/// The kernel's.
pub fn unmount_all(place: &Path) -> Result<()> {
    /// One is what there should be.
    const STACKED_MAX: usize = 16;
    for _ in 0..STACKED_MAX {
        match unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(e) => return Err(LayerError::io("unmounting", place, e)),
        }
    }
    Ok(())
}

fn create(context: BorrowedFd<'_>, owner: (u32, u32), mode: u32, size_bytes: u64) -> io::Result<OwnedFd> {
    for (key, value) in [("uid", owner.0.to_string()), ("gid", owner.1.to_string()), ("mode", format!("{mode:o}"))] {
        fsconfig_set_string(context, key, value)?;
    }
    if size_bytes > 0 {
        fsconfig_set_string(context, "size", size_bytes.to_string())?;
    }
    fsconfig_create(context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn write(root: BorrowedFd<'_>, (uid, gid): (u32, u32), file: &MemoryFile<'_>) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let mut parts = file.path.split('/');
    let name = parts.next_back().unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = openat(root, ".", flags, Mode::empty())?;
    for part in parts {
        match mkdirat(&directory, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        directory = openat(&directory, part, flags, Mode::empty())?;
        fchmod(&directory, Mode::from_raw_mode(0o755))?;
        fchown(&directory, uid, gid)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut made = std::fs::File::from(openat(&directory, name, flags, Mode::from_raw_mode(0o600))?);
    made.write_all(file.content)?;
    fchown(&made, uid, gid)?;
    fchmod(&made, Mode::from_raw_mode(file.mode))?;
    Ok(())
}

fn attach(tree: BorrowedFd<'_>, place: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
