//! The pin of the namespace of layer mounts: a file that holds it when zygote and agent are killed at the same moment. Without it the next zygote would
//! mount every layer a second time, and the page cache would hold its files twice.
//!
//! `STATE/pin/mnt` is the namespace, bound there. `STATE/pin` is bound to itself and private, because the kernel binds no mount namespace where mounts
//! are passed on to others. Both are in the mount namespace that the agent was started in, which must be older than the zygote's (no cycles).
//! A reboot takes them away, as it does everything that they hold.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

const DIR: &str = "pin";
const FILE: &str = "mnt";
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// Mounts on one place that [`remove`] takes off; more than one are only there if two agents began at once.
const MOUNTS_MAX: usize = 8;

/// The file that holds the namespace, if there is one.
pub(super) fn find(state_dir: &Path) -> Option<PathBuf> {
    let file = state_dir.join(DIR).join(FILE);
    let kind = rustix::fs::statfs(&file).ok()?.f_type;
    (u64::try_from(kind).ok()? == NSFS_MAGIC).then_some(file)
}

/// Pins a mount namespace, in place of any other.
pub(super) fn ensure(state_dir: &Path, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let (dir, file) = (state_dir.join(DIR), state_dir.join(DIR).join(FILE));
    let wanted = rustix::fs::fstat(namespace)?;
    if fs::metadata(&file).is_ok_and(|m| (m.dev(), m.ino()) == (wanted.st_dev, wanted.st_ino)) {
        return Ok(());
    }
    remove(state_dir)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    mount_bind(&dir, &dir)?;
    mount_change(&dir, MountPropagationFlags::PRIVATE)?;
    File::options().write(true).create(true).truncate(false).open(&file)?;
    mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), &file)?;
    Ok(())
}

/// Lets go of the namespace, as far as this process's mount namespace is where it is pinned: for a node that is given up.
pub(super) fn remove(state_dir: &Path) -> io::Result<()> {
    let dir = state_dir.join(DIR);
    for place in [dir.join(FILE), dir] {
        for _ in 0..MOUNTS_MAX {
            match unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => {}
                // Nothing is mounted there, or it is not there at all.
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}
