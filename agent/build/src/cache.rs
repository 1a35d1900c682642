//! The layer cache: which step on which layers gave which layer. A directory of small files, `STATE/build-cache/<key>`, each replaced atomically.
//!
//! An entry whose layer is gone counts for nothing. Entries hold no layer: garbage collection decides, and may ask for all of them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use strata_model::Digest;

use crate::error::{BuildError, Result};
use crate::limits::CACHE_ENTRIES_MAX;

const TEMPORARY: &str = ".tmp-";

/// The cache below one state directory.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    next: AtomicU64,
}

/// What a step gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Its layer.
    pub layer: Digest,
    /// The time that the image's history says, seconds since 1970.
    pub created: i64,
}

/// An entry's file.
#[derive(Serialize, Deserialize)]
struct Stored {
    layer: String,
    created: i64,
}

/// The name of a step on top of some layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// Of a step of this kind on these layers, with all that its result depends on.
    pub(crate) fn new<'a>(kind: &str, layers: &[Digest], parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new();
        let mut field = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        field(kind);
        field(&layers.len().to_string());
        layers.iter().for_each(|layer| field(&layer.to_string()));
        parts.into_iter().for_each(field);
        Self(hex::encode(hash.finalize()))
    }
}

impl Cache {
    /// Opens the cache below a state directory, makes it if need be, and removes what was left half-written.
    ///
    /// # Errors
    /// The I/O error.
    pub fn open(state: &Path) -> Result<Self> {
        let directory = state.join("build-cache");
        fs::create_dir_all(&directory).map_err(|e| BuildError::io("making", &directory, e))?;
        for entry in fs::read_dir(&directory).map_err(|e| BuildError::io("reading", &directory, e))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                fs::remove_file(entry.path()).map_err(|e| BuildError::io("removing", entry.path(), e))?;
            }
        }
        Ok(Self { directory, next: AtomicU64::new(0) })
    }

    /// What a step gave, if that is known. A file that cannot be read counts as absent.
    pub(crate) fn get(&self, key: &Key) -> Option<CacheEntry> {
        read(&self.directory.join(&key.0))
    }

    /// Notes what a step gave. The cache is a convenience: a note that cannot be written is only warned of.
    pub(crate) fn put(&self, key: &Key, entry: &CacheEntry) {
        if let Err(error) = self.try_put(key, entry) {
            tracing::warn!("a build's step is not cached: {error}");
        }
    }

    fn try_put(&self, key: &Key, entry: &CacheEntry) -> Result<()> {
        self.make_room()?;
        let path = self.directory.join(&key.0);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!("{TEMPORARY}{number}"));
        let stored = Stored { layer: entry.layer.to_string(), created: entry.created };
        let written = serde_json::to_vec(&stored).map_err(std::io::Error::other).and_then(|bytes| {
            fs::File::create(&temporary)?.write_all(&bytes)?;
            fs::rename(&temporary, &path)
        });
        written.map_err(|error| {
            // Best effort: what stays is removed at the next start.
            drop(fs::remove_file(&temporary));
            BuildError::io("writing", &path, error)
        })
    }

    /// Removes the oldest entries of a full cache, a tenth of all at once.
    fn make_room(&self) -> Result<()> {
        let entries = fs::read_dir(&self.directory).map_err(|e| BuildError::io("reading", &self.directory, e))?;
        let mut entries: Vec<_> =
            entries.flatten().filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path()))).collect();
        if entries.len() < CACHE_ENTRIES_MAX {
            return Ok(());
        }
        entries.sort();
        for (_, path) in entries.iter().take(CACHE_ENTRIES_MAX / 10) {
            fs::remove_file(path).map_err(|e| BuildError::io("removing", path, e))?;
        }
        Ok(())
    }

    /// The layers that entries refer to, for garbage collection.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn layers(&self) -> Result<Vec<Digest>> {
        let entries = fs::read_dir(&self.directory).map_err(|e| BuildError::io("reading", &self.directory, e))?;
        let mut layers: Vec<Digest> = entries.flatten().filter_map(|e| Some(read(&e.path())?.layer)).collect();
        layers.sort_unstable();
        layers.dedup();
        Ok(layers)
    }

    /// Forgets everything; layers stay.
    ///
    /// # Errors
    /// If an entry cannot be removed.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.directory).map_err(|e| BuildError::io("reading", &self.directory, e))?.flatten()
        {
            if entry.file_name().len() == 64 {
                fs::remove_file(entry.path()).map_err(|e| BuildError::io("removing", entry.path(), e))?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Option<CacheEntry> {
    let stored: Stored = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(CacheEntry { layer: stored.layer.parse().ok()?, created: stored.created })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn entries_are_found_under_their_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let layer = Digest::of(b"x");
        let key = Key::new("run", std::slice::from_ref(&layer), ["a", "b"]);
        for other in [
            Key::new("run", &[], ["a", "b"]),
            Key::new("copy", std::slice::from_ref(&layer), ["a", "b"]),
            Key::new("run", std::slice::from_ref(&layer), ["ab"]),
            Key::new("run", std::slice::from_ref(&layer), ["ab", ""]),
            Key::new("run", &[layer.clone(), layer.clone()], ["a", "b"]),
        ] {
            assert_ne!(other, key);
        }
        assert_eq!(cache.get(&key), None);
        let entry = CacheEntry { layer: layer.clone(), created: 7 };
        cache.put(&key, &entry);
        assert_eq!(Cache::open(dir.path()).unwrap().get(&key), Some(entry));
        assert_eq!(cache.layers().unwrap(), [layer]);
        fs::write(dir.path().join("build-cache").join(&key.0), "{").unwrap();
        assert_eq!(cache.get(&key), None);
        cache.clear().unwrap();
        assert!(cache.layers().unwrap().is_empty());
    }
}
