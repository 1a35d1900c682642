//! The EROFS metadata behind the tar (kernel: `fs/erofs/erofs_fs.h`): where everything lies, then the bytes.
//!
//! Block size 512, so that file data can stay where they are in the tar. Extended inodes only, no compression, no shared attributes.
//! Behind the tar, at the next multiple of 4096, follow: files that had to be copied, full blocks of directories and long
//! symbolic links, and the inode area `M`. The same tree gives the same bytes.

mod directory;
mod file;
mod inode;
mod superblock;

use crate::error::{LayerError, Result};
use crate::limits::{MAX_COPIED_BYTES, MAX_LAYER_FILE_BYTES};
use crate::tree::{Body, InodeId, ROOT, Tree};

use self::directory::Listing;
use self::file::{FilePlan, plan_file};

pub use self::superblock::{HEADER_BYTES, Identity, LayerHeader};

/// The block size, in bytes.
pub const BLOCK: u64 = 512;
/// What parts of a layer file are aligned to, in bytes.
pub const ALIGN: u64 = 4096;

/// Where the tar's bytes can be read again, for what must be copied behind it.
pub trait TarSource {
    /// Fills `buffer` from this offset in the tar.
    fn read_tar(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
}

/// Takes the bytes of the metadata, in order.
pub trait Sink {
    /// The next bytes.
    fn put(&mut self, bytes: &[u8]) -> Result<()>;
    /// Zeros up to this offset in the layer file.
    fn zeros_to(&mut self, offset: u64) -> Result<()>;
}

/// What kind of place an inode's content has.
#[derive(Debug, Clone)]
enum Content {
    /// Nothing, or a device number.
    None,
    /// A regular file.
    File(FilePlan),
    /// A directory or symbolic link: `full` blocks beginning at `block` of the metadata blocks, then `tail` bytes after the inode.
    Blocks { block: u64, full: u64, tail: u64 },
}

#[derive(Debug)]
struct Placed {
    /// `None` for the one whiteout that all removed names share.
    inode: Option<InodeId>,
    nid: u64,
    links: u32,
    size: u64,
    content: Content,
}

/// The layout of a layer file.
#[derive(Debug)]
pub struct Plan {
    placed: Vec<Placed>,
    /// By inode; 0 for the dead.
    nids: Vec<u64>,
    whiteout_nid: u64,
    copies_at: u64,
    blocks_at: u64,
    /// Offset of `M`.
    inodes_at: u64,
    /// Size of the finished file in bytes.
    pub file_bytes: u64,
    chunked: bool,
}

struct Planner<'a> {
    tree: &'a Tree,
    placed: Vec<Placed>,
    nids: Vec<u64>,
    /// Bytes of copied files so far.
    copied: u64,
    /// Metadata blocks so far.
    blocks: u64,
    /// End of the inode area so far, relative to `M`.
    end: u64,
    whiteouts: u32,
    chunked: bool,
}

impl Plan {
    /// Lays out a tree behind a tar of `tar_bytes`.
    ///
    /// # Errors
    /// If the layer would be larger than the format allows.
    pub fn new(tree: &Tree, tar_bytes: u64) -> Result<Self> {
        let mut planner = Planner {
            tree,
            placed: Vec::new(),
            nids: vec![0; tree.inodes.len()],
            copied: 0,
            blocks: 0,
            // Number 0 stays unused: programs skip directory entries with inode number 0.
            end: 32,
            whiteouts: 0,
            chunked: false,
        };
        planner.walk()?;
        let whiteout_nid = planner.place_whiteout();
        let copies_at = HEADER_BYTES + tar_bytes.next_multiple_of(ALIGN);
        let blocks_at = copies_at + planner.copied;
        let inodes_at = blocks_at + planner.blocks * BLOCK;
        let file_bytes = (inodes_at + planner.end).next_multiple_of(ALIGN);
        if file_bytes > MAX_LAYER_FILE_BYTES {
            return Err(LayerError::tar(tar_bytes, b"", "the layer is larger than the limit of 2 TiB"));
        }
        let Planner { placed, nids, chunked, .. } = planner;
        Ok(Self { placed, nids, whiteout_nid, copies_at, blocks_at, inodes_at, file_bytes, chunked })
    }

    /// Number of inodes.
    pub fn inodes(&self) -> u64 {
        self.placed.len() as u64
    }

    /// Writes everything behind the tar, from its end to the end of the file.
    ///
    /// # Errors
    /// What the sink or the source return.
    pub fn write(&self, tree: &Tree, tar: &impl TarSource, sink: &mut impl Sink) -> Result<()> {
        for (inode, plan) in self.files(tree) {
            file::write_copy(inode, plan, self.copies_at, tar, sink)?;
        }
        sink.zeros_to(self.blocks_at)?;
        for placed in &self.placed {
            let Content::Blocks { full, .. } = placed.content else { continue };
            if full > 0 {
                self.write_content(tree, placed, 0..full * BLOCK, sink)?;
            }
        }
        sink.zeros_to(self.inodes_at)?;
        for placed in &self.placed {
            sink.zeros_to(self.inodes_at + placed.nid * 32)?;
            self.write_inode(tree, placed, sink)?;
        }
        sink.zeros_to(self.file_bytes)
    }

    /// The files with their plans, in the order of their copies.
    fn files<'t>(&'t self, tree: &'t Tree) -> impl Iterator<Item = (&'t crate::tar::FileData, &'t FilePlan)> {
        self.placed.iter().filter_map(|placed| match (&placed.content, placed.inode) {
            (Content::File(plan), Some(id)) => match &tree.inodes.get(id as usize)?.body {
                Body::File(data) => Some((data, plan)),
                _ => None,
            },
            _ => None,
        })
    }

    /// Writes a range of a directory's or symbolic link's content; the range begins on a block.
    fn write_content(
        &self,
        tree: &Tree,
        placed: &Placed,
        range: std::ops::Range<u64>,
        sink: &mut impl Sink,
    ) -> Result<()> {
        let Some(id) = placed.inode else { return Ok(()) };
        match tree.inodes.get(id as usize).map(|inode| &inode.body) {
            Some(Body::Symlink(target)) => {
                let end = target.len().min(usize::try_from(range.end).unwrap_or(usize::MAX));
                let start = end.min(usize::try_from(range.start).unwrap_or(usize::MAX));
                let mut bytes = target[start..end].to_vec();
                bytes.resize(usize::try_from(range.end - range.start).unwrap_or(bytes.len()), 0);
                sink.put(&bytes)
            }
            Some(Body::Directory(directory)) => {
                let listing = Listing::new(id, directory);
                let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
                listing.write(tree, |id| self.nid(id), blocks, range.end, sink)
            }
            _ => Ok(()),
        }
    }

    fn nid(&self, id: Option<InodeId>) -> u64 {
        id.map_or(self.whiteout_nid, |id| self.nids.get(id as usize).copied().unwrap_or(0))
    }
}

impl Planner<'_> {
    /// Gives every live inode its place: directory by directory, so that the inodes of one directory are neighbours.
    fn walk(&mut self) -> Result<()> {
        self.place(ROOT)?;
        let mut waiting = vec![ROOT];
        while let Some(id) = waiting.pop() {
            let Some(directory) = self.tree.directory(id) else { continue };
            let below = waiting.len();
            for &child in directory.names.values() {
                if self.nids[child as usize] == 0 {
                    self.place(child)?;
                    if self.tree.directory(child).is_some() {
                        waiting.push(child);
                    }
                }
            }
            waiting[below..].reverse();
        }
        Ok(())
    }

    fn place(&mut self, id: InodeId) -> Result<()> {
        let inode = &self.tree.inodes[id as usize];
        let mut links = inode.names;
        let head = inode::HEAD_BYTES + inode::xattr_bytes(self.tree, id);
        let (size, content) = match &inode.body {
            Body::Directory(directory) => {
                let listing = Listing::new(id, directory);
                links = 2 + listing.subdirectories(self.tree);
                self.whiteouts += listing.whiteouts();
                let (full, tail) = listing.shape();
                (full * BLOCK + tail, self.place_blocks(head, full, tail))
            }
            Body::Symlink(target) => {
                let size = target.len() as u64;
                // The kernel reads a link from behind the inode only if it is shorter than a block.
                let content = if size < BLOCK {
                    self.place_blocks(head, 0, size)
                } else {
                    self.place_blocks(head, size.div_ceil(BLOCK), 0)
                };
                (size, content)
            }
            Body::File(data) => {
                let plan = plan_file(data, self.copied)?;
                self.copied += plan.copied_bytes();
                if self.copied > MAX_COPIED_BYTES {
                    let why = "sparse or unpadded files need more copied bytes than the limit of 64 GiB";
                    return Err(LayerError::tar(data.offset, b"", why));
                }
                self.chunked |= plan.is_chunked();
                self.end = inode::aligned(self.end);
                (data.size, Content::File(plan))
            }
            Body::CharDevice(_) | Body::BlockDevice(_) | Body::Fifo => {
                self.end = inode::aligned(self.end);
                (0, Content::None)
            }
        };
        let nid = self.end / 32;
        self.nids[id as usize] = nid;
        self.end += head
            + match &content {
                Content::Blocks { tail, .. } => *tail,
                Content::File(plan) => plan.map_bytes(),
                Content::None => 0,
            };
        self.placed.push(Placed { inode: Some(id), nid, links, size, content });
        Ok(())
    }

    /// Finds a place for an inode whose last bytes follow it: they must not cross a block.
    fn place_blocks(&mut self, head: u64, full: u64, tail: u64) -> Content {
        let start = inode::aligned(self.end);
        let fits = |at: &u64| (at + head) % BLOCK + tail <= BLOCK && inode::aligned(*at) == *at;
        let at = (0..BLOCK / 32).map(|step| start + step * 32).find(fits);
        let (full, tail) = if let (Some(at), 1..) = (at, tail) {
            self.end = at;
            (full, tail)
        } else {
            self.end = start;
            (full + tail.div_ceil(BLOCK), 0)
        };
        let block = self.blocks;
        self.blocks += full;
        Content::Blocks { block, full, tail }
    }

    fn place_whiteout(&mut self) -> u64 {
        if self.whiteouts == 0 {
            return 0;
        }
        self.end = inode::aligned(self.end);
        let nid = self.end / 32;
        self.end += inode::HEAD_BYTES;
        self.placed.push(Placed { inode: None, nid, links: self.whiteouts, size: 0, content: Content::None });
        nid
    }
}
