//! Room on the disk that is kept for the ledger: a full disk must not keep pods from being stopped and removed, for that is what frees it.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustix::fs::{FallocateFlags, fallocate, ftruncate};

/// What is kept: some hundred small files.
const RESERVE_BYTES: u64 = 1 << 20;
/// What one write may take of it at a time. Others may be quicker to use what was given back, so a write may take several.
const PIECE_BYTES: u64 = 32 << 10;
/// Pieces that one write may take.
const PIECES_MAX: usize = 8;

/// A file that holds the room.
#[derive(Debug)]
pub struct Reserve {
    file: File,
    held_bytes: Mutex<u64>,
}

impl Reserve {
    /// Opens or makes the file, as large as the disk allows.
    ///
    /// # Errors
    /// The disk's, other than that it is full.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        let held_bytes = Mutex::new(file.metadata()?.len());
        let reserve = Self { file, held_bytes };
        reserve.fill();
        Ok(reserve)
    }

    /// Runs a write. When the disk is full, gives up some of the room and runs it again.
    ///
    /// # Errors
    /// The write's.
    pub fn with<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut result = write();
        for _ in 0..PIECES_MAX {
            match &result {
                Err(e) if is_full(e) && self.give() => result = write(),
                _ => break,
            }
        }
        result
    }

    /// Takes back what was given up, once there is room again. Cheap when nothing was.
    pub fn fill(&self) {
        let mut held = self.held_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        // A disk that is still full, or cannot reserve: the ledger works on without.
        if *held < RESERVE_BYTES && fallocate(&self.file, FallocateFlags::empty(), 0, RESERVE_BYTES).is_ok() {
            *held = RESERVE_BYTES;
        }
    }

    fn give(&self) -> bool {
        let mut held = self.held_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let left = held.saturating_sub(PIECE_BYTES);
        if *held == 0 || ftruncate(&self.file, left).is_err() {
            return false;
        }
        *held = left;
        true
    }
}

/// Whether there is no room for a write.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn full() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    #[test]
    fn a_write_takes_what_it_needs_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let reserve = Reserve::open(&path).unwrap();
        let size = || std::fs::metadata(&path).unwrap().len();
        assert_eq!(size(), RESERVE_BYTES);
        let mut tries = 0;
        let third = reserve.with(|| {
            tries += 1;
            if tries == 3 { Ok(tries) } else { Err(full()) }
        });
        assert_eq!((third.unwrap(), size()), (3, RESERVE_BYTES - 2 * PIECE_BYTES));
        assert!(reserve.with(|| Err::<(), _>(full())).is_err());
        assert_eq!(size(), RESERVE_BYTES - (2 + PIECES_MAX as u64) * PIECE_BYTES, "one write does not take all");
        assert!(reserve.with(|| Err::<(), _>(io::Error::other("broken"))).is_err());
        assert_eq!(size(), RESERVE_BYTES - (2 + PIECES_MAX as u64) * PIECE_BYTES, "it helps against nothing else");
        drop(reserve);
        Reserve::open(&path).unwrap();
        assert_eq!(size(), RESERVE_BYTES, "filled again");
    }
}
