//! The first 4096 bytes of a layer file: Strata's own header at 0, the EROFS superblock at 1024.

use strata_model::{Algorithm, Digest};

use super::{BLOCK, Plan};

/// Bytes before the tar.
pub const HEADER_BYTES: u64 = 4096;

/// "STRATALF", the mark of a layer file.
const MARK: [u8; 8] = *b"STRATALF";
/// The version of the layer file's layout: header, tar, index.
const FORMAT: u32 = 1;
/// The version of the index; a layer file with another one is indexed anew.
const INDEX: u32 = 1;

const EROFS_MAGIC: u32 = 0xE0F5_E1E2;
const SUPERBLOCK_AT: usize = 1024;
/// Checksum present; inodes carry mtime rather than ctime.
const COMPAT: u32 = 1 | 2;
const INCOMPAT_CHUNKED_FILE: u32 = 4;

/// The first 4096 bytes.
pub type Header = [u8; HEADER_BYTES as usize];

/// What a layer file's header says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerHeader {
    /// The diff ID.
    pub digest: Digest,
    /// Bytes of the tar that begins at [`HEADER_BYTES`].
    pub tar_bytes: u64,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Whether this version of Strata wrote the index.
    pub index_is_current: bool,
}

/// What goes into the header beside the layout.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The diff ID.
    pub digest: &'a Digest,
    /// Bytes of the tar.
    pub tar_bytes: u64,
}

impl LayerHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// What does not fit.
    pub fn parse(header: &Header) -> Result<Self, &'static str> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| header[at + n]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|n| header[at + n]));
        if header[..8] != MARK {
            return Err("it does not begin as a layer file");
        }
        if half(8) != FORMAT {
            return Err("it is of a format that this version does not know");
        }
        if half(508) != crc32c(&header[..508]) {
            return Err("its header has a wrong checksum");
        }
        let bytes = &header[40..104];
        let hex = match header[32] {
            1 => format!("{}:{}", Algorithm::Sha256.name(), hex::encode(&bytes[..32])),
            2 => format!("{}:{}", Algorithm::Sha512.name(), hex::encode(bytes)),
            _ => return Err("its digest algorithm is unknown"),
        };
        let digest = hex.parse().map_err(|_| "its digest is none")?;
        Ok(Self { digest, tar_bytes: word(16), file_bytes: word(24), index_is_current: half(12) == INDEX })
    }
}

impl Plan {
    /// The header of the finished file.
    pub fn header(&self, identity: Identity<'_>) -> Header {
        let mut header = [0; HEADER_BYTES as usize];
        let digest = hex::decode(identity.digest.hex()).unwrap_or_default();
        put(&mut header, 0, &MARK);
        put(&mut header, 8, &FORMAT.to_le_bytes());
        put(&mut header, 12, &INDEX.to_le_bytes());
        put(&mut header, 16, &identity.tar_bytes.to_le_bytes());
        put(&mut header, 24, &self.file_bytes.to_le_bytes());
        let algorithm = match identity.digest.algorithm() {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        };
        header[32] = algorithm;
        put(&mut header, 40, &digest);
        let sum = crc32c(&header[..508]);
        put(&mut header, 508, &sum.to_le_bytes());
        self.superblock(&digest, &mut header[SUPERBLOCK_AT..SUPERBLOCK_AT + BLOCK as usize]);
        header
    }

    /// `struct erofs_super_block`.
    fn superblock(&self, digest: &[u8], block: &mut [u8]) {
        let blocks = |bytes: u64| u32::try_from(bytes / BLOCK).unwrap_or(u32::MAX).to_le_bytes();
        put(block, 0, &EROFS_MAGIC.to_le_bytes());
        put(block, 8, &COMPAT.to_le_bytes());
        block[12] = 9; // log2 of the block size
        put(block, 14, &1u16.to_le_bytes()); // root
        put(block, 16, &self.inodes().to_le_bytes());
        put(block, 36, &blocks(self.file_bytes));
        put(block, 40, &blocks(self.inodes_at));
        // The volume's UUID is the beginning of the diff ID: statfs shows it, so a mount can be told from another's.
        put(block, 48, &digest[..digest.len().min(16)]);
        put(block, 80, &(if self.chunked { INCOMPAT_CHUNKED_FILE } else { 0 }).to_le_bytes());
        let sum = !crc32c(block);
        put(block, 4, &sum.to_le_bytes());
    }
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// CRC-32C (Castagnoli), as in iSCSI (RFC 3720). EROFS leaves the final inversion out.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_rfc() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    }
}
