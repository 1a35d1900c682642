//! A plan is hashed, for the cache, and written, as a layer.

use std::collections::HashMap;
use std::io::Read as _;

use sha2::{Digest as _, Sha256};
use strata_layer::archive::{EntryKind, EntryMeta, TarWriter};
use strata_layer::{LayerWriter, Published};

use super::{Content, Plan, Planned};
use crate::error::{BuildError, Result};

/// Bytes that are hashed at once.
const BUFFER_BYTES: usize = 256 << 10;

impl Plan<'_> {
    /// A digest of what is copied: paths, modes, owners and content, not times (as docker: a fresh checkout changes nothing).
    ///
    /// # Errors
    /// If a source cannot be read.
    pub(crate) fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let field = |bytes: &[u8], hash: &mut Sha256| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        let mut buffer = vec![0; BUFFER_BYTES];
        for (path, Planned { content, meta, .. }) in self.entries.iter().filter(|(_, entry)| !entry.passage) {
            field(path, &mut hash);
            field(format!("{:o} {}:{}", meta.mode, meta.uid, meta.gid).as_bytes(), &mut hash);
            for (name, value) in &meta.xattrs {
                field(name, &mut hash);
                field(value, &mut hash);
            }
            match content {
                Content::Directory => field(b"directory", &mut hash),
                Content::Text(text) => field(text.as_bytes(), &mut hash),
                Content::Symlink(target) => field(&[b"-> ", target.as_slice()].concat(), &mut hash),
                Content::CharDevice(major, minor) => field(format!("c {major}:{minor}").as_bytes(), &mut hash),
                Content::BlockDevice(major, minor) => field(format!("b {major}:{minor}").as_bytes(), &mut hash),
                Content::Fifo => field(b"fifo", &mut hash),
                Content::File { tree, path, size, .. } => {
                    hash.update(b"file");
                    hash.update(size.to_le_bytes());
                    let mut file = tree.file(path)?;
                    loop {
                        let shown = || String::from_utf8_lossy(path).into_owned();
                        match file.read(&mut buffer).map_err(|e| BuildError::io("reading", shown(), e))? {
                            0 => break,
                            got => hash.update(&buffer[..got]),
                        }
                    }
                }
            }
        }
        Ok(hex::encode(hash.finalize()))
    }

    /// Writes the layer. Directories that had to be made get the time `made`, and nothing is younger than `newest`, seconds since 1970.
    ///
    /// # Errors
    /// If a source cannot be read or the layer cannot be written; nothing is kept then.
    pub(crate) fn write(&self, writer: LayerWriter, made: i64, newest: Option<i64>) -> Result<Published> {
        let mut tar = TarWriter::new(writer);
        let mut links: HashMap<(u64, u64), (&[u8], &EntryMeta)> = HashMap::new();
        for (path, Planned { content, meta, .. }) in &self.entries {
            let mut own = meta.clone();
            if own.mtime == i64::MIN || matches!(content, Content::Text(_)) {
                (own.mtime, own.mtime_ns) = (made, 0);
            }
            if let Some(newest) = newest.filter(|newest| own.mtime > *newest) {
                (own.mtime, own.mtime_ns) = (newest, 0);
            }
            let kind = match content {
                Content::File { tree, path: from, size, inode } => {
                    let first = inode.and_then(|inode| links.get(&inode));
                    if let Some((first, _)) = first.filter(|(_, of_first)| *of_first == meta) {
                        tar.entry(path, EntryKind::HardLink(first), &own)?;
                        continue;
                    }
                    if let Some(inode) = inode {
                        links.insert(*inode, (path, meta));
                    }
                    tar.file(path, &own, *size, &mut tree.file(from)?)?;
                    continue;
                }
                Content::Text(text) => {
                    tar.file(path, &own, text.len() as u64, &mut text.as_bytes())?;
                    continue;
                }
                Content::Directory => EntryKind::Directory,
                Content::Symlink(target) => EntryKind::Symlink(target),
                Content::CharDevice(major, minor) => EntryKind::CharDevice(*major, *minor),
                Content::BlockDevice(major, minor) => EntryKind::BlockDevice(*major, *minor),
                Content::Fifo => EntryKind::Fifo,
            };
            tar.entry(path, kind, &own)?;
        }
        Ok(tar.publish()?)
    }
}
