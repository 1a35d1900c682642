//! A tar becomes files.

use crate::{
    error::{ArchiveError, Result, shown},
    limits::COPY_BYTES,
    place::{Owners, Place, cannot_open},
};
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown, fstat, futimens,
        linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write as _},
    os::fd::{AsFd as _, OwnedFd},
};
use tar::{Archive, Entry, EntryType};

/// Another name for what the archive brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// The first name of its entries; "." = that they are all below it.
    pub from: Vec<u8>,
    /// What it is called instead: one name, or "" for the directory that it is unpacked in.
    pub to: Vec<u8>,
}

/// How an archive is unpacked.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    /// Whose the files become.
    pub owners: Owners,
    /// Another name.
    pub rename: Option<Rename>,
}

/// Unpacks a tar in the directory `path` of a place, which must be there. Files replace files, directories join directories; a file never replaces
/// a directory or the other way round. Devices are left out. Gives the number of entries made, and of devices left out.
///
/// # Errors
/// By what is wrong; what came before stays.
pub fn unpack(place: &Place<'_>, path: &[u8], options: &UnpackOptions, input: impl Read) -> Result<(u64, u64)> {
    let base = place.open_dir(path).map_err(cannot_open(path))?;
    let mut unpacker =
        Unpacker { place: *place, base: path, options, directories: BTreeMap::new(), last: None, made: 0, left_out: 0 };
    let reading = |source| ArchiveError::Stream { doing: "reading", source };
    let mut archive = Archive::new(input);
    for entry in archive.entries().map_err(reading)? {
        unpacker.entry(entry.map_err(reading)?, &base)?;
    }
    // What comes behind the end belongs to the stream: read, so that its sender can finish.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(reading)?;
    unpacker.finish()?;
    Ok((unpacker.made, unpacker.left_out))
}

struct Unpacker<'a> {
    place: Place<'a>,
    base: &'a [u8],
    options: &'a UnpackOptions,
    /// Modes and times of directories, which are set when everything is in them. The deepest last.
    directories: BTreeMap<Vec<u8>, (Mode, Timestamps)>,
    /// The parent of the entry before.
    last: Option<(Vec<u8>, OwnedFd)>,
    made: u64,
    left_out: u64,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>, base: &OwnedFd) -> Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let raw = entry.path_bytes().into_owned();
        let parts = self.parts(&raw)?;
        let Some((name, parents)) = parts.split_last() else {
            // The directory itself.
            if kind != EntryType::Directory {
                return Err(bad(&raw, "would take the place of the directory that it is unpacked in"));
            }
            return Ok(());
        };
        let parents = parents.join(&b'/');
        let parent = match self.last.take() {
            Some((path, fd)) if path == parents => fd,
            _ => self.parent(&parents, base)?,
        };
        let made = self.make(&mut entry, kind, &parent, name, &parts.join(&b'/'));
        self.last = Some((parents, parent));
        made
    }

    /// The names of an entry's path, renamed.
    fn parts(&self, raw: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut parts: Vec<Vec<u8>> =
            raw.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").map(<[u8]>::to_vec).collect();
        if parts.iter().any(|p| p == b".." || p.contains(&0)) {
            return Err(bad(raw, "has a path that leads out"));
        }
        if let Some(Rename { from, to }) = &self.options.rename {
            let all = from == b".";
            if !all && parts.first() != Some(from) {
                return Err(bad(raw, "is not of what was asked for"));
            }
            if !all {
                parts.remove(0);
            }
            if !to.is_empty() {
                parts.insert(0, to.clone());
            }
        }
        Ok(parts)
    }

    /// The directory that an entry is made in. Those that are missing are made.
    fn parent(&self, parents: &[u8], base: &OwnedFd) -> Result<OwnedFd> {
        if parents.is_empty() {
            return base.try_clone().map_err(|source| ArchiveError::Io {
                doing: "opening",
                path: shown(self.base),
                source,
            });
        }
        let full = self.full(parents);
        match self.place.open_dir(&full) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(cannot_open(&full)),
        }
        let (above, name) = match parents.iter().rposition(|b| *b == b'/') {
            Some(at) => (&parents[..at], &parents[at + 1..]),
            None => (&b""[..], parents),
        };
        let above = self.parent(above, base)?;
        match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => self.own(&above, name, 0, 0, &full)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(ArchiveError::io("making", &full, error)),
        }
        self.place.open_dir(&full).map_err(cannot_open(&full))
    }

    fn full(&self, path: &[u8]) -> Vec<u8> {
        [self.base, &b"/"[..], path].concat()
    }

    fn make<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        kind: EntryType,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<()> {
        let number = |field: std::io::Result<u64>| field.map_err(|e| bad(path, format!("has a bad header: {e}")));
        let mode = entry.header().mode().map_err(|e| bad(path, format!("has a bad header: {e}")))?;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let (uid, gid) = (number(entry.header().uid())?, number(entry.header().gid())?);
        let seconds = i64::try_from(number(entry.header().mtime())?).unwrap_or(0);
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        let there = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => Some(FileType::from_raw_mode(about.st_mode)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(ArchiveError::io("inspecting", path, error)),
        };
        let overwrite = |why| Err(ArchiveError::Overwrite { path: shown(&self.full(path)), why });
        match (kind, there) {
            (EntryType::Directory, Some(there)) if there != FileType::Directory => {
                return overwrite("it is no directory, and a directory comes");
            }
            (kind, Some(FileType::Directory)) if kind != EntryType::Directory => {
                return overwrite("it is a directory, and none comes");
            }
            _ => {}
        }
        let fail = |doing| move |error| ArchiveError::io(doing, path, error);
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let file = new_file(parent, name, there).map_err(fail("making"))?;
                if let Some((uid, gid)) = self.ids(uid, gid, path)? {
                    fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                        .map_err(fail("changing the owner of"))?;
                }
                let mut file = File::from(file);
                copy(entry, &mut file, path)?;
                // Last: a change of owner or content would take the set-user-id bit.
                fchmod(file.as_fd(), mode).map_err(fail("changing the mode of"))?;
                futimens(file.as_fd(), &times).map_err(fail("setting the time of"))?;
            }
            EntryType::Directory => {
                if there.is_none() {
                    mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(fail("making"))?;
                }
                self.own(parent, name, uid, gid, path)?;
                self.directories.insert(path.to_vec(), (mode, times));
            }
            EntryType::Symlink => {
                let target =
                    entry.link_name_bytes().ok_or_else(|| bad(path, "is a link without a target"))?.into_owned();
                clear(parent, name, there).map_err(fail("replacing"))?;
                symlinkat(target.as_slice(), parent, name).map_err(fail("making"))?;
                self.own(parent, name, uid, gid, path)?;
                utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(fail("setting the time of"))?;
            }
            EntryType::Link => {
                let target =
                    entry.link_name_bytes().ok_or_else(|| bad(path, "is a link without a target"))?.into_owned();
                self.link(&target, parent, name, there, path)?;
            }
            EntryType::Fifo => {
                clear(parent, name, there).map_err(fail("replacing"))?;
                mknodat(parent, name, FileType::Fifo, mode, 0).map_err(fail("making"))?;
                self.own(parent, name, uid, gid, path)?;
            }
            EntryType::Char | EntryType::Block => {
                self.left_out += 1;
                return Ok(());
            }
            other => {
                return Err(bad(path, format!("is of a kind ({:?}) that is not known here", other.as_byte() as char)));
            }
        }
        self.made += 1;
        Ok(())
    }

    /// A second name for a file that came before; it is found from the same root, links on the way included, but not at its end.
    fn link(&self, target: &[u8], parent: &OwnedFd, name: &[u8], there: Option<FileType>, path: &[u8]) -> Result<()> {
        let parts = self.parts(target)?;
        let Some((last, parents)) = parts.split_last() else { return Err(bad(path, "is a link to the root")) };
        let above = self.full(&parents.join(&b'/'));
        let above = self.place.open_dir(&above).map_err(cannot_open(&above))?;
        let about = statat(&above, last.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        if about.is_ok_and(|a| FileType::from_raw_mode(a.st_mode) == FileType::Directory) {
            return Err(bad(path, "is a hard link to a directory"));
        }
        clear(parent, name, there).map_err(|e| ArchiveError::io("replacing", path, e))?;
        linkat(&above, last.as_slice(), parent, name, AtFlags::empty())
            .map_err(|e| ArchiveError::io("linking", path, e))
    }

    fn ids(&self, uid: u64, gid: u64, path: &[u8]) -> Result<Option<(u32, u32)>> {
        self.options.owners.inward(uid, gid).map_err(|why| bad(path, why))
    }

    fn own(&self, parent: &OwnedFd, name: &[u8], uid: u64, gid: u64, path: &[u8]) -> Result<()> {
        let Some((uid, gid)) = self.ids(uid, gid, path)? else { return Ok(()) };
        chownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| ArchiveError::io("changing the owner of", path, e))
    }

    /// Sets what writing into directories would have changed, the deepest first.
    fn finish(&mut self) -> Result<()> {
        for (path, (mode, times)) in std::mem::take(&mut self.directories).into_iter().rev() {
            let full = self.full(&path);
            // By a descriptor that can be changed: a link that has taken its place is refused by NOFOLLOW.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            match self.place.open(&full, flags) {
                Ok(directory) => {
                    fchmod(&directory, mode).map_err(|e| ArchiveError::io("changing the mode of", &full, e))?;
                    futimens(&directory, &times).map_err(|e| ArchiveError::io("setting the time of", &full, e))?;
                }
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
                Err(error) => return Err(ArchiveError::io("opening", &full, error)),
            }
        }
        Ok(())
    }
}

fn bad(path: &[u8], why: impl Into<std::borrow::Cow<'static, str>>) -> ArchiveError {
    ArchiveError::Entry { entry: shown(path), why: why.into() }
}

/// Removes what has a name, if it is there.
fn clear(parent: &OwnedFd, name: &[u8], there: Option<FileType>) -> Result<(), Errno> {
    if there.is_none() {
        return Ok(());
    }
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// A new file in the place of whatever non-directory has its name: links are replaced, never followed. What is mounted there cannot be replaced
/// and is written into.
fn new_file(parent: &OwnedFd, name: &[u8], there: Option<FileType>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match clear(parent, name, there) {
        Ok(()) => openat(parent, name, flags | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o600)),
        Err(Errno::BUSY) if there == Some(FileType::RegularFile) => {
            let file = openat(parent, name, flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::TRUNC, Mode::empty())?;
            let about = fstat(&file)?;
            if FileType::from_raw_mode(about.st_mode) == FileType::RegularFile { Ok(file) } else { Err(Errno::BUSY) }
        }
        Err(error) => Err(error),
    }
}

fn copy(entry: &mut impl Read, file: &mut File, path: &[u8]) -> Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let got = match entry.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(got) => got,
            Err(source) => return Err(ArchiveError::Stream { doing: "reading", source }),
        };
        let written = file.write_all(&buffer[..got]);
        written.map_err(|source| ArchiveError::Io { doing: "writing", path: shown(path), source })?;
    }
}
