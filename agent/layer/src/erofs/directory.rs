//! Directory blocks: 12-byte entries, then the names without a terminator; sorted by bytes over the whole directory.

use std::ops::Range;

use super::{BLOCK, Sink};
use crate::error::Result;
use crate::tree::{Body, Directory, InodeId, Tree};

const ENTRY_BYTES: u64 = 12;

/// File type codes of directory entries (`EROFS_FT_*`).
const FT_FILE: u8 = 1;
const FT_DIRECTORY: u8 = 2;
const FT_CHAR: u8 = 3;
const FT_BLOCK: u8 = 4;
const FT_FIFO: u8 = 5;
const FT_SYMLINK: u8 = 7;

/// All names of one directory in order; a whiteout has no inode of its own.
pub struct Listing<'a> {
    names: Vec<(&'a [u8], Option<InodeId>)>,
    whiteouts: u32,
}

impl<'a> Listing<'a> {
    /// Collects the names.
    pub fn new(id: InodeId, directory: &'a Directory) -> Self {
        let mut names: Vec<(&[u8], Option<InodeId>)> = vec![(b".", Some(id)), (b"..", Some(directory.parent))];
        names.extend(directory.names.iter().map(|(name, &id)| (&**name, Some(id))));
        names.extend(directory.whiteouts.iter().map(|name| (&**name, None)));
        let whiteouts = u32::try_from(directory.whiteouts.len()).unwrap_or(u32::MAX);
        names.sort_unstable_by_key(|&(name, _)| name);
        Self { names, whiteouts }
    }

    /// How many names are whiteouts.
    pub fn whiteouts(&self) -> u32 {
        self.whiteouts
    }

    /// How many names are directories, `.` and `..` not counted.
    pub fn subdirectories(&self, tree: &Tree) -> u32 {
        let count = self
            .names
            .iter()
            .filter(|(name, id)| *name != b"." && *name != b".." && id.is_some_and(|id| tree.directory(id).is_some()));
        u32::try_from(count.count()).unwrap_or(u32::MAX)
    }

    /// Full blocks and the bytes used of the last one.
    pub fn shape(&self) -> (u64, u64) {
        let (mut blocks, mut last) = (0u64, 0);
        for range in self.blocks() {
            blocks += 1;
            last = self.used(&range);
        }
        if last == BLOCK { (blocks, 0) } else { (blocks.saturating_sub(1), last) }
    }

    /// The ranges of names that share a block.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let mut used = 0;
            let fitting = self.names[start..].iter().take_while(|(name, _)| {
                used += ENTRY_BYTES + name.len() as u64;
                used <= BLOCK
            });
            let range = start..start + fitting.count();
            start = range.end;
            (!range.is_empty()).then_some(range)
        })
    }

    fn used(&self, range: &Range<usize>) -> u64 {
        self.names[range.clone()].iter().map(|(name, _)| ENTRY_BYTES + name.len() as u64).sum()
    }

    /// Writes some of the blocks, all but the last filled up to the block size, the last up to `end`.
    pub fn write(
        &self,
        tree: &Tree,
        nid: impl Fn(Option<InodeId>) -> u64,
        wanted: Range<u64>,
        end: u64,
        sink: &mut impl Sink,
    ) -> Result<()> {
        let mut block = Vec::with_capacity(BLOCK as usize);
        for (index, range) in (0u64..).zip(self.blocks()).skip_while(|(index, _)| *index < wanted.start) {
            if index >= wanted.end {
                break;
            }
            let names = &self.names[range];
            block.clear();
            let mut name_at = ENTRY_BYTES * names.len() as u64;
            for &(name, id) in names {
                block.extend_from_slice(&nid(id).to_le_bytes());
                block.extend_from_slice(&u16::try_from(name_at).unwrap_or(u16::MAX).to_le_bytes());
                block.extend_from_slice(&[file_type(tree, id), 0]);
                name_at += name.len() as u64;
            }
            names.iter().for_each(|(name, _)| block.extend_from_slice(name));
            let room = (end - index * BLOCK).min(BLOCK);
            block.resize(usize::try_from(room).unwrap_or(block.len()), 0);
            sink.put(&block)?;
        }
        Ok(())
    }
}

fn file_type(tree: &Tree, id: Option<InodeId>) -> u8 {
    match id.and_then(|id| tree.inodes.get(id as usize)).map(|inode| &inode.body) {
        Some(Body::Directory(_)) => FT_DIRECTORY,
        Some(Body::File(_)) => FT_FILE,
        Some(Body::Symlink(_)) => FT_SYMLINK,
        Some(Body::BlockDevice(_)) => FT_BLOCK,
        Some(Body::Fifo) => FT_FIFO,
        Some(Body::CharDevice(_)) | None => FT_CHAR,
    }
}
