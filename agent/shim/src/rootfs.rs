//! The child's file system: mounts, devices, links, masks. Every path is resolved beneath the container's root.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, symlinkat};
use rustix::io::{self, Errno};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};
use strata_sys::readonly::{self, NODEV, NOEXEC, NOSUID, RDONLY};

use crate::launch::{Launch, MountStep, Source, Target};
use crate::outcome::{At, Outcome};
use crate::sandbox::{EMPTY, ROOT_POINT};
use crate::wire::Step;

/// Detached: a new file system of a type.
pub fn new_mount(kind: &CStr, options: &[(&CStr, Option<&CStr>)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&fs, *key, *value)?,
            None => fsconfig_set_flag(&fs, *key)?,
        }
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Binds the node `source` of the caller's root over a new file `target` in `dir`.
pub fn bind_node(source: &CStr, dir: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat(dir, target, flags, Mode::from_raw_mode(0o666))?;
    let tree = open_tree(CWD, source, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    attach(tree.as_fd(), file.as_fd())
}

/// Attaches a detached mount exactly at what `target` is.
fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Opens a path (without leading slash) beneath the root; links never lead out of it.
fn beneath(root: BorrowedFd<'_>, path: &CStr, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Builds the whole tree and makes it the root.
pub fn enter(launch: &Launch, terminal: impl FnOnce(BorrowedFd<'_>) -> Outcome) -> Outcome {
    let root = launch.root.as_fd();
    move_mount(root, c"", CWD, ROOT_POINT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(Step::AttachRoot)?;
    for (index, step) in launch.mounts.iter().enumerate() {
        mount(root, step, &launch.binds).at_index(Step::Mount, index)?;
    }
    for (index, (source, target)) in launch.devices.iter().enumerate() {
        device(root, source, target).at_index(Step::Device, index)?;
    }
    for (index, (content, target)) in launch.links.iter().enumerate() {
        link(root, content, target).at_index(Step::Device, index)?;
    }
    terminal(root)?;
    for (index, path) in launch.read_only.iter().enumerate() {
        read_only(root, path).at_index(Step::Mask, index)?;
    }
    for (index, path) in launch.masked.iter().enumerate() {
        mask(root, path).at_index(Step::Mask, launch.read_only.len() + index)?;
    }
    make_directories(root, &launch.cwd).at(Step::WorkingDirectory)?;
    if launch.read_only_root {
        readonly::add_attributes(root, RDONLY, false).at(Step::AttachRoot)?;
    }
    fchdir(root).at(Step::Pivot)?;
    pivot_root(c".", c".").at(Step::Pivot)?;
    unmount(c".", UnmountFlags::DETACH).at(Step::Pivot)?;
    chdir(c"/").at(Step::Pivot)
}

fn mount(root: BorrowedFd<'_>, step: &MountStep, binds: &[OwnedFd]) -> io::Result<()> {
    match &step.source {
        Source::New { kind, options } => {
            // CVE class (CVE-2019-19921): /proc or /sys of the image as a link to somewhere else.
            let target = directory(root, &step.target, ResolveFlags::NO_SYMLINKS)?;
            let fs = fsopen(kind.as_c_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
            for (key, value) in options {
                match value {
                    Some(value) => fsconfig_set_string(&fs, key.as_c_str(), value.as_c_str())?,
                    None => fsconfig_set_flag(&fs, key.as_c_str())?,
                }
            }
            fsconfig_create(&fs)?;
            let attributes = MountAttrFlags::from_bits_retain(step.attributes);
            let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
            attach(mount.as_fd(), target.as_fd())
        }
        Source::Passed(index) => {
            let tree = binds.get(*index).ok_or(Errno::BADF)?;
            let is_directory = FileType::from_raw_mode(fstat(tree)?.st_mode) == FileType::Directory;
            let target = if is_directory {
                directory(root, &step.target, ResolveFlags::empty())?
            } else {
                file(root, &step.target)?
            };
            attach(tree.as_fd(), target.as_fd())?;
            readonly::add_attributes(tree.as_fd(), u64::from(step.attributes), true)
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
        }
    }
}

/// Opens a directory of the container, making what is missing of its path.
fn directory(root: BorrowedFd<'_>, target: &Target, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    make_parents(root, target)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match beneath(root, &target.path, flags, resolve) {
        Err(Errno::NOENT) => {
            let parent = beneath(root, &target.parent, flags, ResolveFlags::empty())?;
            mkdirat(&parent, target.name.as_c_str(), Mode::from_raw_mode(0o755))?;
            beneath(root, &target.path, flags, resolve)
        }
        other => other,
    }
}

fn make_directories(root: BorrowedFd<'_>, target: &Target) -> io::Result<()> {
    directory(root, target, ResolveFlags::empty()).map(drop)
}

fn make_parents(root: BorrowedFd<'_>, target: &Target) -> io::Result<()> {
    for step in &target.above {
        if let Err(Errno::NOENT) = beneath(root, &step.path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty()) {
            let parent = beneath(root, &step.parent, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())?;
            mkdirat(&parent, step.name.as_c_str(), Mode::from_raw_mode(0o755))?;
        }
    }
    Ok(())
}

/// Opens a file of the container as a place for a bind, making it if it is missing.
fn file(root: BorrowedFd<'_>, target: &Target) -> io::Result<OwnedFd> {
    make_parents(root, target)?;
    match beneath(root, &target.path, OFlags::PATH, ResolveFlags::empty()) {
        Err(Errno::NOENT) => {
            let parent = beneath(root, &target.parent, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            openat(&parent, target.name.as_c_str(), flags, Mode::from_raw_mode(0o644))?;
            beneath(root, &target.path, OFlags::PATH, ResolveFlags::empty())
        }
        other => other,
    }
}

fn device(root: BorrowedFd<'_>, source: &CStr, target: &Target) -> io::Result<()> {
    let parent = beneath(root, &target.parent, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)?;
    bind_node(source, parent.as_fd(), &target.name)
}

fn link(root: BorrowedFd<'_>, content: &CStr, target: &Target) -> io::Result<()> {
    let parent = beneath(root, &target.parent, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)?;
    symlinkat(content, &parent, target.name.as_c_str())
}

/// What is absent needs no protection.
fn existing(root: BorrowedFd<'_>, path: &CStr) -> io::Result<Option<OwnedFd>> {
    match beneath(root, path, OFlags::PATH, ResolveFlags::empty()) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

fn read_only(root: BorrowedFd<'_>, path: &CStr) -> std::io::Result<()> {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&target, c"", flags | OpenTreeFlags::AT_EMPTY_PATH)?;
    readonly::add_attributes(tree.as_fd(), RDONLY | NOSUID | NODEV | NOEXEC, true)?;
    Ok(attach(tree.as_fd(), target.as_fd())?)
}

/// Hides a directory behind the sandbox's empty one, a file behind the sandbox's /dev/null.
/// CVE class (CVE-2025-31133): the container's own /dev/null as a link; it is never used here.
fn mask(root: BorrowedFd<'_>, path: &CStr) -> std::io::Result<()> {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    let is_directory = FileType::from_raw_mode(fstat(&target)?.st_mode) == FileType::Directory;
    let cover = if is_directory { EMPTY } else { c"/dev/null" };
    let tree = open_tree(CWD, cover, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    readonly::add_attributes(tree.as_fd(), RDONLY | NOSUID | NOEXEC, false)?;
    Ok(attach(tree.as_fd(), target.as_fd())?)
}

/// Whether two descriptors name the same file; used by tests of paths.
#[cfg(test)]
fn same(a: &OwnedFd, b: &OwnedFd) -> bool {
    let (Ok(a), Ok(b)) = (fstat(a), fstat(b)) else { return false };
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::launch::Target;
    use rustix::fs::AtFlags;

    #[test]
    fn links_of_an_image_do_not_lead_out() {
        let dir = std::env::temp_dir().join(format!("strata-rootfs-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("inner")).unwrap();
        std::os::unix::fs::symlink("/inner", dir.join("out")).unwrap();
        std::os::unix::fs::symlink("/../../..", dir.join("up")).unwrap();
        let root = openat(CWD, &dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let made = directory(root.as_fd(), &Target::new("/out/a/b").unwrap(), ResolveFlags::empty()).unwrap();
        let real = openat(CWD, dir.join("inner/a/b"), OFlags::PATH, Mode::empty()).unwrap();
        assert!(same(&made, &real));
        let up = directory(root.as_fd(), &Target::new("/up").unwrap(), ResolveFlags::empty()).unwrap();
        assert!(same(&up, &root));
        assert!(directory(root.as_fd(), &Target::new("/out").unwrap(), ResolveFlags::NO_SYMLINKS).is_err());
        rustix::fs::unlinkat(CWD, dir.join("up"), AtFlags::empty()).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
