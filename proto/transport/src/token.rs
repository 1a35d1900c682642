//! Join tokens: the text that lets a new node ask for its certificate.
//!
//! A token pins the CA, so the node knows the controller before it trusts it, and carries a secret that the controller keeps only as a hash.

use crate::{TransportError, pki};
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};

/// A join token; its text form is `strata.<fingerprint>.<id>.<secret>`, all lower-case hex.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the CA certificate's DER, 64 hex digits.
    pub ca_fingerprint: String,
    /// Names the token in the store, 16 hex digits.
    pub id: String,
    /// 32 random bytes, 64 hex digits.
    pub secret: String,
}

impl JoinToken {
    /// Makes a new token for the cluster with this CA.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn create(ca_fingerprint: &str) -> Result<Self, TransportError> {
        Ok(Self {
            ca_fingerprint: ca_fingerprint.to_owned(),
            id: hex::encode(pki::random::<8>()?),
            secret: hex::encode(pki::random::<32>()?),
        })
    }

    /// What the controller keeps of the secret.
    #[must_use]
    pub fn secret_sha256(&self) -> String {
        hash_secret(&self.secret)
    }
}

/// The hash of a token's secret, 64 hex digits, as stored.
#[must_use]
pub fn hash_secret(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// Compares a presented secret with the stored hash. Hashes are compared, so timing tells nothing about the secret.
#[must_use]
pub fn secret_matches(secret: &str, stored_sha256: &str) -> bool {
    hash_secret(secret) == stored_sha256
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "strata.{}.{}.{}", self.ca_fingerprint, self.id, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

impl FromStr for JoinToken {
    type Err = TransportError;
    fn from_str(text: &str) -> Result<Self, TransportError> {
        let bad = |why| TransportError::Token { why };
        let parts: Vec<&str> = text.trim().splitn(5, '.').collect();
        let [word, ca_fingerprint, id, secret] = parts[..] else {
            return Err(bad("it does not have four parts separated by '.'"));
        };
        if word != "strata" {
            return Err(bad("it does not begin with `strata.`"));
        }
        let is_hex =
            |part: &str, len: usize| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex(ca_fingerprint, 64) || !is_hex(id, 16) || !is_hex(secret, 64) {
            return Err(bad("a part is cut short or has characters other than 0-9 and a-f"));
        }
        Ok(Self { ca_fingerprint: ca_fingerprint.into(), id: id.into(), secret: secret.into() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_reads_back_from_its_text() {
        let token = JoinToken::create(&"ab".repeat(32)).unwrap();
        let text = token.to_string();
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token);
        assert!(secret_matches(&token.secret, &token.secret_sha256()));
        assert!(!secret_matches(&"0".repeat(64), &token.secret_sha256()));
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn damaged_tokens_are_refused_and_the_message_does_not_repeat_them() {
        let text = JoinToken::create(&"ab".repeat(32)).unwrap().to_string();
        for bad in [
            "",
            "strata",
            &text[..text.len() - 1],
            &text.replace("strata", "kubeadm"),
            &format!("{text}.x"),
            &text.to_uppercase(),
        ] {
            let message = bad.parse::<JoinToken>().unwrap_err().to_string();
            assert!(message.contains("ctl token create"), "{message}");
            assert!(bad.is_empty() || bad.len() < 10 || !message.contains(bad), "{message}");
        }
    }
}
