//! Writing tar archives: ustar headers, with PAX records for what those cannot hold (POSIX pax, "pax Extended Header").
//!
//! The same entries give the same bytes. Written are only fields that mean something to a layer: no user names, no access times.

mod header;

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use crate::error::{LayerError, Result};
use crate::tar::BLOCK;
use crate::writer::{LayerWriter, Published};

/// Bytes of a file that are held at once.
const COPY_BYTES: usize = 256 << 10;

/// Where the bytes of an archive go.
pub trait TarSink {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// Its own; the archive is of no use afterwards.
    fn put(&mut self, bytes: &[u8]) -> Result<()>;
}

impl TarSink for LayerWriter {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.push(bytes)
    }
}

impl TarSink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// What an entry is. Files are written by [`TarWriter::file`] and [`TarWriter::sparse_file`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A directory.
    Directory,
    /// A regular file without content.
    EmptyFile,
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// Another name of an earlier entry, named by its path.
    HardLink(&'a [u8]),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// The attributes of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryMeta {
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since 1970.
    pub mtime: i64,
    /// Its nanoseconds.
    pub mtime_ns: u32,
    /// Extended attributes, full names and values, in the order they are written.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The extended attributes that belong into an archive, of whatever a descriptor (`O_PATH` will do) names: without overlayfs's own, and with file
/// capabilities that name no user namespace.
///
/// # Errors
/// The kernel's.
pub fn attributes(place: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    Ok(crate::seal::read_attributes(place)?.kept)
}

/// Writes an archive into a sink. Paths have no leading slash; "" is the root.
#[derive(Debug)]
pub struct TarWriter<S: TarSink>(S);

impl<S: TarSink> TarWriter<S> {
    /// Begins an archive.
    pub fn new(sink: S) -> Self {
        Self(sink)
    }

    /// Writes an entry without data.
    ///
    /// # Errors
    /// The sink's.
    pub fn entry(&mut self, path: &[u8], kind: EntryKind<'_>, meta: &EntryMeta) -> Result<()> {
        self.0.put(&header::encode(path, kind, meta, 0, &[]))
    }

    /// Writes a regular file of `size` bytes from `content`. What is longer is cut; what is shorter is filled with zeros, as a file that was
    /// cut while it was read.
    ///
    /// # Errors
    /// The sink's, or the I/O error of `content`.
    pub fn file(&mut self, path: &[u8], meta: &EntryMeta, size: u64, content: &mut impl Read) -> Result<()> {
        self.0.put(&header::encode(path, EntryKind::EmptyFile, meta, size, &[]))?;
        self.copy(path, content, size)?;
        self.pad(size)
    }

    /// Writes a regular file with holes: `regions` are the offsets and lengths of its data, in order; `content` gives the data of one
    /// region after the other (GNU tar manual, "PAX Format, Version 1.0").
    ///
    /// # Errors
    /// As [`TarWriter::file`].
    pub fn sparse_file(
        &mut self,
        path: &[u8],
        meta: &EntryMeta,
        size: u64,
        regions: &[(u64, u64)],
        mut content: impl FnMut(u64, u64, &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let mut map = format!("{}\n", regions.len()).into_bytes();
        for (offset, bytes) in regions {
            map.extend_from_slice(format!("{offset}\n{bytes}\n").as_bytes());
        }
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let data: u64 = regions.iter().map(|(_, bytes)| bytes).sum();
        let stored = map.len() as u64 + data;
        let records = header::sparse_records(path, size);
        self.0.put(&header::encode(path, EntryKind::EmptyFile, meta, stored, &records))?;
        self.0.put(&map)?;
        for (offset, bytes) in regions {
            content(*offset, *bytes, &mut |piece| self.0.put(piece))?;
        }
        self.pad(stored)
    }

    fn copy(&mut self, path: &[u8], content: &mut impl Read, size: u64) -> Result<()> {
        let mut buffer = vec![0; usize::try_from(size).map_or(COPY_BYTES, |size| size.clamp(1, COPY_BYTES))];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let got = content
                .read(&mut buffer[..want])
                .map_err(|error| LayerError::io("reading", String::from_utf8_lossy(path).into_owned(), error))?;
            let piece = if got == 0 {
                buffer[..want].fill(0);
                &buffer[..want]
            } else {
                &buffer[..got]
            };
            self.0.put(piece)?;
            left -= piece.len() as u64;
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let gap = size.next_multiple_of(BLOCK as u64) - size;
        self.0.put(&[0; BLOCK][..usize::try_from(gap).unwrap_or(0)])
    }

    /// Writes the end marker and gives the sink back.
    ///
    /// # Errors
    /// The sink's.
    pub fn end(mut self) -> Result<S> {
        self.0.put(&[0; 2 * BLOCK])?;
        Ok(self.0)
    }
}

impl TarWriter<LayerWriter> {
    /// Ends the archive and publishes the layer.
    ///
    /// # Errors
    /// As [`LayerWriter::finish`].
    pub fn publish(self) -> Result<Published> {
        self.end()?.finish(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tar::{Entry, FileData, Kind, TarParser};

    fn read(tar: &[u8]) -> Vec<Entry> {
        let mut parser = TarParser::default();
        let mut entries = Vec::new();
        parser
            .push(tar, &mut |entry| {
                entries.push(entry);
                Ok(())
            })
            .unwrap();
        entries
    }

    #[test]
    fn what_is_written_is_read_again() {
        let long = [b"d/".to_vec(), vec![b'x'; 200]].concat();
        let meta = EntryMeta {
            mode: 0o4755,
            uid: 3_000_000,
            gid: 12,
            mtime: -5,
            mtime_ns: 250_000_000,
            xattrs: vec![(b"user.a".to_vec(), b"1\n\0=2".to_vec())],
        };
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(b"", EntryKind::Directory, &EntryMeta { mode: 0o1777, ..EntryMeta::default() }).unwrap();
        writer.entry(b"d", EntryKind::Directory, &meta).unwrap();
        writer.file(&long, &meta, 5, &mut &b"hello world"[..]).unwrap();
        writer.entry(b"l", EntryKind::Symlink(&long), &meta).unwrap();
        writer.entry(b"h", EntryKind::HardLink(&long), &meta).unwrap();
        writer.entry(b"c", EntryKind::CharDevice(1, 300), &meta).unwrap();
        writer
            .sparse_file(b"s", &meta, 1 << 30, &[(4096, 512), (1 << 29, 3)], |_, bytes, put| {
                put(&vec![7; usize::try_from(bytes).unwrap()])
            })
            .unwrap();
        let tar = writer.end().unwrap();
        let entries = read(&tar);
        assert_eq!(entries.len(), 7);
        assert_eq!((entries[0].mode, entries[0].kind.clone()), (0o1777, Kind::Directory));
        let file = &entries[2];
        assert_eq!(file.path, long);
        assert_eq!(
            (file.mode, file.uid, file.gid, file.mtime, file.mtime_ns),
            (0o4755, 3_000_000, 12, -5, 250_000_000)
        );
        assert_eq!(file.xattrs, meta.xattrs);
        assert_eq!(entries[3].link, long);
        assert!(matches!(entries[4].kind, Kind::HardLink) && entries[4].link == long);
        assert_eq!(entries[5].kind, Kind::CharDevice(0x0010_012c));
        let Kind::File(FileData { size, regions: Some(regions), .. }) = &entries[6].kind else { unreachable!() };
        assert_eq!((*size, regions.len(), entries[6].path.as_slice()), (1 << 30, 2, &b"s"[..]));
    }
}
