//! Where a regular file's data lie: in the tar as they are, or copied behind it, as one piece or in chunks with holes.

use super::{BLOCK, HEADER_BYTES, Sink, TarSource};
use crate::error::{LayerError, Result};
use crate::limits::MAX_CHUNK_MAP_ENTRIES;
use crate::tar::{FileData, Region};

/// The largest chunk, as a power of two (1 GiB).
const MAX_CHUNK_BITS: u32 = 30;
/// The smallest chunk of copied sparse files, as a power of two.
const MIN_COPIED_CHUNK_BITS: u32 = 12;
/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 18;
/// The block number of a hole.
const HOLE: u32 = u32::MAX;

/// The place of a file's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilePlan {
    /// No data.
    Empty,
    /// One piece at this offset of the tar.
    InTar { offset: u64 },
    /// One piece, copied to this offset behind the tar.
    Copied { at: u64, bytes: u64 },
    /// Chunks of `1 << bits` bytes that point into the tar.
    Chunks { bits: u32, chunks: u64 },
    /// Chunks of `1 << bits` bytes; those with data are copied to this offset behind the tar, one after another.
    CopiedChunks { bits: u32, chunks: u64, at: u64, with_data: u64 },
}

impl FilePlan {
    /// Bytes that this file takes behind the tar.
    pub fn copied_bytes(&self) -> u64 {
        match *self {
            Self::Copied { bytes, .. } => bytes.next_multiple_of(BLOCK),
            Self::CopiedChunks { bits, with_data, .. } => with_data << bits,
            _ => 0,
        }
    }

    /// Whether the file needs a block map.
    pub fn is_chunked(&self) -> bool {
        matches!(self, Self::Chunks { .. } | Self::CopiedChunks { .. })
    }

    /// Bytes of the block map.
    pub fn map_bytes(&self) -> u64 {
        match *self {
            Self::Chunks { chunks, .. } | Self::CopiedChunks { chunks, .. } => chunks * 4,
            _ => 0,
        }
    }
}

/// Decides where a file's data lie; `copied` bytes are already used behind the tar.
pub fn plan_file(data: &FileData, copied: u64) -> Result<FilePlan> {
    let Some(regions) = &data.regions else {
        return Ok(match (data.size, data.clean_padding) {
            (0, _) => FilePlan::Empty,
            (_, true) => FilePlan::InTar { offset: data.offset },
            // Foreign bytes between the file's end and the block's would be visible in a memory map.
            (bytes, false) => FilePlan::Copied { at: copied, bytes },
        });
    };
    if data.size == 0 {
        return Ok(FilePlan::Empty);
    }
    if let Some(bits) = bits_in_place(regions, data) {
        let chunks = data.size.div_ceil(1 << bits);
        if chunks <= MAX_CHUNK_MAP_ENTRIES {
            return Ok(FilePlan::Chunks { bits, chunks });
        }
    }
    let fits = |bits: &u32| data.size.div_ceil(1 << bits) <= MAX_CHUNK_MAP_ENTRIES;
    let bits = (MIN_COPIED_CHUNK_BITS..=MAX_CHUNK_BITS).find(fits);
    let bits = bits.ok_or_else(|| LayerError::tar(data.offset, b"", "sparse file is too large"))?;
    let with_data = touched(regions, bits).count() as u64;
    Ok(FilePlan::CopiedChunks { bits, chunks: data.size.div_ceil(1 << bits), at: copied, with_data })
}

/// The largest chunk that has every region begin and end on its bounds, if that is at least a block.
fn bits_in_place(regions: &[Region], data: &FileData) -> Option<u32> {
    if !data.clean_padding {
        return None;
    }
    let bounds = regions.iter().fold(1 << MAX_CHUNK_BITS, |bounds, region| {
        let at_end = region.offset + region.bytes == data.size;
        bounds | region.offset | if at_end { 0 } else { region.bytes }
    });
    let bits = bounds.trailing_zeros();
    (1 << bits >= BLOCK).then_some(bits)
}

/// The chunks that hold data, in order.
fn touched(regions: &[Region], bits: u32) -> impl Iterator<Item = u64> {
    let mut next = 0;
    regions.iter().flat_map(move |region| {
        let first = (region.offset >> bits).max(next);
        next = ((region.offset + region.bytes - 1) >> bits) + 1;
        first..next
    })
}

/// Writes the block map that follows the inode.
pub fn write_map(data: &FileData, plan: &FilePlan, copies_at: u64, sink: &mut impl Sink) -> Result<()> {
    let regions = data.regions.as_deref().unwrap_or_default();
    let (bits, chunks) = match *plan {
        FilePlan::Chunks { bits, chunks } | FilePlan::CopiedChunks { bits, chunks, .. } => (bits, chunks),
        _ => return Ok(()),
    };
    let mut map = MapWriter { sink, done: 0, buffer: Vec::new() };
    if let FilePlan::CopiedChunks { at, .. } = *plan {
        for (nth, chunk) in (0u64..).zip(touched(regions, bits)) {
            map.holes_to(chunk)?;
            map.put(copies_at + at + (nth << bits))?;
        }
    } else {
        let mut from = HEADER_BYTES + data.offset;
        for region in regions {
            map.holes_to(region.offset >> bits)?;
            for nth in 0..region.bytes.div_ceil(1 << bits) {
                map.put(from + (nth << bits))?;
            }
            from += region.bytes;
        }
    }
    map.holes_to(chunks)?;
    map.flush()
}

struct MapWriter<'a, S> {
    sink: &'a mut S,
    done: u64,
    buffer: Vec<u8>,
}

impl<S: Sink> MapWriter<'_, S> {
    fn entry(&mut self, block: u32) -> Result<()> {
        self.done += 1;
        self.buffer.extend_from_slice(&block.to_le_bytes());
        if self.buffer.len() >= COPY_BYTES { self.flush() } else { Ok(()) }
    }

    fn put(&mut self, offset: u64) -> Result<()> {
        self.entry(u32::try_from(offset / BLOCK).unwrap_or(HOLE))
    }

    fn holes_to(&mut self, chunk: u64) -> Result<()> {
        while self.done < chunk {
            self.entry(HOLE)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let result = self.sink.put(&self.buffer);
        self.buffer.clear();
        result
    }
}

/// Copies a file's data behind the tar if its plan says so. What lies between regions is left to be zeros.
pub fn write_copy(
    data: &FileData,
    plan: &FilePlan,
    copies_at: u64,
    tar: &impl TarSource,
    sink: &mut impl Sink,
) -> Result<()> {
    match *plan {
        FilePlan::Copied { at, bytes } => {
            sink.zeros_to(copies_at + at)?;
            copy(data.offset, bytes, tar, sink)
        }
        FilePlan::CopiedChunks { bits, at, .. } => {
            let regions = data.regions.as_deref().unwrap_or_default();
            let mut from = data.offset;
            // The chunks before the present one that hold data, and the first chunk not yet counted.
            let (mut before, mut counted) = (0, 0);
            for region in regions {
                let (first, last) = (region.offset >> bits, (region.offset + region.bytes - 1) >> bits);
                let nth = if first < counted { before - 1 } else { before };
                sink.zeros_to(copies_at + at + (nth << bits) + region.offset % (1 << bits))?;
                copy(from, region.bytes, tar, sink)?;
                from += region.bytes;
                before = nth + (last - first) + 1;
                counted = last + 1;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn copy(mut from: u64, mut bytes: u64, tar: &impl TarSource, sink: &mut impl Sink) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(bytes).map_or(COPY_BYTES, |bytes| bytes.min(COPY_BYTES))];
    while bytes > 0 {
        let now = usize::try_from(bytes).map_or(buffer.len(), |bytes| bytes.min(buffer.len()));
        tar.read_tar(&mut buffer[..now], from)?;
        sink.put(&buffer[..now])?;
        from += now as u64;
        bytes -= now as u64;
    }
    Ok(())
}
