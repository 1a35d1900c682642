//! The writable directory of one container: `u` (overlay's upper) and `w` (its work directory).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, IFlags, Mode, OFlags, Uid, chmodat, chownat, ioctl_getflags, ioctl_setflags,
    mkdirat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::error::{LayerError, Result};

/// How deep directories are walked with one descriptor each; what lies deeper is moved up first.
const MAX_WALK_DEPTH: usize = 64;

/// Owner and mode of a container's root directory, which overlayfs takes from the upper directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootAttributes {
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner, plain.
    pub uid: u32,
    /// Group, plain.
    pub gid: u32,
}

impl Default for RootAttributes {
    fn default() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0 }
    }
}

impl RootAttributes {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let about = std::fs::metadata(path).map_err(|error| LayerError::io("inspecting", path, error))?;
        Ok(Self { mode: about.mode() & 0o7777, uid: about.uid(), gid: about.gid() })
    }
}

/// Makes the directory, `u` and `w` where they are missing, and lets a volatile writable layer *of the same boot* be mounted again
/// by removing overlay's mark `w/work/incompat/volatile`. After a reboot discard the directory instead.
///
/// The directory must be root's on disk.
///
/// # Errors
/// The I/O error.
pub fn prepare_writable(directory: &Path, root: RootAttributes) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|error| LayerError::io("making", directory, error))?;
    let fail = |error: Errno| LayerError::io("preparing the writable layer in", directory, error);
    let base = open_directory(CWD, directory).map_err(fail)?;
    match mkdirat(&base, "u", Mode::from_raw_mode(0o700)) {
        Ok(()) => {
            chownat(
                &base,
                "u",
                Some(Uid::from_raw(root.uid)),
                Some(Gid::from_raw(root.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(fail)?;
            chmodat(&base, "u", Mode::from_raw_mode(root.mode), AtFlags::empty()).map_err(fail)?;
        }
        Err(Errno::EXIST) => {}
        Err(error) => return Err(fail(error)),
    }
    match mkdirat(&base, "w", Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(fail(error)),
    }
    forget_volatile(base.as_fd()).map_err(fail)
}

fn forget_volatile(base: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut at = open_directory(base, "w")?;
    for name in ["work", "incompat"] {
        at = match open_directory(&at, name) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
    }
    Removal { base, moved: 0 }.remove(at.as_fd(), c"volatile", 0)
}

/// Removes `u` and `w` with all that is in them, whatever a container has made there. The directory itself stays. What is missing is
/// no error, so a broken-off removal can be repeated.
///
/// # Errors
/// The I/O error; `EBUSY` if something is mounted in there.
pub fn discard_writable(directory: &Path) -> Result<()> {
    let fail = |error: Errno| LayerError::io("removing the writable layer in", directory, error);
    let base = match open_directory(CWD, directory) {
        Ok(base) => base,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    let mut removal = Removal { base: base.as_fd(), moved: 0 };
    for name in [c"u", c"w"] {
        removal.remove(base.as_fd(), name, 0).map_err(fail)?;
    }
    // What was moved up, this time or by a removal that was broken off.
    loop {
        let moved = names(base.as_fd()).map_err(fail)?;
        let moved: Vec<_> = moved.into_iter().filter(|(name, _)| name.to_bytes().starts_with(MOVED)).collect();
        if moved.is_empty() {
            return Ok(());
        }
        for (name, _) in moved {
            removal.remove(base.as_fd(), &name, 0).map_err(fail)?;
        }
    }
}

/// Removes a directory with all that a container has made in it, however deep. One that is not there is no error, so a broken-off removal
/// can be repeated.
///
/// # Errors
/// The I/O error; `EBUSY` if something is mounted in there.
pub fn remove_tree(directory: &Path) -> Result<()> {
    let fail = |error: Errno| LayerError::io("removing", directory, error);
    let base = match open_directory(CWD, directory) {
        Ok(base) => base,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    let mut removal = Removal { base: base.as_fd(), moved: 0 };
    // What lies too deep is moved up into the directory, and met there again.
    loop {
        let names = names(base.as_fd()).map_err(fail)?;
        if names.is_empty() {
            break;
        }
        for (name, _) in names {
            removal.remove(base.as_fd(), &name, 0).map_err(fail)?;
        }
    }
    std::fs::remove_dir(directory).map_err(|error| LayerError::io("removing", directory, error))
}

/// The beginning of the names of directories that were moved up to be removed.
const MOVED: &[u8] = b".gone-";

struct Removal<'a> {
    base: BorrowedFd<'a>,
    moved: u64,
}

impl Removal<'_> {
    /// Removes a name with all below it, by descriptors and without following links.
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &std::ffi::CStr, depth: usize) -> Result<(), Errno> {
        match unlink(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        if depth >= MAX_WALK_DEPTH {
            return self.move_up(parent, name);
        }
        let directory = open_directory(parent, name)?;
        loop {
            let names = names(directory.as_fd())?;
            if names.is_empty() {
                break;
            }
            for (name, kind) in names {
                if matches!(kind, FileType::Directory | FileType::Unknown) {
                    self.remove(directory.as_fd(), &name, depth + 1)?;
                    continue;
                }
                match unlink(directory.as_fd(), &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        match unlink(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let new = format!(".gone-{}", self.moved);
            match renameat(parent, name, self.base, &new) {
                Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                result => return result,
            }
        }
    }
}

/// Unlinks, taking away the flags immutable and append-only (a privileged container can set them) if they are in the way.
fn unlink(parent: BorrowedFd<'_>, name: &std::ffi::CStr, flags: AtFlags) -> Result<(), Errno> {
    match unlinkat(parent, name, flags) {
        Err(Errno::PERM) => {
            make_mutable(&openat(parent, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?;
            let file = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            if let Ok(file) = openat(parent, name, file, Mode::empty()) {
                make_mutable(&file)?;
            }
            unlinkat(parent, name, flags)
        }
        result => result,
    }
}

fn make_mutable(file: &OwnedFd) -> Result<(), Errno> {
    let Ok(flags) = ioctl_getflags(file) else { return Ok(()) };
    let fixed = IFlags::IMMUTABLE | IFlags::APPEND;
    if flags.intersects(fixed) { ioctl_setflags(file, flags - fixed) } else { Ok(()) }
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<(std::ffi::CString, FileType)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}
