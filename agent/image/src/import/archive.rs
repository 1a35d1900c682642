//! A tar with random access.

use super::FROM;
use crate::{
    decode::decoder,
    error::{ImageError, Result},
    limits,
};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek as _, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tar::EntryType;

const COPY_BYTES: usize = 256 << 10;
static NEXT_SPOOL: AtomicU64 = AtomicU64::new(0);

/// What an archive has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    File {
        offset: u64,
        len: u64,
    },
    /// A name in the archive.
    Link(String),
}

/// The spooled archive and the table of its entries. Names are keys here, nothing else.
#[derive(Debug)]
pub(super) struct Archive {
    file: Arc<File>,
    members: HashMap<String, Member>,
}

/// The content of one entry.
#[derive(Debug)]
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Archive {
    /// Copies the archive into a nameless file in `dir`, decompressing it on the way, and lists its entries.
    pub(super) fn spool(reader: impl Read + Send, dir: &Path) -> Result<Self> {
        let damaged =
            |e: io::Error| ImageError::Corrupt { what: "the stream".into(), from: FROM.into(), detail: e.to_string() };
        let path = dir.join(format!(".tmp-import-{}", NEXT_SPOOL.fetch_add(1, Ordering::Relaxed)));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| ImageError::io("creating", &path, e))?;
        // From here on the file goes with its descriptor, whatever happens.
        fs::remove_file(&path).map_err(|e| ImageError::io("unlinking", &path, e))?;
        let mut input = decoder(reader).map_err(damaged)?.take(limits::ARCHIVE_BYTES_MAX + 1);
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = input.read(&mut buffer).map_err(damaged)?;
            if count == 0 {
                break;
            }
            file.write_all(&buffer[..count]).map_err(|e| ImageError::io("writing", &path, e))?;
        }
        if input.limit() == 0 {
            return Err(ImageError::TooLarge {
                what: "the stream".into(),
                from: FROM.into(),
                max_bytes: limits::ARCHIVE_BYTES_MAX,
            });
        }
        file.rewind().map_err(|e| ImageError::io("reading", &path, e))?;
        let members = list(&file)?;
        Ok(Self { file: Arc::new(file), members })
    }

    /// The directory, "" or ending with '/', in which a file lies: the top, or the only directory at the top.
    pub(super) fn prefix_of(&self, name: &str) -> Option<String> {
        if self.members.contains_key(name) {
            return Some(String::new());
        }
        let mut found = self.members.keys().filter_map(|key| {
            let prefix = key.strip_suffix(name)?;
            (prefix.ends_with('/') && prefix.matches('/').count() == 1).then(|| prefix.to_owned())
        });
        let only = found.next()?;
        found.next().is_none().then_some(only)
    }

    /// The content under a name, links followed inside the archive.
    pub(super) fn open(&self, name: &str) -> Result<Section> {
        let mut at = normal(name);
        for _ in 0..=limits::ARCHIVE_LINKS_MAX {
            match self.members.get(&at) {
                Some(Member::File { offset, len }) => {
                    return Ok(Section { file: self.file.clone(), at: *offset, end: offset + len });
                }
                Some(Member::Link(target)) => at.clone_from(target),
                None => return Err(ImageError::invalid(FROM, format!("{name:?} is missing"))),
            }
        }
        Err(ImageError::invalid(FROM, format!("{name:?} is a loop of links")))
    }

    /// Reads a small file whole.
    pub(super) fn read(&self, name: &str, max_bytes: usize) -> Result<Vec<u8>> {
        let mut section = self.open(name)?;
        if section.end - section.at > max_bytes as u64 {
            return Err(ImageError::TooLarge { what: name.into(), from: FROM.into(), max_bytes: max_bytes as u64 });
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(|e| ImageError::io("reading", name, e))?;
        Ok(bytes)
    }
}

fn list(file: &File) -> Result<HashMap<String, Member>> {
    let bad = |e: io::Error| ImageError::invalid(FROM, format!("it is no tar: {e}"));
    let end = file.metadata().map_err(|e| ImageError::io("reading", "the spooled archive", e))?.len();
    let mut archive = tar::Archive::new(file);
    let mut members = HashMap::new();
    for (number, entry) in archive.entries_with_seek().map_err(bad)?.enumerate() {
        if number >= limits::ARCHIVE_ENTRIES_MAX {
            return Err(ImageError::invalid(FROM, format!("more than {} entries", limits::ARCHIVE_ENTRIES_MAX)));
        }
        let entry = entry.map_err(bad)?;
        let name = normal(&String::from_utf8_lossy(&entry.path_bytes()));
        let target = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
        let member = match (entry.header().entry_type(), target) {
            (EntryType::Regular | EntryType::Continuous, _) => {
                let (offset, len) = (entry.raw_file_position(), entry.size());
                if offset.checked_add(len).is_none_or(|until| until > end) {
                    return Err(ImageError::Corrupt {
                        what: format!("{name:?}"),
                        from: FROM.into(),
                        detail: "the archive ends within it".into(),
                    });
                }
                Member::File { offset, len }
            }
            (EntryType::Link, Some(target)) => Member::Link(normal(&target)),
            (EntryType::Symlink, Some(target)) => Member::Link(beside(&name, &target)),
            _ => continue,
        };
        // As with tar, a later entry replaces an earlier one.
        members.insert(name, member);
    }
    Ok(members)
}

/// A name without "." and with ".." taken lexically; what points above the top ends at the top.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A symbolic link's target, seen from the directory of the link.
fn beside(name: &str, target: &str) -> String {
    match name.rsplit_once('/') {
        Some((dir, _)) if !target.starts_with('/') => normal(&format!("{dir}/{target}")),
        _ => normal(target),
    }
}
