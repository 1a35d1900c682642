//! A writable layer becomes an immutable one: the upper directory of an overlay, written as the tar of a layer.
//!
//! What overlayfs leaves there is turned into what the OCI image specification (layer.md) writes: a character device 0:0 becomes
//! `.wh.<name>`, an opaque directory gets `.wh..wh..opq`. Nothing is followed: every name is opened from its directory's descriptor.
//! The order is that of the names, so that the same content gives the same layer.

mod attributes;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags, Stat, fstat, major, minor, openat, readlinkat};
use rustix::io::Errno;

pub(crate) use attributes::read_at as read_attributes;

use crate::archive::{EntryKind, EntryMeta, TarWriter};
use crate::error::{LayerError, Result};
use crate::limits::{MAX_ENTRIES, MAX_PATH_BYTES};
use crate::writer::{LayerWriter, Published};

/// How deep directories may be nested: one descriptor each is open while they are walked.
const MAX_DEPTH: usize = 512;
/// Holes smaller than this are written as zeros.
const MIN_HOLE_BYTES: u64 = 64 << 10;
/// Bytes of a file that are held at once.
const COPY_BYTES: usize = 256 << 10;

/// How a writable layer is sealed.
#[derive(Debug, Clone, Copy, Default)]
pub struct SealOptions {
    /// Later modification times become this one, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub newest_mtime: Option<i64>,
}

/// Writes what lies in `upper` into `writer` and publishes it. `upper` is not changed. What changes meanwhile is taken in one state or the
/// other, so freeze its container before.
///
/// # Errors
/// The I/O error, or [`LayerError::Unsealable`] for a directory that overlayfs tied to a lower one.
pub(crate) fn seal(upper: &Path, writer: LayerWriter, options: SealOptions) -> Result<Published> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(CWD, upper, flags, Mode::empty()).map_err(|e| LayerError::io("opening", upper, e))?;
    let mut walk = Walk { upper, tar: TarWriter::new(writer), links: HashMap::new(), entries: 0, options };
    walk.directory(&root, &mut Vec::new(), 0)?;
    walk.tar.publish()
}

struct Walk<'a> {
    upper: &'a Path,
    tar: TarWriter<LayerWriter>,
    /// The first name of each file that has several: device and inode number.
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: usize,
    options: SealOptions,
}

impl Walk<'_> {
    fn fail(&self, doing: &'static str, path: &[u8]) -> impl Fn(Errno) -> LayerError + use<'_> {
        let path = self.upper.join(String::from_utf8_lossy(path).as_ref());
        move |error| LayerError::io(doing, &path, error)
    }

    /// Writes a directory and what is in it; `path` is its own, from the root.
    fn directory(&mut self, directory: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        let about = fstat(directory).map_err(self.fail("inspecting", path))?;
        let mut names = names(directory.as_fd()).map_err(self.fail("listing", path))?;
        names.sort_unstable();
        let found = attributes::read(directory.as_fd()).map_err(self.fail("reading attributes of", path))?;
        if found.redirected {
            return Err(LayerError::Unsealable { path: self.upper.join(String::from_utf8_lossy(path).as_ref()) });
        }
        let meta = self.meta(&about, found.kept);
        self.count(path)?;
        self.tar.entry(path, EntryKind::Directory, &meta)?;
        let length = path.len();
        if found.opaque {
            push_name(path, b".wh..wh..opq");
            self.tar.entry(path, EntryKind::EmptyFile, &marker())?;
            path.truncate(length);
        }
        for name in names {
            push_name(path, &name);
            if path.len() > MAX_PATH_BYTES || depth >= MAX_DEPTH {
                return Err(self.fail("sealing (its path is too long or too deep)", path)(Errno::NAMETOOLONG));
            }
            self.name(directory.as_fd(), &name, path, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn name(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &mut Vec<u8>, depth: usize) -> Result<()> {
        let place = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let place = place.map_err(self.fail("opening", path))?;
        let about = fstat(&place).map_err(self.fail("inspecting", path))?;
        let kind = rustix::fs::FileType::from_raw_mode(about.st_mode);
        if kind.is_dir() {
            // One descriptor a level.
            drop(place);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = openat(parent, name, flags, Mode::empty()).map_err(self.fail("opening", path))?;
            return self.directory(&directory, path, depth + 1);
        }
        self.count(path)?;
        if kind.is_char_device() && about.st_rdev == 0 {
            let length = path.len() - name.len();
            let whiteout = [&path[..length], b".wh.", name].concat();
            return self.tar.entry(&whiteout, EntryKind::EmptyFile, &marker());
        }
        if about.st_nlink > 1 {
            let key = (about.st_dev, about.st_ino);
            if let Some(first) = self.links.get(&key) {
                let meta = self.meta(&about, Vec::new());
                return self.tar.entry(path, EntryKind::HardLink(first), &meta);
            }
            self.links.insert(key, path.clone());
        }
        let found = attributes::read_at(&place).map_err(self.fail("reading attributes of", path))?;
        if found.redirected {
            return Err(LayerError::Unsealable { path: self.upper.join(String::from_utf8_lossy(path).as_ref()) });
        }
        let meta = self.meta(&about, found.kept);
        let device = || (major(about.st_rdev), minor(about.st_rdev));
        if kind.is_file() {
            return self.file(parent, name, path, &meta);
        }
        if kind.is_symlink() {
            let target = readlinkat(&place, "", Vec::new()).map_err(self.fail("reading the link", path))?;
            return self.tar.entry(path, EntryKind::Symlink(target.to_bytes()), &meta);
        }
        if kind.is_fifo() {
            return self.tar.entry(path, EntryKind::Fifo, &meta);
        }
        if kind.is_char_device() {
            return self.tar.entry(path, EntryKind::CharDevice(device().0, device().1), &meta);
        }
        if kind.is_block_device() {
            return self.tar.entry(path, EntryKind::BlockDevice(device().0, device().1), &meta);
        }
        // A socket means nothing without its process, and tar has no word for it.
        Ok(())
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8], meta: &EntryMeta) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::empty()).map_err(self.fail("opening", path))?;
        let about = fstat(&file).map_err(self.fail("inspecting", path))?;
        let size = u64::try_from(about.st_size).unwrap_or(0);
        let file = File::from(file);
        let regions = if u64::try_from(about.st_blocks).unwrap_or(0) * 512 + MIN_HOLE_BYTES <= size {
            regions(&file, size).map_err(self.fail("looking for holes in", path))?
        } else {
            vec![(0, size)]
        };
        if matches!(regions.as_slice(), [(0, whole)] if *whole == size) {
            return self.tar.file(path, meta, size, &mut &file);
        }
        let shown = self.upper.join(String::from_utf8_lossy(path).as_ref());
        let mut buffer = vec![0; COPY_BYTES];
        self.tar.sparse_file(path, meta, size, &regions, |offset, bytes, put| {
            let mut at = offset;
            while at < offset + bytes {
                let want = usize::try_from(offset + bytes - at).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
                let got = file.read_at(&mut buffer[..want], at).map_err(|e| LayerError::io("reading", &shown, e))?;
                // Cut while it is read: the rest is zeros.
                let got = if got == 0 {
                    buffer[..want].fill(0);
                    want
                } else {
                    got
                };
                put(&buffer[..got])?;
                at += got as u64;
            }
            Ok(())
        })
    }

    fn count(&mut self, path: &[u8]) -> Result<()> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(self.fail("sealing (more entries than a layer may have)", path)(Errno::TOOBIG));
        }
        Ok(())
    }

    fn meta(&self, about: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> EntryMeta {
        let (mut mtime, mut mtime_ns) = (about.st_mtime, u32::try_from(about.st_mtime_nsec).unwrap_or(0));
        if let Some(newest) = self.options.newest_mtime.filter(|newest| mtime >= *newest) {
            (mtime, mtime_ns) = (newest, 0);
        }
        EntryMeta { mode: about.st_mode & 0o7777, uid: about.st_uid, gid: about.st_gid, mtime, mtime_ns, xattrs }
    }
}

/// What a whiteout or an opaque mark carries: nothing.
fn marker() -> EntryMeta {
    EntryMeta::default()
}

fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Where a file has data (lseek(2), `SEEK_DATA`), small holes included.
fn regions(file: &File, size: u64) -> Result<Vec<(u64, u64)>, Errno> {
    use rustix::fs::{SeekFrom, seek};
    let mut regions: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(size);
        match regions.last_mut() {
            Some((offset, bytes)) if start - (*offset + *bytes) < MIN_HOLE_BYTES => *bytes = end - *offset,
            _ => regions.push((start, end.saturating_sub(start))),
        }
        at = end.max(at + 1);
    }
    // GNU tar ends a map whose file ends with a hole by an empty region.
    if regions.last().is_none_or(|(offset, bytes)| offset + bytes < size) {
        regions.push((size, 0));
    }
    seek(file, SeekFrom::Start(0))?;
    Ok(regions)
}
