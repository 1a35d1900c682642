//! Sealing: bytes that must not lie in clear on a disk, under a key that lies in a file of its own.
//!
//! XChaCha20-Poly1305 with random nonces (24 bytes: no counter has to be kept), and HMAC-SHA256 for words that tell equal contents
//! from different ones without telling the content. Both keys are derived from the file's, so that neither says anything of the other.
//! The controller seals what people give it in secrets, an agent what it was sent of them: each under its own key.
//!
//! Not here: what is sealed, and where it is kept.
//!
//! Invariants: a sealed text opens only in the context it was sealed for (kind, namespace, name, uid ...), so that whoever can write to
//! the disk cannot exchange two of them; a key file is never overwritten; nothing here prints a key or a clear text.

mod key;

pub use key::KEY_FILE_MODE;

use aws_lc_rs::{hmac, rand};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use std::{fmt, io, path::PathBuf};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 24;
/// The first byte of what is sealed: how.
const VERSION: u8 = 1;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key's file.
    #[error("{doing} the key file {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is there, but holds no key.
    #[error("{} holds no key: 64 hex digits are expected; put the right file back", path.display())]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// Sealed under another key, for another place, or changed since.
    #[error("what is sealed does not open: it was sealed under another key or for another place, or it was changed")]
    DoesNotOpen,
    /// No randomness, or more bytes than the cipher takes.
    #[error("sealing failed")]
    Cipher,
}

/// Seals and opens, under one key.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    mac: hmac::Key,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// Of this key.
    #[must_use]
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, key);
        let encryption = hmac::sign(&root, b"strata seal 1: encryption");
        let names = hmac::sign(&root, b"strata seal 1: names");
        let mut cipher_key = chacha20poly1305::Key::default();
        cipher_key.copy_from_slice(encryption.as_ref());
        Self { cipher: XChaCha20Poly1305::new(&cipher_key), mac: hmac::Key::new(hmac::HMAC_SHA256, names.as_ref()) }
    }

    /// Seals bytes for a place: they open only with the same words.
    ///
    /// # Errors
    /// [`SealError::Cipher`].
    pub fn seal(&self, clear: &[u8], place: &[&str]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| SealError::Cipher)?;
        let aad = joined(place.iter().map(|p| p.as_bytes()));
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: clear, aad: &aad });
        let sealed = sealed.map_err(|_| SealError::Cipher)?;
        let mut all = Vec::with_capacity(1 + NONCE_BYTES + sealed.len());
        all.push(VERSION);
        all.extend_from_slice(&nonce);
        all.extend_from_slice(&sealed);
        Ok(all)
    }

    /// Opens what [`Sealer::seal`] made.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`].
    pub fn open(&self, sealed: &[u8], place: &[&str]) -> Result<Vec<u8>, SealError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(SealError::DoesNotOpen)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::DoesNotOpen)?;
        let aad = joined(place.iter().map(|p| p.as_bytes()));
        self.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: text, aad: &aad }).map_err(|_| SealError::DoesNotOpen)
    }

    /// A word for a content, 64 hex digits: equal contents have equal words, and without the key the content cannot be guessed from it.
    #[must_use]
    pub fn word<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> String {
        hex::encode(hmac::sign(&self.mac, &joined(parts)))
    }
}

/// The parts, each behind its length: no two lists give the same bytes.
fn joined<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_with_its_key_and_in_its_place() {
        let (one, other) = (Sealer::new(&[1; 32]), Sealer::new(&[2; 32]));
        let sealed = one.seal(b"hunter2", &["Secret", "default", "db"]).unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(one.open(&sealed, &["Secret", "default", "db"]).unwrap(), b"hunter2");
        assert!(other.open(&sealed, &["Secret", "default", "db"]).is_err());
        assert!(one.open(&sealed, &["Secret", "default", "dc"]).is_err());
        assert!(one.open(&sealed, &["Secret", "defaultdb", ""]).is_err());
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert!(one.open(&changed, &["Secret", "default", "db"]).is_err(), "byte {i}");
            assert!(one.open(&sealed[..i], &["Secret", "default", "db"]).is_err(), "cut at {i}");
        }
        // The same again gives other bytes.
        assert_ne!(one.seal(b"hunter2", &[]).unwrap(), one.seal(b"hunter2", &[]).unwrap());
    }

    #[test]
    fn words_tell_contents_apart() {
        let sealer = Sealer::new(&[1; 32]);
        let word = |parts: &[&str]| sealer.word(parts.iter().map(|p| p.as_bytes()));
        assert_eq!(word(&["a", "b"]), word(&["a", "b"]));
        assert_ne!(word(&["a", "b"]), word(&["ab", ""]));
        assert_ne!(word(&["a"]), Sealer::new(&[2; 32]).word([b"a".as_slice()].into_iter()));
        assert_eq!(word(&["a"]).len(), 64);
        assert_eq!(format!("{sealer:?}"), "Sealer");
    }
}
