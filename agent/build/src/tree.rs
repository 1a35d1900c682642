//! A tree of files that is copied from or into: a read-only mount, walked by descriptor.
//!
//! CVE class: a link in a context or an image that leads out of it (`COPY` through symlinks). Every name is opened beneath the mount's root with
//! no link followed by the kernel (openat2, `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`); links are followed here, within the root, and `..` stops
//! there. The mount cannot change meanwhile.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, readlinkat};
use rustix::io::Errno;

use crate::error::{BuildError, Result};
use crate::limits::LINKS_MAX;

/// A read-only mount and its name in messages.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    name: String,
}

/// A path without links, relative to the root, and what is there.
#[derive(Debug)]
pub(crate) struct Place {
    /// "" is the root.
    pub path: Vec<u8>,
    /// `None` if nothing is there; then some directories above may be missing, too.
    pub stat: Option<Stat>,
}

impl Place {
    pub(crate) fn is_directory(&self) -> bool {
        self.stat.as_ref().is_some_and(|stat| kind(stat).is_dir())
    }
}

/// The type of what a stat describes.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Adds a name to a path.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

impl Tree {
    pub(crate) fn new(root: OwnedFd, name: impl Into<String>) -> Self {
        Self { root, name: name.into() }
    }

    /// How messages call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The mount.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
    }

    fn fail(&self, doing: &'static str, path: &[u8]) -> impl Fn(Errno) -> BuildError + use<> {
        let path = format!("/{} in {}", String::from_utf8_lossy(path), self.name);
        move |error| BuildError::io(doing, &path, error)
    }

    /// A descriptor that only names what is at a path without links.
    pub(crate) fn place(&self, path: &[u8]) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH).map_err(self.fail("opening", path))
    }

    /// What is at a path without links.
    pub(crate) fn stat(&self, path: &[u8]) -> Result<Option<Stat>> {
        match self.open(path, OFlags::PATH) {
            Ok(place) => fstat(&place).map(Some).map_err(self.fail("inspecting", path)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.fail("opening", path)(error)),
        }
    }

    /// A regular file at a path without links.
    pub(crate) fn file(&self, path: &[u8]) -> Result<File> {
        self.open(path, OFlags::RDONLY | OFlags::NONBLOCK).map(File::from).map_err(self.fail("opening", path))
    }

    /// The target of a link.
    pub(crate) fn link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let place = self.place(path)?;
        readlinkat(&place, "", Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(self.fail("reading the link", path))
    }

    /// The names in a directory at a path without links, in byte order.
    pub(crate) fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let directory = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(self.fail("opening", path))?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(self.fail("listing", path))? {
            let name = entry.map_err(self.fail("listing", path))?.file_name().to_bytes().to_vec();
            if !matches!(name.as_slice(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The extended attributes at a path without links.
    pub(crate) fn attributes(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let place = self.place(path)?;
        strata_layer::archive::attributes(&place).map_err(|error| {
            BuildError::io("reading attributes of", format!("/{}", String::from_utf8_lossy(path)), error)
        })
    }

    /// Follows a path within the root: absolute links begin at the root, `..` stops there. The last part is followed if `follow`.
    pub(crate) fn resolve(&self, path: &[u8], follow: bool) -> Result<Place> {
        let mut real: Vec<Vec<u8>> = Vec::new();
        // Of the real parts, how many (the last ones) do not exist.
        let mut missing = 0;
        let mut rest: Vec<Vec<u8>> = Vec::new();
        push_parts(&mut rest, path);
        let mut hops = 0;
        while let Some(part) = rest.pop() {
            if part == b".." {
                real.pop();
                missing = usize::saturating_sub(missing, 1);
                continue;
            }
            real.push(part);
            if missing > 0 {
                missing += 1;
                continue;
            }
            let here = real.join(&b'/');
            let Some(stat) = self.stat(&here)? else {
                missing = 1;
                continue;
            };
            let kind = kind(&stat);
            if kind.is_symlink() && (follow || !rest.is_empty()) {
                hops += 1;
                if hops > LINKS_MAX {
                    return Err(self.fail("following links of", path)(Errno::LOOP));
                }
                let target = self.link(&here)?;
                if target.starts_with(b"/") {
                    real.clear();
                } else {
                    real.pop();
                }
                push_parts(&mut rest, &target);
            } else if !kind.is_dir() && !rest.is_empty() {
                return Err(self.fail("opening (a part of it is no directory)", path)(Errno::NOTDIR));
            }
        }
        let path = real.join(&b'/');
        let stat = if missing == 0 { self.stat(&path)? } else { None };
        Ok(Place { path, stat })
    }
}

/// The parts of a path, the first one last.
fn push_parts(rest: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    rest.extend(parts.rev().map(<[u8]>::to_vec));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree(make: impl FnOnce(&std::path::Path)) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let root = File::open(dir.path()).unwrap();
        (dir, Tree::new(root.into(), "test"))
    }

    #[test]
    fn links_are_followed_within_the_root() {
        let (_dir, tree) = tree(|at| {
            std::fs::create_dir_all(at.join("usr/bin")).unwrap();
            std::fs::write(at.join("usr/bin/sh"), "x").unwrap();
            symlink("usr/bin", at.join("bin")).unwrap();
            symlink("/usr", at.join("absolute")).unwrap();
            symlink("../../../../../etc/passwd", at.join("usr/out")).unwrap();
            symlink("/etc/passwd", at.join("out")).unwrap();
            symlink("loop", at.join("loop")).unwrap();
            symlink("/nowhere/x", at.join("dangling")).unwrap();
        });
        for (path, follow, real, exists) in [
            ("bin/sh", true, "usr/bin/sh", true),
            ("bin", false, "bin", true),
            ("bin", true, "usr/bin", true),
            ("absolute/bin/../bin/sh", true, "usr/bin/sh", true),
            ("usr/out", true, "etc/passwd", false),
            ("out", true, "etc/passwd", false),
            ("../../bin/sh", true, "usr/bin/sh", true),
            ("new/dir/x", true, "new/dir/x", false),
            ("new/../usr/bin", true, "usr/bin", true),
            ("dangling/y", true, "nowhere/x/y", false),
            ("", true, "", true),
        ] {
            let place = tree.resolve(path.as_bytes(), follow).unwrap();
            assert_eq!(
                (String::from_utf8(place.path).unwrap().as_str(), place.stat.is_some()),
                (real, exists),
                "{path}"
            );
        }
        assert!(tree.resolve(b"loop", true).is_err());
        assert!(tree.resolve(b"bin/sh/x", true).is_err());
        assert!(tree.file(b"bin/sh").is_err(), "no link is followed by the kernel");
        assert_eq!(tree.list(b"usr").unwrap(), [b"bin".to_vec(), b"out".to_vec()]);
    }
}
