//! A terminal of the container's own devpts.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchown, fstat, fstatfs, openat2};
use rustix::io::{self, Errno};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

/// statfs(2): DEVPTS_SUPER_MAGIC.
const DEVPTS: i64 = 0x1cd1;
/// The group `tty`, as the devpts mount's gid=5.
const TTY_GROUP: u32 = 5;

/// Opens a pair (master, slave) below `root`; the slave belongs to `uid`.
///
/// CVE class (CVE-2016-9962, runc's fake-ptmx): root of the container can put anything at /dev/pts, so links are not
/// followed, nothing can block, and what was opened must be a character device of a devpts.
pub fn open(root: BorrowedFd<'_>, uid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let path: &CStr = c"dev/pts/ptmx";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let master = openat2(root, path, flags, Mode::empty(), resolve)?;
    let is_device = FileType::from_raw_mode(fstat(&master)?.st_mode) == FileType::CharacterDevice;
    if !is_device || fstatfs(&master)?.f_type as i64 != DEVPTS {
        return Err(Errno::NOTTY);
    }
    rustix::fs::fcntl_setfl(&master, OFlags::RDWR)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    fchown(slave.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(TTY_GROUP)))?;
    Ok((master, slave))
}
