//! Where a copy comes from or goes to: a root, and paths that never lead out of it.

use crate::{
    error::{ArchiveError, Result},
    limits::{NOBODY, PATH_BYTES_MAX, RESOLVES_MAX},
};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Whose the files of a tree are, between the ids on this machine and those in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Root's in the archive; the caller's where they are unpacked.
    Nobody,
    /// The same on both sides.
    Same,
    /// A container's ids 0 to 65,535 begin here, for users and groups.
    From {
        /// The host's id of the container's user 0.
        uid: u32,
        /// The host's id of its group 0.
        gid: u32,
    },
}

impl Owners {
    /// The ids in an archive of a file that has these here. Ids that are not the container's are nobody's.
    pub(crate) fn outward(self, uid: u32, gid: u32) -> (u64, u64) {
        let plain = |id: u32, base: u32| u64::from(id.checked_sub(base).filter(|n| *n <= 65_535).unwrap_or(NOBODY));
        match self {
            Self::Nobody => (0, 0),
            Self::Same => (uid.into(), gid.into()),
            Self::From { uid: users, gid: groups } => (plain(uid, users), plain(gid, groups)),
        }
    }

    /// The ids here of a file that has these in an archive; `None`: they stay as they are made.
    pub(crate) fn inward(self, uid: u64, gid: u64) -> std::result::Result<Option<(u32, u32)>, String> {
        let small = |id: u64, what: &str, max: u64| {
            u32::try_from(id).ok().filter(|n| u64::from(*n) <= max).ok_or_else(|| {
                format!("belongs to {what} {id}, but there are only 0 to {max} here: change its owner, or copy without owners")
            })
        };
        match self {
            Self::Nobody => Ok(None),
            Self::Same => {
                let max = u64::from(u32::MAX - 1);
                Ok(Some((small(uid, "user", max)?, small(gid, "group", max)?)))
            }
            Self::From { uid: users, gid: groups } => {
                let uid = small(uid, "user", crate::limits::ID_MAX)?;
                let gid = small(gid, "group", crate::limits::ID_MAX)?;
                Ok(Some((users.saturating_add(uid), groups.saturating_add(gid))))
            }
        }
    }
}

/// A root directory and how paths below it are resolved.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    root: BorrowedFd<'a>,
    follows: bool,
}

impl<'a> Place<'a> {
    /// A container's root: links on the way are followed as its processes would, and never out of it.
    #[must_use]
    pub fn container(root: BorrowedFd<'a>) -> Self {
        Self { root, follows: true }
    }

    /// A directory whose links are not followed.
    #[must_use]
    pub fn directory(root: BorrowedFd<'a>) -> Self {
        Self { root, follows: false }
    }

    /// Opens a path below the root. A final link is followed unless `flags` have `NOFOLLOW`.
    pub(crate) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        if path.len() > PATH_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let resolve = match self.follows {
            true => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            false => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        };
        // Without IN_ROOT an absolute path would leave.
        let path = if self.follows { path } else { path.strip_prefix(b"/").unwrap_or(path) };
        let path = if path.is_empty() { b"." } else { path };
        let mut tries = 0;
        loop {
            match openat2(self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // Something was moved meanwhile, and the kernel cannot tell whether that led out.
                Err(Errno::AGAIN) if tries < RESOLVES_MAX => tries += 1,
                result => return result,
            }
        }
    }

    /// Opens a directory.
    pub(crate) fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }
}

/// Splits a path into what is before its last name, and that name; `None` where the end means a directory itself (`/`, `.`, `x/.`, `x/`).
pub(crate) fn split_last(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|b| *b == b'/');
    let (parent, name) = match at {
        Some(at) => (&path[..=at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    (!matches!(name, b"" | b"." | b"..")).then_some((parent, name))
}

/// A name for the error of an ancestor of a path.
pub(crate) fn cannot_open(path: &[u8]) -> impl Fn(Errno) -> ArchiveError + use<'_> {
    move |error| match error {
        Errno::LOOP => ArchiveError::Limit {
            path: crate::error::shown(path),
            why: "leads through a link, which is not followed, or too many",
        },
        error => ArchiveError::io("opening", path, error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_plain_in_archives() {
        let owners = Owners::From { uid: 100_000, gid: 200_000 };
        assert_eq!(owners.outward(100_033, 200_000), (33, 0));
        assert_eq!(owners.outward(0, 65_534), (65_534, 65_534), "the host's root is nobody in a container");
        assert_eq!(owners.inward(33, 4).unwrap(), Some((100_033, 200_004)));
        assert!(owners.inward(65_536, 0).is_err());
        assert_eq!(Owners::Nobody.inward(33, 33).unwrap(), None);
    }

    #[test]
    fn paths_end_in_a_name_or_mean_a_directory() {
        let split = |path: &'static str| split_last(path.as_bytes());
        assert_eq!(split("/etc/passwd"), Some((&b"/etc/"[..], &b"passwd"[..])));
        assert_eq!(split("file"), Some((&b"."[..], &b"file"[..])));
        for path in ["", "/", ".", "/etc/", "etc/.", "a/.."] {
            assert_eq!(split(path), None, "{path}");
        }
    }
}
