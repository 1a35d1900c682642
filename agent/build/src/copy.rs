//! COPY, ADD and WORKDIR: what they put into the new layer, and the writing of it.
//!
//! A plan names every entry of the layer by its path; nothing is read but names and attributes until it is hashed or written. Directories
//! that are there already are in the layer, too, with the attributes they have: the topmost layer's attributes are those that are seen.

pub(crate) mod archives;
mod sources;
mod write;

use std::collections::BTreeMap;

use rustix::fs::{Stat, major, minor};
use strata_layer::archive::EntryMeta;
use strata_model::ignore::IgnoreRules;

use crate::error::{BuildError, Result};
use crate::limits::{COPY_ENTRIES_MAX, DEPTH_MAX};
use crate::tree::{Tree, join, kind};

/// What the instruction wants, with all variables expanded.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Absolute, or with a last `/`; as written, after WORKDIR was put before it.
    pub dest: String,
    /// Owner of all that is copied; `None` keeps root, and what an archive says.
    pub owner: Option<(u32, u32)>,
    /// Mode of all that is copied; `None` keeps the source's.
    pub mode: Option<u32>,
}

/// Where something is copied from.
pub(crate) enum Source<'a> {
    /// A path, perhaps a pattern, in a tree.
    Path {
        tree: &'a Tree,
        path: String,
        /// Whether the path is a name, whatever characters it has.
        literal: bool,
        /// Paths that count as absent.
        ignore: &'a IgnoreRules,
    },
    /// The whole content of an unpacked archive.
    Archive(&'a Tree),
    /// A text with the name that it has in a directory.
    Text(String, String),
}

/// An entry of the new layer.
#[derive(Debug)]
struct Planned<'a> {
    content: Content<'a>,
    meta: EntryMeta,
    /// Made on the way to what is copied, or there before: says nothing of the sources.
    passage: bool,
}

#[derive(Debug)]
enum Content<'a> {
    Directory,
    File { tree: &'a Tree, path: Vec<u8>, size: u64, inode: Option<(u64, u64)> },
    Text(String),
    Symlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// What one instruction puts into its layer.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    base: &'a Tree,
    entries: BTreeMap<Vec<u8>, Planned<'a>>,
    /// The newest modification time of what is copied.
    newest: Option<i64>,
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
    /// Whether the sources' owners are kept.
    keep_owners: bool,
}

impl<'a> Plan<'a> {
    /// Plans a COPY or ADD onto `base`, the stage so far.
    ///
    /// # Errors
    /// Sources that are not there, files where directories must be, bounds.
    pub(crate) fn copy(base: &'a Tree, wanted: &Wanted, sources: &[Source<'a>]) -> Result<Self> {
        let mut plan = Self::new(base, wanted.owner, wanted.mode)?;
        let found = sources::find(sources)?;
        let hint = wanted.dest.ends_with('/') || wanted.dest.ends_with("/.");
        if found.len() > 1 && !hint {
            return Err(BuildError::invalid(format!(
                "{} sources are copied, so the destination {:?} must be a directory and end with /",
                found.len(),
                wanted.dest
            )));
        }
        for source in found {
            plan.take(source, &wanted.dest, hint)?;
        }
        Ok(plan)
    }

    /// Plans the directories of a WORKDIR; `None` if it is there.
    ///
    /// # Errors
    /// If something else than a directory is there.
    pub(crate) fn directory(base: &'a Tree, path: &str, owner: Option<(u32, u32)>) -> Result<Option<Self>> {
        let place = base.resolve(path.as_bytes(), true)?;
        if place.is_directory() {
            return Ok(None);
        }
        if place.stat.is_some() {
            return Err(BuildError::invalid(format!("{path} is there already and is no directory")));
        }
        let mut plan = Self::new(base, owner, None)?;
        plan.make_directory(&place.path)?;
        plan.entries.values_mut().for_each(|entry| entry.passage = false);
        Ok(Some(plan))
    }

    fn new(base: &'a Tree, owner: Option<(u32, u32)>, mode: Option<u32>) -> Result<Self> {
        let mut plan = Self { base, entries: BTreeMap::new(), newest: None, owner, mode, keep_owners: false };
        plan.make_directory(b"")?;
        Ok(plan)
    }

    /// The newest modification time of what is copied, seconds since 1970.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.newest
    }

    fn take(&mut self, source: sources::Found<'a>, dest: &str, hint: bool) -> Result<()> {
        let place = self.base.resolve(dest.as_bytes(), true)?;
        let there =
            self.entries.get(&place.path).map_or(place.is_directory(), |own| matches!(own.content, Content::Directory));
        if hint && !there && place.stat.is_some() {
            return Err(BuildError::invalid(format!("the destination {dest} is there already and is no directory")));
        }
        match source {
            sources::Found::Text(name, text) => {
                let path = if there || hint { join(&place.path, name.as_bytes()) } else { place.path };
                let meta = EntryMeta { mode: 0o644, ..EntryMeta::default() };
                self.put_copied(path, Content::Text(text), meta)
            }
            sources::Found::Directory { tree, path, ignore, archive } => {
                self.keep_owners = archive;
                if !there {
                    let stat = tree.stat(&path)?.ok_or_else(|| vanished(tree, &path))?;
                    self.make_parents(&place.path)?;
                    let meta = meta(tree, &path, &stat)?;
                    if path.is_empty() {
                        // The root of a context or an archive is no directory of its maker's.
                        self.make_directory(&place.path)?;
                    } else {
                        self.put_copied(place.path.clone(), Content::Directory, meta)?;
                    }
                } else {
                    self.make_directory(&place.path)?;
                }
                let result = self.contents(tree, &path, &place.path, ignore, 0);
                self.keep_owners = false;
                result
            }
            sources::Found::Other { tree, path, name, stat } => {
                let path_of = if there || hint {
                    join(&place.path, &name)
                } else {
                    // A link at the destination is replaced, not followed.
                    self.base.resolve(dest.as_bytes(), false)?.path
                };
                self.entry(tree, &path, &stat, path_of)
            }
        }
    }

    /// Copies what is in a directory.
    fn contents(&mut self, tree: &'a Tree, from: &[u8], to: &[u8], ignore: &IgnoreRules, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(BuildError::invalid(format!(
                "directories are nested more than {DEPTH_MAX} times at /{} in {}",
                String::from_utf8_lossy(from),
                tree.name()
            )));
        }
        for name in tree.list(from)? {
            let path = join(from, &name);
            let Some(stat) = tree.stat(&path)? else { continue };
            let ignored = !ignore.is_empty() && ignore.ignores(&String::from_utf8_lossy(&path));
            if kind(&stat).is_dir() {
                if ignored && !ignore.has_exceptions() {
                    continue;
                }
                let target = join(to, &name);
                let meta = meta(tree, &path, &stat)?;
                if ignored {
                    // Only what is excepted inside brings it into being.
                    let before = self.entries.len();
                    self.contents(tree, &path, &target, ignore, depth + 1)?;
                    if self.entries.len() > before {
                        self.put_copied(target, Content::Directory, meta)?;
                    }
                    continue;
                }
                self.put_copied(target.clone(), Content::Directory, meta)?;
                self.contents(tree, &path, &target, ignore, depth + 1)?;
            } else if !ignored {
                self.entry(tree, &path, &stat, join(to, &name))?;
            }
        }
        Ok(())
    }

    /// Copies something that is no directory.
    fn entry(&mut self, tree: &'a Tree, path: &[u8], stat: &Stat, to: Vec<u8>) -> Result<()> {
        let kind = kind(stat);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let inode = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        let content = if kind.is_file() {
            Content::File { tree, path: path.to_vec(), size, inode }
        } else if kind.is_symlink() {
            Content::Symlink(tree.link(path)?)
        } else if kind.is_char_device() {
            Content::CharDevice(major(stat.st_rdev), minor(stat.st_rdev))
        } else if kind.is_block_device() {
            Content::BlockDevice(major(stat.st_rdev), minor(stat.st_rdev))
        } else if kind.is_fifo() {
            Content::Fifo
        } else {
            return Ok(());
        };
        let meta = meta(tree, path, stat)?;
        self.put_copied(to, content, meta)
    }

    fn put_copied(&mut self, path: Vec<u8>, content: Content<'a>, mut meta: EntryMeta) -> Result<()> {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        if name.starts_with(b".wh.") {
            return Err(BuildError::invalid(format!(
                "{:?} cannot be in an image: names that begin with .wh. mark removed files in layers",
                String::from_utf8_lossy(&path)
            )));
        }
        if !matches!(content, Content::Text(_)) {
            self.newest = self.newest.max(Some(meta.mtime));
        }
        if !self.keep_owners || self.owner.is_some() {
            (meta.uid, meta.gid) = self.owner.unwrap_or((0, 0));
        }
        if let Some(mode) = self.mode.filter(|_| !matches!(content, Content::Symlink(_))) {
            meta.mode = mode;
        }
        self.make_parents(&path)?;
        let is_directory = matches!(content, Content::Directory);
        let old = match self.entries.get(&path) {
            Some(own) => Some(matches!(own.content, Content::Directory)),
            None => self.base.stat(&path)?.map(|stat| kind(&stat).is_dir()),
        };
        match old {
            Some(true) if !is_directory => Err(BuildError::invalid(format!(
                "/{} is a directory in the image, so a file cannot be copied over it",
                String::from_utf8_lossy(&path)
            ))),
            Some(false) if is_directory => Err(BuildError::invalid(format!(
                "/{} is no directory in the image (perhaps a link to one), so a directory cannot be copied over it; copy to where it leads",
                String::from_utf8_lossy(&path)
            ))),
            _ => self.put(path, Planned { content, meta, passage: false }),
        }
    }

    fn put(&mut self, path: Vec<u8>, entry: Planned<'a>) -> Result<()> {
        if self.entries.len() >= COPY_ENTRIES_MAX {
            return Err(BuildError::invalid(format!("more than {COPY_ENTRIES_MAX} files are copied in one step")));
        }
        self.entries.insert(path, entry);
        Ok(())
    }

    /// Sees to it that all directories above a path are in the layer.
    fn make_parents(&mut self, path: &[u8]) -> Result<()> {
        let above = path.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |at| &path[..at]);
        if path.is_empty() { Ok(()) } else { self.make_directory(above) }
    }

    /// Sees to it that a directory (a path without links) and those above are in the layer: as they are, else as new ones.
    fn make_directory(&mut self, path: &[u8]) -> Result<()> {
        if let Some(own) = self.entries.get(path) {
            return match own.content {
                Content::Directory => Ok(()),
                _ => Err(BuildError::invalid(format!(
                    "/{} is copied as a file and needed as a directory",
                    String::from_utf8_lossy(path)
                ))),
            };
        }
        self.make_parents(path)?;
        let meta = match self.base.stat(path)? {
            Some(stat) if kind(&stat).is_dir() => meta(self.base, path, &stat)?,
            Some(_) => {
                let path = String::from_utf8_lossy(path).into_owned();
                return Err(BuildError::invalid(format!("/{path} is no directory in the image")));
            }
            None => {
                let (uid, gid) = self.owner.unwrap_or((0, 0));
                // Its time is that of what made it necessary: set when the plan is written.
                EntryMeta { mode: 0o755, uid, gid, mtime: i64::MIN, ..EntryMeta::default() }
            }
        };
        self.put(path.to_vec(), Planned { content: Content::Directory, meta, passage: true })
    }
}

fn vanished(tree: &Tree, path: &[u8]) -> BuildError {
    BuildError::invalid(format!("/{} is not in {}", String::from_utf8_lossy(path), tree.name()))
}

fn meta(tree: &Tree, path: &[u8], stat: &Stat) -> Result<EntryMeta> {
    Ok(EntryMeta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        mtime_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        xattrs: tree.attributes(path)?,
    })
}
