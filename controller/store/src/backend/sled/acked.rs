//! How far the store has acknowledged, in a small file beside the database.
//!
//! A damaged sled database may come up without its newest part, and without a word: what is left looks just like a database that was last written
//! a little earlier. This file tells the two apart. It is written after the database is on disk and never synced by itself, so after a power loss it
//! may be older than the database, but never newer; a database that is older than the file has lost what was acknowledged.
//!
//! One record of 32 bytes, overwritten in place: magic, group position, reserved revision, crc32 of all before it, four zero bytes.
//! It lies within one sector, so it is not torn.

use super::{at, damaged};
use crate::backend::BackendError;
use std::{
    fs::File,
    io::{ErrorKind, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

const FILE: &str = "acknowledged";
const NEW_FILE: &str = "acknowledged.new";
const MAGIC: &[u8; 8] = b"strataAK";
const RECORD_BYTES: usize = 32;

/// What was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// The newest group of the log.
    pub group: u64,
    /// The revision up to which they are reserved.
    pub reserved: u64,
}

/// The file, open for writing.
pub(super) struct Acked {
    dir: PathBuf,
    file: File,
    position: Position,
}

impl Acked {
    /// Reads what the file says; `None`: there is none.
    pub fn read(dir: &Path) -> Result<Option<Position>, BackendError> {
        let bytes = match std::fs::read(dir.join(FILE)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(at(dir, "reading the acknowledged position")(e)),
        };
        let position =
            decode(&bytes).ok_or_else(|| damaged(dir, "its file of the acknowledged position is not whole"))?;
        Ok(Some(position))
    }

    /// Opens the file that [`Acked::read`] has found.
    pub fn open(dir: &Path, position: Position) -> Result<Self, BackendError> {
        let file = File::options().write(true).open(dir.join(FILE));
        let file = file.map_err(at(dir, "opening the acknowledged position"))?;
        Ok(Self { dir: dir.to_owned(), file, position })
    }

    /// Makes the file, durably, or replaces it.
    pub fn create(dir: &Path, position: Position) -> Result<Self, BackendError> {
        let make = || {
            let mut file = File::create(dir.join(NEW_FILE))?;
            file.write_all(&encode(position))?;
            file.sync_all()?;
            std::fs::rename(dir.join(NEW_FILE), dir.join(FILE))?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        let file = make().map_err(at::<std::io::Error>(dir, "making the file of the acknowledged position"))?;
        Ok(Self { dir: dir.to_owned(), file, position })
    }

    /// What was acknowledged last.
    pub fn position(&self) -> Position {
        self.position
    }

    /// A group is on disk and about to be acknowledged.
    pub fn group(&mut self, group: u64) -> Result<(), BackendError> {
        self.write(Position { group, ..self.position })
    }

    /// Revisions up to here are reserved on disk and about to be given out.
    pub fn reserved(&mut self, reserved: u64) -> Result<(), BackendError> {
        self.write(Position { reserved, ..self.position })
    }

    fn write(&mut self, position: Position) -> Result<(), BackendError> {
        self.file.write_all_at(&encode(position), 0).map_err(at(&self.dir, "writing the acknowledged position"))?;
        self.position = position;
        Ok(())
    }
}

fn encode(position: Position) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(MAGIC);
    record[8..16].copy_from_slice(&position.group.to_be_bytes());
    record[16..24].copy_from_slice(&position.reserved.to_be_bytes());
    let crc32 = crc32fast::hash(&record[..24]);
    record[24..28].copy_from_slice(&crc32.to_be_bytes());
    record
}

fn decode(bytes: &[u8]) -> Option<Position> {
    let record: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
    let number = |from: usize| Some(u64::from_be_bytes(record[from..from + 8].try_into().ok()?));
    let position = Position { group: number(8)?, reserved: number(16)? };
    (encode(position) == *record).then_some(position)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_and_a_changed_byte_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Acked::read(dir.path()).unwrap(), None);
        let mut acked = Acked::create(dir.path(), Position { group: 1, reserved: 2 }).unwrap();
        acked.group(7).unwrap();
        acked.reserved(100_007).unwrap();
        let written = Position { group: 7, reserved: 100_007 };
        assert_eq!(Acked::read(dir.path()).unwrap(), Some(written));
        let record = encode(written);
        for place in 0..RECORD_BYTES {
            let mut changed = record;
            changed[place] ^= 1;
            assert_eq!(decode(&changed), None, "byte {place}");
            assert_eq!(decode(&record[..place]), None, "cut to {place}");
        }
    }
}
