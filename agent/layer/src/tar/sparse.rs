//! Sparse files as GNU tar stores them: old GNU headers, PAX 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").

use super::header::{BLOCK, unsigned};
use super::pax::decimal;
use crate::limits::{MAX_FILE_BYTES, MAX_SPARSE_MAP_BLOCKS, MAX_SPARSE_REGIONS};

/// One piece of a sparse file that has data. The data of all regions lie one after another in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where it belongs in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Collects a map in the old GNU form, from the header's 4 places and continuation blocks of 21.
#[derive(Debug, Default)]
pub struct OldMap {
    regions: Vec<Region>,
    ended: bool,
    blocks: usize,
}

impl OldMap {
    /// Adds the 24-byte places of one block. A place that begins with a NUL ends the map.
    pub fn add(&mut self, places: &[u8]) -> Result<(), &'static str> {
        self.blocks += 1;
        // GNU tar reads no further block once the map has ended, Go does: such an archive means two things.
        if self.ended || self.blocks > MAX_SPARSE_MAP_BLOCKS {
            return Err("sparse map continues after its end or has too many blocks");
        }
        for place in places.chunks_exact(24) {
            if place[0] == 0 || place[12] == 0 {
                self.ended = true;
                break;
            }
            let number = |field| unsigned(field).ok_or("sparse map holds something else than numbers");
            self.regions.push(Region { offset: number(&place[..12])?, bytes: number(&place[12..])? });
        }
        if self.regions.len() > MAX_SPARSE_REGIONS { Err("sparse map has too many regions") } else { Ok(()) }
    }

    /// The finished map.
    pub fn finish(self) -> Vec<Region> {
        self.regions
    }
}

/// Collects a map in the form PAX 1.0: decimal numbers, each ended by a newline, at the start of the file's data, padded to a block.
#[derive(Debug, Default)]
pub struct TextMap {
    number: Vec<u8>,
    expected: Option<usize>,
    numbers: Vec<u64>,
    blocks: usize,
}

impl TextMap {
    /// Adds a block; true once the map is complete.
    pub fn add(&mut self, block: &[u8; BLOCK]) -> Result<bool, &'static str> {
        self.blocks += 1;
        if self.blocks > MAX_SPARSE_MAP_BLOCKS {
            return Err("sparse map has too many blocks");
        }
        for &byte in block {
            if byte != b'\n' {
                if self.number.len() >= 20 {
                    return Err("sparse map holds something else than numbers");
                }
                self.number.push(byte);
                continue;
            }
            let number = decimal(&self.number).map_err(|_| "sparse map holds something else than numbers")?;
            self.number.clear();
            match self.expected {
                None => {
                    let count = usize::try_from(number).ok().filter(|&n| n <= MAX_SPARSE_REGIONS);
                    self.expected = Some(2 * count.ok_or("sparse map has too many regions")?);
                }
                Some(_) => self.numbers.push(number),
            }
            if self.expected == Some(self.numbers.len()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The finished map.
    pub fn finish(self) -> Vec<Region> {
        let pairs = self.numbers.chunks_exact(2);
        pairs.map(|pair| Region { offset: pair[0], bytes: pair[1] }).collect()
    }
}

/// Checks that regions are in order, do not overlap, lie within the file and have exactly the stored bytes. Drops empty ones.
pub fn check(regions: Vec<Region>, size: u64, stored: u64) -> Result<Vec<Region>, &'static str> {
    if size > MAX_FILE_BYTES {
        return Err("sparse file is larger than the limit of 16 TiB");
    }
    let (mut end, mut sum) = (0u64, 0u64);
    for region in &regions {
        let next = region.offset.checked_add(region.bytes).filter(|&next| next <= size);
        if region.offset < end {
            return Err("sparse regions overlap or are out of order");
        }
        end = next.ok_or("sparse region lies beyond the file's size")?;
        sum += region.bytes;
    }
    if sum != stored {
        return Err("sparse regions have more or fewer bytes than the archive holds");
    }
    Ok(regions.into_iter().filter(|region| region.bytes > 0).collect())
}
