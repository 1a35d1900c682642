//! The tar inside a layer file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::erofs::HEADER_BYTES;

/// Reads a layer's tar, byte for byte as it came.
#[derive(Debug)]
pub struct TarReader {
    file: File,
    len: u64,
    at: u64,
}

impl TarReader {
    pub(crate) fn new(file: File, len: u64) -> Self {
        Self { file, len, at: 0 }
    }

    /// The length of the tar in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the tar has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads at an offset of the tar, leaving the position alone; 0 at the end.
    ///
    /// # Errors
    /// The I/O error.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.len.saturating_sub(offset);
        let now = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        self.file.read_at(&mut buffer[..now], HEADER_BYTES + offset)
    }
}

impl Read for TarReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
