//! An incremental tar parser: bytes in arbitrary pieces go in, entries with the place of their data come out.
//!
//! It never sees more than a block at a time and keeps nothing but the headers of the present entry. Where GNU tar and Go's
//! `archive/tar` would read the same bytes as different trees, it refuses: such archives are made to deceive a scanner.
//! Not here: what paths mean (`tree`), what is done with data.

mod header;
mod pax;
mod sparse;

use std::borrow::Cow;
use std::mem;

use self::header::{Header, until_nul};
use self::pax::Pax;
use self::sparse::{OldMap, TextMap};
use crate::error::{LayerError, Result};
use crate::limits::{MAX_EXTENSION_BYTES, MAX_FILE_BYTES};

pub use self::header::BLOCK;
pub use self::sparse::Region;

/// What an entry makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File(FileData),
    /// Another name for the entry's link path.
    HardLink,
    /// A symbolic link to the entry's link path.
    Symlink,
    /// A character device, encoded as by `new_encode_dev`.
    CharDevice(u32),
    /// A block device, encoded likewise.
    BlockDevice(u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// Where a file's data lie in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileData {
    /// Offset of the first byte in the stream.
    pub offset: u64,
    /// Logical size in bytes.
    pub size: u64,
    /// For a sparse file its regions, in order; their data lie one after another from `offset`.
    pub regions: Option<Vec<Region>>,
    /// Whether the rest of the last block is zero, so that a memory map of the file shows nothing foreign behind its end.
    pub clean_padding: bool,
}

/// One entry of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Offset of its header in the stream, for error messages.
    pub at: u64,
    /// Its path as given, not yet judged.
    pub path: Vec<u8>,
    /// The link target as given.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits (07777).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Its nanoseconds.
    pub mtime_ns: u32,
    /// Extended attributes, full names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug)]
enum State {
    /// A header is expected.
    Header,
    /// One block of zeros was seen: a second ends the archive.
    HalfEnd,
    /// The body of an extension header.
    Extension { kind: u8, left: u64, padding: u64, body: Vec<u8> },
    /// Continuation blocks of an old GNU sparse map.
    OldSparse { entry: Box<Entry>, map: OldMap, stored: u64, real: u64 },
    /// The sparse map before the data, PAX 1.0.
    TextSparse { entry: Box<Entry>, map: TextMap, stored: u64, real: u64 },
    /// A file's data (or an ignored entry's, without `entry`).
    Data { entry: Option<Box<Entry>>, left: u64, padding: u64, clean: bool },
    /// Behind the end of the archive: nothing is parsed.
    Ended,
}

/// The parser. Feed it with [`TarParser::push`], then ask [`TarParser::finish`].
#[derive(Debug)]
pub struct TarParser {
    state: State,
    block: [u8; BLOCK],
    filled: usize,
    /// Bytes consumed so far.
    offset: u64,
    /// Where the present entry (its first extension header) begins.
    entry_at: u64,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    local: Option<Pax>,
    global: Pax,
    /// The path of the present entry, for error messages.
    name: Vec<u8>,
}

impl Default for TarParser {
    fn default() -> Self {
        Self {
            state: State::Header,
            block: [0; BLOCK],
            filled: 0,
            offset: 0,
            entry_at: 0,
            long_name: None,
            long_link: None,
            local: None,
            global: Pax::default(),
            name: Vec::new(),
        }
    }
}

impl TarParser {
    /// Takes the next piece of the stream and hands every entry that is complete to `take`.
    ///
    /// # Errors
    /// [`LayerError::Tar`], or what `take` returns. The parser is of no use afterwards.
    pub fn push(&mut self, mut bytes: &[u8], take: &mut impl FnMut(Entry) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            let used = match &mut self.state {
                State::Ended => bytes.len(),
                State::Data { left, .. } if *left > 0 => {
                    let used = within(*left, bytes.len());
                    *left -= used as u64;
                    used
                }
                State::Data { padding, clean, .. } if *padding > 0 => {
                    let used = within(*padding, bytes.len());
                    *padding -= used as u64;
                    *clean &= bytes[..used].iter().all(|&byte| byte == 0);
                    used
                }
                State::Extension { left, body, .. } if *left > 0 => {
                    let used = within(*left, bytes.len());
                    *left -= used as u64;
                    body.extend_from_slice(&bytes[..used]);
                    used
                }
                State::Extension { padding, .. } if *padding > 0 => {
                    let used = within(*padding, bytes.len());
                    *padding -= used as u64;
                    used
                }
                _ => {
                    let used = bytes.len().min(BLOCK - self.filled);
                    self.block[self.filled..self.filled + used].copy_from_slice(&bytes[..used]);
                    self.filled += used;
                    used
                }
            };
            self.offset += used as u64;
            bytes = &bytes[used..];
            self.advance(take)?;
        }
        Ok(())
    }

    /// Ends the stream.
    ///
    /// An archive may end without its two blocks of zeros (Go and GNU tar agree), but not within an entry.
    ///
    /// # Errors
    /// [`LayerError::Tar`] if it ends within an entry.
    pub fn finish(self) -> Result<()> {
        let extended = self.long_name.is_some() || self.long_link.is_some() || self.local.is_some();
        match self.state {
            State::Ended => Ok(()),
            State::Header | State::HalfEnd if self.filled == 0 && !extended => Ok(()),
            _ => Err(self.fault("the archive is truncated: it ends within this entry")),
        }
    }

    fn fault(&self, why: impl Into<Cow<'static, str>>) -> LayerError {
        LayerError::tar(self.entry_at, &self.name, why)
    }

    /// Moves on where a block or a body is complete.
    fn advance(&mut self, take: &mut impl FnMut(Entry) -> Result<()>) -> Result<()> {
        match &self.state {
            State::Extension { left: 0, padding: 0, .. } => self.end_extension(),
            State::Data { left: 0, padding: 0, .. } => self.end_data(take),
            State::Header | State::HalfEnd | State::OldSparse { .. } | State::TextSparse { .. }
                if self.filled == BLOCK =>
            {
                self.filled = 0;
                self.end_block()?;
                // An empty body is complete at once.
                match &self.state {
                    State::Extension { left: 0, padding: 0, .. } => self.end_extension(),
                    State::Data { left: 0, padding: 0, .. } => self.end_data(take),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn end_block(&mut self) -> Result<()> {
        let block = self.block;
        match mem::replace(&mut self.state, State::Header) {
            State::OldSparse { entry, mut map, stored, real } => {
                map.add(&block[..504]).map_err(|why| self.fault(why))?;
                if block[504] != 0 {
                    self.state = State::OldSparse { entry, map, stored, real };
                    return Ok(());
                }
                self.begin_sparse(entry, map.finish(), stored, real)
            }
            State::TextSparse { entry, mut map, stored, real } => {
                let stored =
                    stored.checked_sub(BLOCK as u64).ok_or_else(|| self.fault("sparse map is longer than the data"))?;
                if !map.add(&block).map_err(|why| self.fault(why))? {
                    self.state = State::TextSparse { entry, map, stored, real };
                    return Ok(());
                }
                self.begin_sparse(entry, map.finish(), stored, real)
            }
            half => self.header(&block, matches!(half, State::HalfEnd)),
        }
    }

    fn header(&mut self, block: &[u8; BLOCK], half_end: bool) -> Result<()> {
        let extended = self.long_name.is_some() || self.long_link.is_some() || self.local.is_some();
        if !extended {
            self.entry_at = self.offset - BLOCK as u64;
            self.name.clear();
        }
        if block.iter().all(|&byte| byte == 0) {
            if extended {
                return Err(self.fault("an extension header without its entry before the end of the archive"));
            }
            self.state = if half_end { State::Ended } else { State::HalfEnd };
            return Ok(());
        }
        if half_end {
            return Err(self.fault("a single block of zeros in the middle of the archive"));
        }
        let header = Header::parse(block).map_err(|why| self.fault(why))?;
        match header.kind() {
            kind @ (b'x' | b'g' | b'L' | b'K') => self.begin_extension(header, kind),
            b'V' => {
                let size = header.size().map_err(|why| self.fault(why))?;
                self.begin_data(None, size)
            }
            kind => self.begin_entry(header, kind),
        }
    }

    fn begin_extension(&mut self, header: Header<'_>, kind: u8) -> Result<()> {
        let left = header.size().map_err(|why| self.fault(why))?;
        if left > MAX_EXTENSION_BYTES {
            return Err(self.fault(format!("extension header of {left} bytes, the limit is {MAX_EXTENSION_BYTES}")));
        }
        self.state = State::Extension { kind, left, padding: padding(left), body: Vec::new() };
        Ok(())
    }

    fn end_extension(&mut self) -> Result<()> {
        let State::Extension { kind, body, .. } = mem::replace(&mut self.state, State::Header) else { return Ok(()) };
        match kind {
            b'L' => self.long_name = Some(until_nul(&body).to_vec()),
            b'K' => self.long_link = Some(until_nul(&body).to_vec()),
            b'g' => {
                let mut global = mem::take(&mut self.global);
                global.add(&body, true).map_err(|why| self.fault(why))?;
                self.global = global;
            }
            _ => {
                if self.local.is_some() {
                    return Err(self.fault("two PAX headers for one entry"));
                }
                let mut local = Pax::default();
                local.add(&body, false).map_err(|why| self.fault(why))?;
                self.local = Some(local);
            }
        }
        Ok(())
    }

    fn begin_entry(&mut self, header: Header<'_>, flag: u8) -> Result<()> {
        let pax = self.local.take().unwrap_or_default().over(&self.global);
        let path = self.one_name(pax.path, self.long_name.clone(), "path")?;
        let link = self.one_name(pax.link, self.long_link.clone(), "link path")?;
        (self.long_name, self.long_link) = (None, None);
        let path = pax.sparse.name.clone().or(path).unwrap_or_else(|| header.path());
        self.name.clone_from(&path);
        let fault = |why: &'static str| LayerError::tar(self.entry_at, &path, why);
        let (mtime, mtime_ns) = match pax.mtime {
            Some(time) => time,
            None => (header.mtime().map_err(fault)?, 0),
        };
        let uid = pax.uid.map_or_else(|| header.uid(), Ok).map_err(fault)?;
        let gid = pax.gid.map_or_else(|| header.gid(), Ok).map_err(fault)?;
        let mut entry = Box::new(Entry {
            at: self.entry_at,
            link: link.unwrap_or_else(|| header.link()),
            kind: Kind::Fifo,
            mode: header.mode().map_err(fault)?,
            uid: u32::try_from(uid).map_err(|_| fault("uid is not 0 to 4294967295"))?,
            gid: u32::try_from(gid).map_err(|_| fault("gid is not 0 to 4294967295"))?,
            mtime,
            mtime_ns,
            xattrs: pax.xattrs,
            path: Vec::new(),
        });
        // A hard link's size in the header tells the target's size; no data follow.
        let size = match (pax.size, flag) {
            (None, b'1') => 0,
            (Some(size), _) => size,
            (None, _) => header.size().map_err(fault)?,
        };
        let named_directory = path.ends_with(b"/");
        entry.kind = match flag {
            b'0' | 0 | b'7' if named_directory => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => {
                Kind::File(FileData { offset: self.offset, size, regions: None, clean_padding: true })
            }
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice(header.device().map_err(fault)?),
            b'4' => Kind::BlockDevice(header.device().map_err(fault)?),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(self.fault(format!("entry type {:?} is not one that a layer can hold", char::from(flag)))),
        };
        entry.path = path;
        let is_file = matches!(entry.kind, Kind::File(_));
        if !is_file && size > 0 {
            // GNU tar skips such data, Go takes them for headers.
            return Err(self.fault("an entry with data whose type has none"));
        }
        let sparse = pax.sparse;
        if flag == b'S' {
            if sparse.map.is_some() || sparse.major.is_some() {
                return Err(self.fault("two sparse maps for one entry"));
            }
            return self.begin_old_sparse(header, entry, size);
        }
        match (sparse.major.unwrap_or(0), sparse.minor.unwrap_or(0), sparse.map, sparse.real_size) {
            (0, 0 | 1, None, None) if sparse.name.is_none() => self.begin_data(Some(entry), size),
            _ if !is_file => Err(self.fault("a sparse map for an entry that is no file")),
            (0, 0 | 1, Some(map), Some(real)) => self.begin_sparse(entry, map, size, real),
            (1, 0, None, Some(real)) => {
                self.state = State::TextSparse { entry, map: TextMap::default(), stored: size, real };
                Ok(())
            }
            _ => Err(self.fault("sparse headers are incomplete or of an unknown version")),
        }
    }

    /// The name from PAX or GNU extension headers, which must not contradict each other: GNU tar and Go prefer different ones.
    fn one_name(&self, pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>, what: &str) -> Result<Option<Vec<u8>>> {
        match (pax, gnu) {
            (Some(pax), Some(gnu)) if pax != gnu => {
                Err(self.fault(format!("PAX and GNU headers give a different {what}")))
            }
            (pax, gnu) => Ok(pax.or(gnu)),
        }
    }

    fn begin_old_sparse(&mut self, header: Header<'_>, entry: Box<Entry>, stored: u64) -> Result<()> {
        let (places, more, real) = header.old_sparse().map_err(|why| self.fault(why))?;
        let mut map = OldMap::default();
        map.add(places).map_err(|why| self.fault(why))?;
        if more {
            self.state = State::OldSparse { entry, map, stored, real };
            return Ok(());
        }
        self.begin_sparse(entry, map.finish(), stored, real)
    }

    fn begin_sparse(&mut self, mut entry: Box<Entry>, map: Vec<Region>, stored: u64, real: u64) -> Result<()> {
        let regions = sparse::check(map, real, stored).map_err(|why| self.fault(why))?;
        entry.kind =
            Kind::File(FileData { offset: self.offset, size: real, regions: Some(regions), clean_padding: true });
        self.begin_data(Some(entry), stored)
    }

    fn begin_data(&mut self, entry: Option<Box<Entry>>, size: u64) -> Result<()> {
        if size > MAX_FILE_BYTES {
            return Err(self.fault("file is larger than the limit of 16 TiB"));
        }
        self.state = State::Data { entry, left: size, padding: padding(size), clean: true };
        Ok(())
    }

    fn end_data(&mut self, take: &mut impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let State::Data { entry, clean, .. } = mem::replace(&mut self.state, State::Header) else { return Ok(()) };
        let Some(mut entry) = entry else { return Ok(()) };
        if let Kind::File(data) = &mut entry.kind {
            data.clean_padding = clean;
        }
        take(*entry)
    }
}

/// Bytes to the next multiple of the block size.
fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// How many of `available` bytes belong to what has `left` bytes to go.
fn within(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}
