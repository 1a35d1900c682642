//! Manifests, indexes and configs as files named by their digest: `STATE/blobs/<algorithm>/<hex>`.
//!
//! A file has a temporary name until its content is verified and on disk, so whatever has a digest's name is whole; it is
//! verified again whenever it is read.

use crate::{
    error::{ImageError, Result},
    hash::digest_like,
};
use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};
use strata_model::{Algorithm, Digest, limits::IMAGE_METADATA_BYTES_MAX};

const TEMPORARY: &str = ".tmp-";
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// The directory of blobs.
#[derive(Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// Opens the directory below `state_dir`, making it if need be, and removes what a killed process left half-written.
    pub(crate) fn open(state_dir: &Path) -> Result<Self> {
        let dir = state_dir.join("blobs");
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let sub = dir.join(algorithm.name());
            fs::create_dir_all(&sub).map_err(|e| ImageError::io("creating", &sub, e))?;
            remove_temporaries(&sub)?;
        }
        Ok(Self { dir })
    }

    /// The digests of all blobs.
    pub(crate) fn list(&self) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.dir.join(algorithm.name());
            for entry in fs::read_dir(&dir).map_err(|e| ImageError::io("reading", &dir, e))? {
                let name = entry.map_err(|e| ImageError::io("reading", &dir, e))?.file_name();
                found.extend(format!("{}:{}", algorithm.name(), name.to_string_lossy()).parse::<Digest>());
            }
        }
        Ok(found)
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.algorithm().name()).join(digest.hex())
    }

    /// Reads a blob whole; `None` if it is not here or no longer what its name says (then it is removed).
    pub(crate) fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ImageError::io("opening", path, e)),
        };
        let mut bytes = Vec::new();
        file.take(IMAGE_METADATA_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| ImageError::io("reading", &path, e))?;
        if digest_like(digest, &bytes) != *digest {
            tracing::warn!(path = %path.display(), "a stored blob is damaged; removing it");
            self.remove(digest)?;
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// Keeps a blob that came from `from`; on return it is on disk.
    pub(crate) fn put(&self, digest: &Digest, bytes: &[u8], from: &str) -> Result<()> {
        let actual = digest_like(digest, bytes);
        if actual != *digest {
            let (what, from) = (format!("blob {digest}"), from.to_owned());
            return Err(ImageError::DigestMismatch { what, from, expected: digest.clone(), actual });
        }
        let path = self.path(digest);
        if path.exists() {
            return Ok(());
        }
        replace_file(&path, bytes)
    }

    /// Removes a blob; gives the bytes that this frees.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<u64> {
        remove_file(&self.path(digest))
    }
}

/// Writes a file under a temporary name, syncs it and renames it into place.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let temporary = dir.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
    let written = (|| {
        let mut file = File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    })();
    written.map_err(|e| {
        // Best effort: what stays is removed at the next start.
        drop(fs::remove_file(&temporary));
        ImageError::io("writing", path, e)
    })
}

/// Removes a file that may be gone already; gives its size.
pub(crate) fn remove_file(path: &Path) -> Result<u64> {
    let size = fs::metadata(path).map_or(0, |meta| meta.len());
    match fs::remove_file(path) {
        Ok(()) => Ok(size),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(ImageError::io("removing", path, e)),
    }
}

/// Removes half-written files from a directory.
pub(crate) fn remove_temporaries(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|e| ImageError::io("reading", dir, e))? {
        let entry = entry.map_err(|e| ImageError::io("reading", dir, e))?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_blob_is_kept_only_under_its_own_digest() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let digest = Digest::of(b"right");
        assert_eq!(blobs.put(&digest, b"wrong", "x").unwrap_err().reason(), "DigestMismatch");
        assert!(blobs.read(&digest).unwrap().is_none());
        blobs.put(&digest, b"right", "x").unwrap();
        assert_eq!(blobs.read(&digest).unwrap().as_deref(), Some(&b"right"[..]));
    }

    #[test]
    fn a_damaged_blob_is_removed_when_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let digest = Digest::of(b"right");
        blobs.put(&digest, b"right", "x").unwrap();
        fs::write(blobs.path(&digest), b"rotten").unwrap();
        assert!(blobs.read(&digest).unwrap().is_none());
        assert!(!blobs.path(&digest).exists());
    }

    #[test]
    fn half_written_files_are_gone_after_opening() {
        let dir = tempfile::tempdir().unwrap();
        Blobs::open(dir.path()).unwrap();
        let half = dir.path().join("blobs/sha256/.tmp-1-1");
        fs::write(&half, b"x").unwrap();
        Blobs::open(dir.path()).unwrap();
        assert!(!half.exists());
    }
}
