//! The file of a key: 64 hex digits, for root only.

use crate::{KEY_BYTES, SealError, Sealer};
use aws_lc_rs::rand;
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Only the owner reads it.
pub const KEY_FILE_MODE: u32 = 0o600;

impl Sealer {
    /// Reads a key file; `None` if there is none.
    ///
    /// # Errors
    /// [`SealError`] if it cannot be read or holds no key.
    pub fn load(path: &Path) -> Result<Option<Self>, SealError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SealError::File { doing: "reading", path: path.to_owned(), source }),
        };
        let mut key = [0; KEY_BYTES];
        hex::decode_to_slice(text.trim(), &mut key).map_err(|_| SealError::NoKey { path: path.to_owned() })?;
        Ok(Some(Self::new(&key)))
    }

    /// Makes a key file that is not there yet. It is on disk before anything can be sealed with it.
    ///
    /// # Errors
    /// [`SealError::File`], also if one is there: a key is never overwritten.
    pub fn create(path: &Path) -> Result<Self, SealError> {
        let fail = |doing| move |source| SealError::File { doing, path: path.to_owned(), source };
        let mut key = [0; KEY_BYTES];
        rand::fill(&mut key).map_err(|_| SealError::Cipher)?;
        let Some((dir, name)) = path.parent().zip(path.file_name()) else {
            return Err(fail("naming")(io::ErrorKind::InvalidInput.into()));
        };
        let half = dir.join(format!(".new-{}", name.to_string_lossy()));
        match fs::remove_file(&half) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail("clearing the way for")(e)),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(KEY_FILE_MODE)
            .open(&half)
            .map_err(fail("making"))?;
        file.write_all(format!("{}\n", hex::encode(key)).as_bytes()).map_err(fail("writing"))?;
        file.sync_all().map_err(fail("syncing"))?;
        // A link fails if the name is taken, where a rename would overwrite.
        fs::hard_link(&half, path).map_err(fail("naming"))?;
        fs::remove_file(&half).map_err(fail("finishing"))?;
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(fail("syncing the directory of"))?;
        Ok(Self::new(&key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret-key");
        assert!(Sealer::load(&path).unwrap().is_none());
        // A half-written one of a start that was cut short is in nobody's way.
        fs::write(dir.path().join(".new-secret-key"), "half").unwrap();
        let made = Sealer::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Sealer::load(&path).unwrap().unwrap();
        assert_eq!(read.open(&made.seal(b"x", &["a"]).unwrap(), &["a"]).unwrap(), b"x");
        assert!(Sealer::create(&path).unwrap_err().to_string().contains("secret-key"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "only the refused half is left");
        fs::write(&path, "no key").unwrap();
        assert!(matches!(Sealer::load(&path).unwrap_err(), SealError::NoKey { .. }));
    }
}
