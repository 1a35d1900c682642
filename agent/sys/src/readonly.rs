//! Changing the attributes of one mount through its descriptor (mount_setattr(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// MOUNT_ATTR_RDONLY.
pub const RDONLY: u64 = 0x1;
/// MOUNT_ATTR_NOSUID.
pub const NOSUID: u64 = 0x2;
/// MOUNT_ATTR_NODEV.
pub const NODEV: u64 = 0x4;
/// MOUNT_ATTR_NOEXEC.
pub const NOEXEC: u64 = 0x8;

/// struct mount_attr of linux/mount.h.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Sets `attributes` on the mount whose root `mount` is, and with `recursive` on all mounts below it.
pub fn add_attributes(mount: BorrowedFd<'_>, attributes: u64, recursive: bool) -> io::Result<()> {
    set_attributes(mount, &Attributes { set: attributes, clear: 0, propagation: 0, user_namespace: 0 }, recursive)
}

/// Maps the ids of a detached mount by a user namespace (MOUNT_ATTR_IDMAP).
pub fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    const IDMAP: u64 = 0x0010_0000;
    let user_namespace = u64::try_from(user_namespace.as_raw_fd()).unwrap_or(u64::MAX);
    set_attributes(mount, &Attributes { set: IDMAP, clear: 0, propagation: 0, user_namespace }, false)
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: &Attributes, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure has the kernel's layout (its size is passed) and lives across the call; the path is empty.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
