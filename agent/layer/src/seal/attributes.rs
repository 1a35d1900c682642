//! Extended attributes of files in an upper directory: which are the container's, and what overlayfs says by its own.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{fgetxattr, flistxattr};
use rustix::io::Errno;

/// The prefix of overlayfs's own attributes.
const OVERLAY: &[u8] = b"trusted.overlay.";
/// The most bytes that a file's list of names may have (`XATTR_LIST_MAX`), and the largest value (`XATTR_SIZE_MAX`).
const MAX_BYTES: usize = 65_536;
/// `struct vfs_ns_cap_data` of linux/capability.h: its size, and the size of the older form without the namespace's root id.
const NS_CAP_BYTES: usize = 24;
const CAP_BYTES: usize = 20;

/// What a file carries.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// Names and values that belong to the layer, by name.
    pub kept: Vec<(Vec<u8>, Vec<u8>)>,
    /// `trusted.overlay.opaque=y`: nothing of the layers below is seen here.
    pub opaque: bool,
    /// overlayfs refers to a lower file; cannot happen with the options that this crate mounts with.
    pub redirected: bool,
}

/// Of an open file or directory.
pub(super) fn read(file: BorrowedFd<'_>) -> Result<Attributes, Errno> {
    collect(|list| flistxattr(file, list), |name, value| fgetxattr(file, name, value))
}

/// Of anything, by an `O_PATH` descriptor: through its name in /proc, which is the only way (xattr(7)).
pub(crate) fn read_at(place: &OwnedFd) -> Result<Attributes, Errno> {
    // The magic link is followed, the file itself (a symbolic link, perhaps) is not: it is what the descriptor is.
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    let list = |list: &mut [u8]| rustix::fs::listxattr(&path, list);
    let get = |name: &[u8], value: &mut [u8]| rustix::fs::getxattr(&path, name, value);
    collect(list, get)
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<Attributes, Errno> {
    let mut names = vec![0; MAX_BYTES];
    let length = match list(&mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error),
    };
    let mut names: Vec<&[u8]> = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut found = Attributes::default();
    let mut buffer = Vec::new();
    for name in names {
        buffer.resize(MAX_BYTES, 0);
        let value = match get(name, &mut buffer) {
            Ok(length) => &buffer[..length],
            // Taken away meanwhile, or hidden from this namespace.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => continue,
            Err(error) => return Err(error),
        };
        if let Some(own) = name.strip_prefix(OVERLAY) {
            found.opaque |= own == b"opaque" && value == b"y";
            found.redirected |= matches!(own, b"redirect" | b"metacopy");
            continue;
        }
        // The host's own labels say nothing elsewhere; a name with "=" cannot be written in a PAX record.
        if name == b"security.selinux" || name.contains(&b'=') {
            continue;
        }
        found.kept.push((name.to_vec(), plain(name, value)));
    }
    Ok(found)
}

/// A file capability that was given inside a user namespace names that namespace's root; in a layer ids are plain.
fn plain(name: &[u8], value: &[u8]) -> Vec<u8> {
    if name == b"security.capability" && value.len() == NS_CAP_BYTES && value[3] == 3 {
        let mut capability = value[..CAP_BYTES].to_vec();
        capability[3] = 2;
        return capability;
    }
    value.to_vec()
}
