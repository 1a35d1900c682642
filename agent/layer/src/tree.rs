//! What a layer's entries amount to: one tree of names over inodes, built in the order of the archive.
//!
//! It follows what containerd does when it applies a layer, with the whole layer as its world:
//! - absolute paths are relative to the layer's root; `..` in a path is refused;
//! - a parent that is a symbolic link is followed *within the layer* (targets count from the layer's root, `..` stops there), a
//!   final component never is: nothing can be written outside, because there is no outside;
//! - a later entry replaces an earlier name; a directory over a directory keeps its children;
//! - missing parents are made as root's, 0755, of 1970;
//! - whiteouts (OCI image spec, layer.md) only concern layers below: a name that the same layer gives wins, in any order.

mod paths;
pub(crate) mod xattrs;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{LayerError, Result};
use crate::limits::{MAX_ENTRIES, MAX_METADATA_BYTES, MAX_SYMLINK_BYTES, MAX_SYMLINK_HOPS};
use crate::tar::{Entry, FileData, Kind};

/// Index of an inode in [`Tree::inodes`].
pub type InodeId = u32;

/// The root directory.
pub const ROOT: InodeId = 0;

/// What an inode is counted for against [`MAX_METADATA_BYTES`], its name's place in the directory included.
const INODE_COST: usize = 160;
/// The same for a directory, which owns a tree of names.
const DIRECTORY_COST: usize = 640;

/// What an inode is.
#[derive(Debug)]
pub enum Body {
    /// A directory.
    Directory(Box<Directory>),
    /// A regular file.
    File(FileData),
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(u32),
    /// A block device.
    BlockDevice(u32),
    /// A named pipe.
    Fifo,
}

/// The names in a directory.
#[derive(Debug, Default)]
pub struct Directory {
    /// The directory above; the root is its own.
    pub parent: InodeId,
    /// Names and what they mean, in byte order.
    pub names: BTreeMap<Box<[u8]>, InodeId>,
    /// Names that the layer removes from the layers below.
    pub whiteouts: BTreeSet<Box<[u8]>>,
    /// Whether everything below is removed.
    pub opaque: bool,
}

/// A file object; several names may share it.
#[derive(Debug)]
pub struct Inode {
    /// Content.
    pub body: Body,
    /// Permission bits (07777).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds.
    pub mtime: i64,
    /// Its nanoseconds.
    pub mtime_ns: u32,
    /// Names that lead here; 0 once all are replaced. Not kept for directories.
    pub names: u32,
    /// Extended attributes as EROFS stores them.
    pub xattrs: Box<[u8]>,
}

/// The tree of one layer.
#[derive(Debug)]
pub struct Tree {
    /// All inodes ever made, the dead ones (no names) included.
    pub inodes: Vec<Inode>,
    entries: usize,
    metadata_bytes: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self { inodes: vec![missing_directory(ROOT)], entries: 0, metadata_bytes: 0 }
    }
}

fn missing_directory(parent: InodeId) -> Inode {
    let body = Body::Directory(Box::new(Directory { parent, ..Directory::default() }));
    Inode { body, mode: 0o755, uid: 0, gid: 0, mtime: 0, mtime_ns: 0, names: 1, xattrs: Box::default() }
}

impl Tree {
    /// The number of entries seen.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The directory that an inode is, if it is one.
    pub fn directory(&self, id: InodeId) -> Option<&Directory> {
        match self.inodes.get(id as usize).map(|inode| &inode.body) {
            Some(Body::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self, id: InodeId) -> Result<&mut Directory> {
        match self.inodes.get_mut(id as usize).map(|inode| &mut inode.body) {
            Some(Body::Directory(directory)) => Ok(directory),
            _ => Err(LayerError::tar(0, b"", "a directory of this layer is none")),
        }
    }

    /// Applies the next entry of the archive.
    ///
    /// # Errors
    /// [`LayerError::Tar`] if the entry breaks a rule.
    pub fn apply(&mut self, mut entry: Entry) -> Result<()> {
        let (at, path) = (entry.at, std::mem::take(&mut entry.path));
        self.place(&path, entry).map_err(|why| LayerError::tar(at, &path, why))
    }

    fn place(&mut self, path: &[u8], entry: Entry) -> Result<(), String> {
        self.count(path, &entry)?;
        let parts = paths::split(path)?;
        let Some((&name, parents)) = parts.split_last() else {
            return self.place_root(entry);
        };
        match paths::meaning(name, parents)? {
            paths::Meaning::Ignored => Ok(()),
            paths::Meaning::Opaque => {
                let parent = self.resolve(parents, true)?.ok_or("a parent is missing")?;
                self.dir(parent)?.opaque = true;
                Ok(())
            }
            paths::Meaning::Whiteout(name) => {
                let parent = self.resolve(parents, true)?.ok_or("a parent is missing")?;
                self.dir(parent)?.whiteouts.insert(name.into());
                Ok(())
            }
            paths::Meaning::Name => {
                let parent = self.resolve(parents, true)?.ok_or("a parent is missing")?;
                self.place_name(parent, name, entry)
            }
        }
    }

    /// Ends the building: a name that the layer both removes and gives is no whiteout, but as a directory it becomes opaque.
    pub fn seal(&mut self) {
        let mut replaced = Vec::new();
        for inode in &mut self.inodes {
            if let Body::Directory(directory) = &mut inode.body {
                let Directory { names, whiteouts, .. } = &mut **directory;
                replaced.extend(whiteouts.iter().filter_map(|name| names.get(name)).copied());
                whiteouts.retain(|name| !names.contains_key(name));
            }
        }
        for id in replaced {
            if let Some(Inode { body: Body::Directory(directory), .. }) = self.inodes.get_mut(id as usize) {
                directory.opaque = true;
            }
        }
    }

    fn dir(&mut self, id: InodeId) -> Result<&mut Directory, String> {
        self.directory_mut(id).map_err(|error| error.to_string())
    }

    /// Keeps memory within its bounds.
    fn count(&mut self, path: &[u8], entry: &Entry) -> Result<(), String> {
        self.entries += 1;
        let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let regions = match &entry.kind {
            Kind::File(FileData { regions: Some(regions), .. }) => regions.len() * 16,
            _ => 0,
        };
        self.metadata_bytes += path.len() + entry.link.len() + xattrs + regions;
        if self.entries > MAX_ENTRIES {
            return Err(format!("more entries than the limit of {MAX_ENTRIES}"));
        }
        self.check_metadata()
    }

    fn check_metadata(&self) -> Result<(), String> {
        if self.metadata_bytes > MAX_METADATA_BYTES {
            return Err(format!("names and attributes need more memory than the limit of {MAX_METADATA_BYTES} bytes"));
        }
        Ok(())
    }

    fn place_root(&mut self, entry: Entry) -> Result<(), String> {
        if entry.kind != Kind::Directory {
            return Err("the root of the layer can only be a directory".into());
        }
        self.update_directory(ROOT, entry)
    }

    fn update_directory(&mut self, id: InodeId, entry: Entry) -> Result<(), String> {
        let xattrs = xattrs::encode(&entry.xattrs)?;
        if xattrs.opaque {
            self.dir(id)?.opaque = true;
        }
        let inode = self.inodes.get_mut(id as usize).ok_or("a directory is missing")?;
        (inode.mode, inode.uid, inode.gid) = (entry.mode, entry.uid, entry.gid);
        (inode.mtime, inode.mtime_ns) = (entry.mtime, entry.mtime_ns);
        inode.xattrs = xattrs.bytes;
        Ok(())
    }

    fn place_name(&mut self, parent: InodeId, name: &[u8], entry: Entry) -> Result<(), String> {
        let old = self.dir(parent)?.names.get(name).copied();
        let body = match entry.kind {
            Kind::Directory => {
                let id = match old.filter(|&id| self.directory(id).is_some()) {
                    Some(id) => id,
                    None => {
                        let id = self.insert(parent, name, missing_directory(parent))?;
                        // What was there was no directory and has hidden all layers below: they do not come back.
                        self.dir(id)?.opaque = old.is_some();
                        id
                    }
                };
                return self.update_directory(id, entry);
            }
            Kind::HardLink => return self.place_link(parent, name, &entry.link),
            // What overlayfs itself leaves in an upper directory for a removed name (kernel, overlayfs.rst, "whiteouts").
            Kind::CharDevice(0) => {
                self.dir(parent)?.whiteouts.insert(name.into());
                return Ok(());
            }
            Kind::CharDevice(device) => Body::CharDevice(device),
            Kind::BlockDevice(device) => Body::BlockDevice(device),
            Kind::Fifo => Body::Fifo,
            Kind::File(data) => Body::File(data),
            Kind::Symlink
                if entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() > MAX_SYMLINK_BYTES =>
            {
                return Err("symbolic link target is empty, holds a NUL or is longer than 4095 bytes".into());
            }
            Kind::Symlink => Body::Symlink(entry.link.into()),
        };
        let mode = if matches!(body, Body::Symlink(_)) { 0o777 } else { entry.mode };
        let inode = Inode {
            body,
            mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            mtime_ns: entry.mtime_ns,
            names: 1,
            xattrs: xattrs::encode(&entry.xattrs)?.bytes,
        };
        self.insert(parent, name, inode).map(|_| ())
    }

    fn place_link(&mut self, parent: InodeId, name: &[u8], link: &[u8]) -> Result<(), String> {
        const MISSING: &str = "hard link to a name that this layer does not have (before it)";
        let parts = paths::split(link)?;
        let (&target, parents) = parts.split_last().ok_or("hard link to the root")?;
        let directory = self.resolve(parents, false)?.ok_or(MISSING)?;
        if directory == parent && target == name {
            return Ok(());
        }
        let found = self.dir(directory)?.names.get(target).copied();
        let Some(id) = found else {
            // overlayfs shares one inode between its whiteouts, so a tar of an upper directory has them as hard links.
            if self.dir(directory)?.whiteouts.contains(target) {
                self.dir(parent)?.whiteouts.insert(name.into());
                return Ok(());
            }
            return Err(MISSING.into());
        };
        if self.directory(id).is_some() {
            return Err("hard link to a directory".into());
        }
        let inode = self.inodes.get_mut(id as usize).ok_or(MISSING)?;
        inode.names += 1;
        self.bind(parent, name, id)
    }

    fn insert(&mut self, parent: InodeId, name: &[u8], inode: Inode) -> Result<InodeId, String> {
        self.metadata_bytes += if matches!(inode.body, Body::Directory(_)) { DIRECTORY_COST } else { INODE_COST };
        self.check_metadata()?;
        let id = InodeId::try_from(self.inodes.len()).map_err(|_| "too many inodes")?;
        self.inodes.push(inode);
        self.bind(parent, name, id)?;
        Ok(id)
    }

    fn bind(&mut self, parent: InodeId, name: &[u8], id: InodeId) -> Result<(), String> {
        match self.dir(parent)?.names.insert(name.into(), id) {
            Some(old) => self.release(old),
            None => Ok(()),
        }
    }

    /// Takes a name away from an inode, and from all below it if it is a directory.
    fn release(&mut self, id: InodeId) -> Result<(), String> {
        let mut gone = vec![id];
        while let Some(id) = gone.pop() {
            let inode = self.inodes.get_mut(id as usize).ok_or("an inode is missing")?;
            inode.names -= 1;
            if let Body::Directory(directory) = &mut inode.body {
                gone.extend(std::mem::take(&mut directory.names).into_values());
            }
        }
        Ok(())
    }

    /// Finds the directory that a path of parents means, following symbolic links within the layer.
    ///
    /// With `create` missing directories are made, else the answer for them is `None`.
    fn resolve(&mut self, parents: &[&[u8]], create: bool) -> Result<Option<InodeId>, String> {
        let mut at = ROOT;
        let mut hops = 0;
        // Parts still to walk, the next one last.
        let mut rest: Vec<Box<[u8]>> = parents.iter().rev().map(|&part| part.into()).collect();
        while let Some(part) = rest.pop() {
            if &*part == b".." {
                at = self.dir(at)?.parent;
                continue;
            }
            let Some(id) = self.dir(at)?.names.get(&part).copied() else {
                if !create {
                    return Ok(None);
                }
                self.metadata_bytes += part.len();
                at = self.insert(at, &part, missing_directory(at))?;
                continue;
            };
            match &self.inodes.get(id as usize).ok_or("an inode is missing")?.body {
                Body::Directory(_) => at = id,
                Body::Symlink(target) => {
                    hops += 1;
                    if hops > MAX_SYMLINK_HOPS {
                        return Err(format!("path leads through more than {MAX_SYMLINK_HOPS} symbolic links"));
                    }
                    if target.first() == Some(&b'/') {
                        at = ROOT;
                    }
                    let parts = target.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
                    for part in parts.rev() {
                        if part.len() > crate::limits::MAX_NAME_BYTES {
                            return Err("path leads through a symbolic link with a name longer than 255 bytes".into());
                        }
                        rest.push(part.into());
                    }
                }
                _ => return Err("a parent of this path is no directory in this layer".into()),
            }
        }
        Ok(Some(at))
    }
}
