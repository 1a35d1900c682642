//! Inodes: the extended form of 64 bytes (`struct erofs_inode_extended`), attributes behind it, then inline content or block map.

use super::{BLOCK, Content, FilePlan, HEADER_BYTES, Placed, Plan, Sink, file};
use crate::error::Result;
use crate::tree::xattrs::{OPAQUE_ENTRY, ORIGIN_ENTRY};
use crate::tree::{Body, InodeId, Tree};

/// Bytes of an inode without attributes.
pub const HEAD_BYTES: u64 = 64;
/// Bytes of `struct erofs_xattr_ibody_header`.
const XATTR_HEAD_BYTES: u64 = 12;

const LAYOUT_PLAIN: u16 = 0;
const LAYOUT_INLINE: u16 = 2;
const LAYOUT_CHUNKS: u16 = 4;

const S_IFIFO: u16 = 0o010_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFBLK: u16 = 0o060_000;
const S_IFREG: u16 = 0o100_000;
const S_IFLNK: u16 = 0o120_000;

/// The next place where an inode may begin: a multiple of 32 from which its 64 bytes do not cross a block.
pub fn aligned(offset: u64) -> u64 {
    let offset = offset.next_multiple_of(32);
    if offset % BLOCK > BLOCK - HEAD_BYTES { offset.next_multiple_of(BLOCK) } else { offset }
}

/// Bytes of attributes behind an inode, their header included.
pub fn xattr_bytes(tree: &Tree, id: InodeId) -> u64 {
    let plain = tree.inodes.get(id as usize).map_or(0, |inode| inode.xattrs.len() as u64);
    let marks = marks(tree, id).count() as u64 * OPAQUE_ENTRY.len() as u64;
    if plain + marks == 0 { 0 } else { XATTR_HEAD_BYTES + plain + marks }
}

/// The attributes that tell overlayfs about a directory.
fn marks(tree: &Tree, id: InodeId) -> impl Iterator<Item = [u8; 20]> {
    let directory = tree.directory(id);
    let opaque = directory.is_some_and(|directory| directory.opaque).then_some(OPAQUE_ENTRY);
    let whiteouts = directory.is_some_and(|directory| !directory.whiteouts.is_empty()).then_some(ORIGIN_ENTRY);
    opaque.into_iter().chain(whiteouts)
}

impl Plan {
    pub(super) fn write_inode(&self, tree: &Tree, placed: &Placed, sink: &mut impl Sink) -> Result<()> {
        let inode = placed.inode.and_then(|id| tree.inodes.get(id as usize));
        let xattrs = placed.inode.map_or(0, |id| xattr_bytes(tree, id));
        let (layout, union) = self.layout(placed);
        let (kind, device) = match inode.map(|inode| &inode.body) {
            Some(Body::Directory(_)) => (S_IFDIR, None),
            Some(Body::File(_)) => (S_IFREG, None),
            Some(Body::Symlink(_)) => (S_IFLNK, None),
            Some(Body::CharDevice(device)) => (S_IFCHR, Some(*device)),
            Some(Body::BlockDevice(device)) => (S_IFBLK, Some(*device)),
            Some(Body::Fifo) => (S_IFIFO, None),
            // A whiteout: character device 0:0.
            None => (S_IFCHR, Some(0)),
        };
        let count = if xattrs == 0 { 0 } else { 1 + (xattrs - XATTR_HEAD_BYTES) / 4 };
        let mut head = Vec::with_capacity(HEAD_BYTES as usize);
        head.extend_from_slice(&(1 | layout << 1).to_le_bytes());
        head.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
        head.extend_from_slice(&(kind | inode.map_or(0, |inode| inode.mode)).to_le_bytes());
        head.extend_from_slice(&[0; 2]);
        head.extend_from_slice(&placed.size.to_le_bytes());
        head.extend_from_slice(&device.unwrap_or(union).to_le_bytes());
        head.extend_from_slice(&u32::try_from(placed.nid).unwrap_or(u32::MAX).to_le_bytes());
        head.extend_from_slice(&inode.map_or(0, |inode| inode.uid).to_le_bytes());
        head.extend_from_slice(&inode.map_or(0, |inode| inode.gid).to_le_bytes());
        head.extend_from_slice(&inode.map_or(0, |inode| inode.mtime).to_le_bytes());
        head.extend_from_slice(&inode.map_or(0, |inode| inode.mtime_ns).to_le_bytes());
        head.extend_from_slice(&placed.links.to_le_bytes());
        head.resize(HEAD_BYTES as usize, 0);
        if let (Some(inode), Some(id), 1..) = (inode, placed.inode, xattrs) {
            head.extend_from_slice(&[0; XATTR_HEAD_BYTES as usize]);
            head.extend_from_slice(&inode.xattrs);
            marks(tree, id).for_each(|mark| head.extend_from_slice(&mark));
        }
        sink.put(&head)?;
        match (&placed.content, inode.map(|inode| &inode.body)) {
            (Content::Blocks { full, tail, .. }, _) if *tail > 0 => {
                self.write_content(tree, placed, full * BLOCK..full * BLOCK + tail, sink)
            }
            (Content::File(plan), Some(Body::File(data))) => file::write_map(data, plan, self.copies_at, sink),
            _ => Ok(()),
        }
    }

    /// The data layout and the word `i_u`: first block, or chunk format.
    fn layout(&self, placed: &Placed) -> (u16, u32) {
        let block = |offset: u64| u32::try_from(offset / BLOCK).unwrap_or(u32::MAX);
        match &placed.content {
            Content::None | Content::File(FilePlan::Empty) => (LAYOUT_PLAIN, 0),
            Content::File(FilePlan::InTar { offset }) => (LAYOUT_PLAIN, block(HEADER_BYTES + offset)),
            Content::File(FilePlan::Copied { at, .. }) => (LAYOUT_PLAIN, block(self.copies_at + at)),
            Content::File(FilePlan::Chunks { bits, .. } | FilePlan::CopiedChunks { bits, .. }) => {
                (LAYOUT_CHUNKS, bits - BLOCK.trailing_zeros())
            }
            Content::Blocks { block: first, full, tail } => {
                let layout = if *tail > 0 { LAYOUT_INLINE } else { LAYOUT_PLAIN };
                let start = if *full > 0 { block(self.blocks_at + first * BLOCK) } else { 0 };
                (layout, start)
            }
        }
    }
}
