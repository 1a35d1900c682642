//! What mounting needs and rustix lacks: id-mapped mounts, and the file-system identity of one thread.
//!
//! Not here: fsopen, fsconfig, fsmount, move_mount, open_tree (rustix has them).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes a detached mount show its files with the ids of a user namespace (mount_setattr(2), `MOUNT_ATTR_IDMAP`; Linux 5.12).
///
/// What is on disk stays as it is. The mount must be detached and not yet id-mapped.
///
/// # Errors
/// `EINVAL` if the file system cannot be id-mapped or the mount is attached, `EPERM` without `CAP_SYS_ADMIN`.
pub fn set_idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(userns.as_raw_fd()).map_err(io::Error::other)?,
    };
    // SAFETY: both descriptors are borrowed for the call; the path is a static empty C string and the structure lives on
    // this stack with the size that is passed, so the kernel reads only what is ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the user and group id that file accesses of the *calling thread* are made with (setfsuid(2), setfsgid(2)).
///
/// Leaving user id 0 drops the file capabilities from the thread's effective set; who needs them raises them again.
/// The ids are a property of the thread: call it on a thread of its own that ends afterwards.
///
/// # Errors
/// `PermissionDenied` if the kernel did not take the ids (the calls themselves report nothing, so they are read back).
pub fn set_thread_fs_ids(uid: u32, gid: u32) -> io::Result<()> {
    // An id that no kernel accepts leaves all as it is and returns the present one.
    const READ: libc::c_long = -1;
    // SAFETY: the calls take plain numbers and touch only the calling thread's credentials.
    let (gid_now, uid_now) = unsafe {
        libc::syscall(libc::SYS_setfsgid, libc::c_long::from(gid));
        libc::syscall(libc::SYS_setfsuid, libc::c_long::from(uid));
        (libc::syscall(libc::SYS_setfsgid, READ), libc::syscall(libc::SYS_setfsuid, READ))
    };
    if uid_now == libc::c_long::from(uid) && gid_now == libc::c_long::from(gid) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the kernel refused file-system ids {uid}:{gid}")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn file_system_ids_belong_to_one_thread() {
        let own = std::fs::metadata("/proc/thread-self").unwrap();
        assert!(own.is_dir());
        std::thread::spawn(|| {
            if set_thread_fs_ids(12345, 12346).is_ok() {
                let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap().to_owned();
                assert!(uid.ends_with("\t12345"), "{uid}");
            }
        })
        .join()
        .unwrap();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(!status.contains("12345"));
    }

    #[test]
    fn idmap_on_what_is_no_mount_is_an_error() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(set_idmap(file.as_fd(), file.as_fd()).is_err());
    }
}
