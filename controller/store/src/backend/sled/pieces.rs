//! Payloads of any size in records of at most 4 KiB.

use super::PIECE_BYTES;
use prost::Message as _;
use strata_proto::store;

/// Number of pieces, length and checksum of a payload: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal {
    pub pieces: u32,
    pub bytes: u64,
    pub crc32: u32,
}

impl Seal {
    pub fn of(payload: &[u8]) -> Self {
        Self {
            pieces: u32::try_from(payload.len().div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX),
            bytes: payload.len() as u64,
            crc32: crc32fast::hash(payload),
        }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.extend(self.pieces.to_be_bytes());
        out.extend(self.bytes.to_be_bytes());
        out.extend(self.crc32.to_be_bytes());
        out
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        Some(Self {
            pieces: u32::from_be_bytes(*bytes.first_chunk()?),
            bytes: u64::from_be_bytes(*bytes[4..].first_chunk()?),
            crc32: u32::from_be_bytes(*bytes[12..].first_chunk()?),
        })
    }
}

/// The pieces of a payload with their numbers.
pub(super) fn cut(payload: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    (0u32..).zip(payload.chunks(PIECE_BYTES))
}

/// A payload that is being read back, piece by piece in order, its seal anywhere.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    payload: Vec<u8>,
    /// One above the highest number seen.
    pieces: u32,
    gap: bool,
    seal: Option<Seal>,
}

impl Gathered {
    pub fn piece(&mut self, number: u32, bytes: &[u8]) {
        self.gap |= number != self.pieces;
        self.pieces = number.saturating_add(1);
        self.payload.extend_from_slice(bytes);
    }

    pub fn seal(&mut self, bytes: &[u8]) {
        self.seal = Seal::read(bytes);
    }

    /// How many pieces there were at least; the first ones may be gone already.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// The seal and the payload, if it is exactly what was sealed.
    pub fn whole(&self) -> Option<(Seal, &[u8])> {
        let seal = Seal::of(&self.payload);
        (!self.gap && self.seal == Some(seal)).then_some((seal, &self.payload))
    }
}

/// Changes one behind the other, each with its length.
pub(super) fn encode(changes: &[store::Change]) -> Vec<u8> {
    let mut payload = Vec::new();
    for change in changes {
        // A Vec grows as needed: encoding into it cannot fail. Reserve what it takes, so that it grows once.
        payload.extend(change.encode_length_delimited_to_vec());
    }
    payload
}

/// Reads [`encode`]'s payload back.
pub(super) fn decode(mut payload: &[u8]) -> Result<Vec<store::Change>, prost::DecodeError> {
    let mut changes = Vec::new();
    while !payload.is_empty() {
        changes.push(store::Change::decode_length_delimited(&mut payload)?);
    }
    Ok(changes)
}
