//! Names, identifiers and digests.

use alloc::{borrow::ToOwned, format, string::String};
use core::{fmt, str::FromStr};

/// Why a text is not a valid name, digest or quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {why}")]
pub struct Invalid {
    /// What the text was meant to be, as in "pod name".
    pub what: &'static str,
    /// The text, cut to 80 characters.
    pub value: String,
    /// What is expected instead.
    pub why: &'static str,
}

impl Invalid {
    /// Makes the error, cutting a long value so that messages stay readable.
    #[must_use]
    pub fn new(what: &'static str, value: &str, why: &'static str) -> Self {
        Self { what, value: value.chars().take(80).collect(), why }
    }
}

/// Checks an object name: a DNS subdomain (RFC 1123) of at most 253 characters, as Kubernetes has it.
///
/// # Errors
/// [`Invalid`] says what is expected.
pub fn check_name(what: &'static str, name: &str) -> Result<(), Invalid> {
    const WHY: &str = "use at most 253 characters a-z, 0-9, '-' and '.', beginning and ending with a letter or digit";
    let ok = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && name
            .split('.')
            .all(|part| !part.is_empty() && part.len() <= 63 && !part.starts_with('-') && !part.ends_with('-'));
    if ok { Ok(()) } else { Err(Invalid::new(what, name, WHY)) }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(String);
        impl $name {
            /// Takes a text that its maker has already checked.
            #[must_use]
            pub fn from_trusted(text: impl Into<String>) -> Self { Self(text.into()) }
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
            /// Whether it is the empty text: "none yet".
            #[must_use]
            pub fn is_empty(&self) -> bool { self.0.is_empty() }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String { id.0 }
        }
        impl core::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str { &self.0 }
        }
    };
}

text_id!(/// The unique id of one object's life: a UUIDv7 given by the controller.
    Uid);
text_id!(/// The name of a node; its certificate is bound to it.
    NodeName);
text_id!(/// The name of a template revision: hex of the hash of its content.
    RevisionName);
text_id!(/// The name of a container within its pod (a DNS label).
    ContainerName);

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ObjectName {
    /// The namespace, "" for kinds that have none.
    pub namespace: String,
    /// The name within it.
    pub name: String,
}

impl ObjectName {
    /// Joins the two parts.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// The digest algorithms of the OCI image specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// The name used in digests: `sha256`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
    /// The number of hex digits.
    #[must_use]
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A content digest, `sha256:<64 hex>` or `sha512:<128 hex>` (OCI image spec, descriptor.md). Always lower case, so equal content has equal text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
    /// The lower-case hex digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }
    /// The name of its file in a directory of digests: `sha256-<hex>`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}", self.algorithm.name(), self.hex)
    }
    /// Reads back what [`Digest::file_name`] made.
    ///
    /// # Errors
    /// [`Invalid`] if the text is no such name.
    pub fn from_file_name(name: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("digest file name", name, "sha256-<64 hex digits> is expected");
        let (algorithm, hex) = name.split_once('-').ok_or_else(bad)?;
        format!("{algorithm}:{hex}").parse()
    }
    /// The SHA-256 digest with these bytes.
    #[must_use]
    pub fn sha256(bytes: &[u8; 32]) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: hex::encode(bytes) }
    }
    /// The SHA-512 digest with these bytes.
    #[must_use]
    pub fn sha512(bytes: &[u8; 64]) -> Self {
        Self { algorithm: Algorithm::Sha512, hex: hex::encode(bytes) }
    }
    /// The SHA-256 digest of some content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        use sha2::Digest as _;
        Self { algorithm: Algorithm::Sha256, hex: hex::encode(sha2::Sha256::digest(content)) }
    }
    /// The first 12 hex digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

impl FromStr for Digest {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || {
            Invalid::new("digest", text, "sha256:<64 hex digits> or sha512:<128 hex digits> is expected, in lower case")
        };
        let (name, hex) = text.split_once(':').ok_or_else(bad)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(bad()),
        };
        let hex_ok = hex.len() == algorithm.hex_len() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex_ok { Ok(Self { algorithm, hex: hex.to_owned() }) } else { Err(bad()) }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}
