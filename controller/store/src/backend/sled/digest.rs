//! One value over the set of chunks: so that chunks which are missing, old or back from the dead are seen.
//!
//! Each chunk (id, version, seal) is hashed and the hashes are added up, so a checkpoint costs what it writes, not what exists.
//! A checkpoint stores the digest together with its number; the next load computes it again from what it has found.

use super::pieces::Seal;
use sha2::{Digest as _, Sha256};

/// How many chunks there are, and the sum of their hashes modulo 2^128.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Digest {
    pub chunks: u64,
    sum: u128,
}

impl Digest {
    pub fn add(&mut self, id: &[u8], version: u64, seal: Seal) {
        self.chunks = self.chunks.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(id, version, seal));
    }

    pub fn remove(&mut self, id: &[u8], version: u64, seal: Seal) {
        self.chunks = self.chunks.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(id, version, seal));
    }

    pub fn to_bytes(self) -> Vec<u8> {
        [self.chunks.to_be_bytes().as_slice(), &self.sum.to_be_bytes()].concat()
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 24] = bytes.try_into().ok()?;
        let (chunks, sum) = (u64::from_be_bytes(*bytes.first_chunk()?), u128::from_be_bytes(*bytes.last_chunk()?));
        Some(Self { chunks, sum })
    }
}

/// The parts after the id have a fixed length, so no two chunks hash the same bytes.
fn hash(id: &[u8], version: u64, seal: Seal) -> u128 {
    let hash = Sha256::new().chain_update(id).chain_update(version.to_be_bytes()).chain_update(seal.to_bytes());
    hash.finalize().first_chunk().map_or(0, |b| u128::from_be_bytes(*b))
}
