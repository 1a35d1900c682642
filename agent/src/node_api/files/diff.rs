//! What a container has changed of its image: its upper directory read beside the layers below it.

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fgetxattr, openat, statat},
    io::Errno,
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};
use strata_layer::LayerStore;
use strata_model::Digest;
use strata_proto::node::{DiffEntry, diff_entry::Change};

/// Entries of one message.
const BATCH: usize = 500;
/// How deep directories may be nested: two descriptors each are open while they are walked.
const DEPTH_MAX: usize = 256;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Tells every change below `writable`'s `u`, in the order of the names, until `tell` has enough.
pub(super) fn diff(
    layers: &LayerStore,
    lowers: &[Digest],
    writable: &Path,
    tell: impl FnMut(Vec<DiffEntry>) -> bool,
) -> io::Result<()> {
    let upper = match openat(CWD, writable.join("u").as_path(), DIRECTORY, Mode::empty()) {
        // It was never started.
        Err(Errno::NOENT) => return Ok(()),
        upper => upper?,
    };
    let lower = layers.mount_read_only(lowers, None).map_err(io::Error::other)?;
    let lower = openat(&lower, ".", DIRECTORY, Mode::empty())?;
    let mut walk = Walk { tell, batch: Vec::new() };
    // Nobody listens any more: that is no error.
    if walk.directory(&upper, Some(&lower), "", 0)? {
        walk.flush();
    }
    Ok(())
}

struct Walk<F> {
    tell: F,
    batch: Vec<DiffEntry>,
}

impl<F: FnMut(Vec<DiffEntry>) -> bool> Walk<F> {
    /// False once nobody listens.
    fn directory(&mut self, upper: &OwnedFd, lower: Option<&OwnedFd>, path: &str, depth: usize) -> io::Result<bool> {
        if depth >= DEPTH_MAX {
            return Err(io::Error::other(format!("{path}: directories are nested more than {DEPTH_MAX} deep")));
        }
        for name in names(upper.as_fd())? {
            let below = format!("{path}/{}", name.to_string_lossy());
            let about = match statat(upper, &name, AtFlags::SYMLINK_NOFOLLOW) {
                // It went meanwhile.
                Err(Errno::NOENT) => continue,
                about => about?,
            };
            let under = lower.and_then(|l| statat(l, &name, AtFlags::SYMLINK_NOFOLLOW).ok());
            let kind = FileType::from_raw_mode(about.st_mode);
            if kind == FileType::CharacterDevice && about.st_rdev == 0 {
                if under.is_some() && !self.add(Change::Deleted, below) {
                    return Ok(false);
                }
                continue;
            }
            let change = if under.is_some() { Change::Changed } else { Change::Added };
            if !self.add(change, below.clone()) {
                return Ok(false);
            }
            if kind == FileType::Directory {
                let Ok(inside) = openat(upper, &name, DIRECTORY, Mode::empty()) else { continue };
                let under = lower.and_then(|l| openat(l, &name, DIRECTORY, Mode::empty()).ok());
                let opaque = is_opaque(inside.as_fd());
                if let Some(under) = under.as_ref().filter(|_| opaque)
                    && !self.hidden(&inside, under, &below)?
                {
                    return Ok(false);
                }
                if !self.directory(&inside, under.as_ref().filter(|_| !opaque), &below, depth + 1)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What a directory that was made anew no longer has of the one below.
    fn hidden(&mut self, upper: &OwnedFd, lower: &OwnedFd, path: &str) -> io::Result<bool> {
        for name in names(lower.as_fd())? {
            let stays = statat(upper, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
            if !stays && !self.add(Change::Deleted, format!("{path}/{}", name.to_string_lossy())) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add(&mut self, change: Change, path: String) -> bool {
        self.batch.push(DiffEntry { change: change.into(), path });
        self.batch.len() < BATCH || self.flush()
    }

    fn flush(&mut self) -> bool {
        self.batch.is_empty() || (self.tell)(std::mem::take(&mut self.batch))
    }
}

fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    matches!(fgetxattr(directory, "trusted.overlay.opaque", &mut value), Ok(1)) && value == *b"y"
}
