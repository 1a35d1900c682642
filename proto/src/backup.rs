//! The form of a backup: the bytes that the controller sends and that `ctl system backup` keeps, and their way back. The layout stands in
//! `strata/store/v1/store.proto`.
//!
//! A reader believes nothing before the end: only when [`Reader::read`] has given `None` is the copy whole and unchanged.

use crate::store::{BackupHeader, Change};
use prost::Message;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use strata_model::limits::OBJECT_BYTES_MAX;

/// The only format there is.
pub const FORMAT: u32 = 1;
/// How a backup begins.
pub const MAGIC: &[u8; 14] = b"STRATA-BACKUP\n";
/// Bytes of one message: an object with what names it.
pub const MESSAGE_BYTES_MAX: usize = OBJECT_BYTES_MAX + (64 << 10);

const CHECKSUM_BYTES: usize = 32;

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Some other file.
    #[error("it is no backup of Strata: it does not begin with STRATA-BACKUP")]
    Foreign,
    /// A later release wrote it.
    #[error(
        "it has format {found}, this release reads format {FORMAT} (it was written by release {version}): use that release, or a later one"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// Who wrote it.
        version: String,
    },
    /// Cut short, or changed since.
    #[error("it is damaged or cut short ({what}): take another copy")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// It cannot be read at all.
    #[error("reading it failed: {0}")]
    Io(#[from] io::Error),
}

fn damaged(what: impl Into<String>) -> BackupError {
    BackupError::Damaged { what: what.into() }
}

/// Makes the bytes of a backup, part by part: header, changes, end.
#[derive(Debug, Default)]
pub struct Writer {
    sum: Sha256,
}

impl Writer {
    /// The beginning.
    #[must_use]
    pub fn begin(header: &BackupHeader) -> (Self, Vec<u8>) {
        let mut this = Self::default();
        let mut bytes = MAGIC.to_vec();
        this.sum.update(MAGIC);
        bytes.extend(this.message(header));
        (this, bytes)
    }

    /// One object.
    pub fn change(&mut self, change: &Change) -> Vec<u8> {
        self.message(change)
    }

    /// The end: an empty message and the checksum.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        self.sum.update([0]);
        let mut bytes = vec![0];
        bytes.extend(self.sum.finalize());
        bytes
    }

    fn message(&mut self, message: &impl Message) -> Vec<u8> {
        let bytes = message.encode_length_delimited_to_vec();
        self.sum.update(&bytes);
        bytes
    }
}

/// Reads a backup.
pub struct Reader<R> {
    from: R,
    sum: Sha256,
    header: BackupHeader,
    is_over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn open(mut from: R) -> Result<Self, BackupError> {
        let mut magic = [0; MAGIC.len()];
        match from.read_exact(&mut magic) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(BackupError::Foreign),
            other => other?,
        }
        if magic != *MAGIC {
            return Err(BackupError::Foreign);
        }
        let mut this = Self { from, sum: Sha256::new(), header: BackupHeader::default(), is_over: false };
        this.sum.update(magic);
        let bytes = this.message()?.ok_or_else(|| damaged("it has no header"))?;
        this.header = BackupHeader::decode(&bytes[..]).map_err(|e| damaged(e.to_string()))?;
        if this.header.format != FORMAT {
            return Err(BackupError::Newer { found: this.header.format, version: this.header.version });
        }
        Ok(this)
    }

    /// What it says of itself.
    #[must_use]
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// The next object; `None` when all have come and the checksum is right.
    ///
    /// # Errors
    /// [`BackupError`]; nothing of what came before is to be believed then.
    pub fn read(&mut self) -> Result<Option<Change>, BackupError> {
        if self.is_over {
            return Ok(None);
        }
        if let Some(bytes) = self.message()? {
            return Change::decode(&bytes[..]).map(Some).map_err(|e| damaged(e.to_string()));
        }
        let mut found = [0; CHECKSUM_BYTES];
        self.exactly(&mut found)?;
        if found[..] != self.sum.finalize_reset()[..] {
            return Err(damaged("its checksum is wrong"));
        }
        if self.from.read(&mut [0])? != 0 {
            return Err(damaged("something follows its end"));
        }
        self.is_over = true;
        Ok(None)
    }

    /// One message; `None` for an empty one.
    fn message(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        let mut length = 0_u64;
        // A varint: seven bits a byte, the lowest first.
        for shift in (0..).step_by(7) {
            let mut byte = [0];
            self.exactly(&mut byte)?;
            self.sum.update(byte);
            length |= u64::from(byte[0] & 0x7f) << shift;
            if length > MESSAGE_BYTES_MAX as u64 || shift > 28 {
                return Err(damaged("a message is longer than any object"));
            }
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|e| damaged(e.to_string()))?];
        self.exactly(&mut bytes)?;
        self.sum.update(&bytes);
        Ok((length > 0).then_some(bytes))
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        self.from.read_exact(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
            _ => e.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn change(name: &str) -> Change {
        Change { kind: 2, namespace: "default".into(), name: name.into(), revision: 7, object: None }
    }

    fn file(format: u32) -> Vec<u8> {
        let header = BackupHeader { format, cluster_id: "c".into(), revision: 9, ..BackupHeader::default() };
        let (mut writer, mut bytes) = Writer::begin(&header);
        for name in ["a", "b"] {
            bytes.extend(writer.change(&change(name)));
        }
        bytes.extend(writer.end());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Change>, BackupError> {
        let mut reader = Reader::open(bytes)?;
        let mut changes = Vec::new();
        while let Some(change) = reader.read()? {
            changes.push(change);
        }
        Ok(changes)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&file(FORMAT)).unwrap(), [change("a"), change("b")]);
        assert_eq!(Reader::open(&file(FORMAT)[..]).unwrap().header().revision, 9);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = file(FORMAT);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(read(&bad).is_err(), "byte {at}, bit {bit}");
            }
            assert!(read(&good[..at]).is_err(), "cut at {at}");
        }
        let longer = [&good[..], b"x"].concat();
        assert!(read(&longer).unwrap_err().to_string().contains("follows"));
    }

    #[test]
    fn later_formats_and_other_files_are_named() {
        assert!(read(&file(2)).unwrap_err().to_string().contains("format 2"));
        assert!(read(b"PK").unwrap_err().to_string().contains("no backup"));
    }
}
