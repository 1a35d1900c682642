//! What can go wrong with a copy.

use rustix::io::Errno;
use std::{borrow::Cow, io};

/// The result of this crate's functions.
pub type Result<T, E = ArchiveError> = std::result::Result<T, E>;

/// An error of a copy: what was being done, to what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A path is not there.
    #[error("there is no {0}")]
    NotFound(String),
    /// A directory is wanted, and this is none.
    #[error("{0} is no directory")]
    NotADirectory(String),
    /// What is there cannot be replaced by what comes.
    #[error("cannot overwrite {path}: {why}")]
    Overwrite {
        /// In the place.
        path: String,
        /// What is there, and what comes.
        why: &'static str,
    },
    /// The archive breaks a rule.
    #[error("the archive cannot be unpacked: entry {entry:?} {why}")]
    Entry {
        /// Its path, lossy.
        entry: String,
        /// The rule.
        why: Cow<'static, str>,
    },
    /// A tree is too deep or a path too long.
    #[error("{path}: {why}")]
    Limit {
        /// Where.
        path: String,
        /// Which bound.
        why: &'static str,
    },
    /// The stream broke.
    #[error("{doing} the archive: {source}")]
    Stream {
        /// "reading" or "writing".
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl ArchiveError {
    /// A stable word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "NotFound",
            Self::NotADirectory(_) => "NotADirectory",
            Self::Overwrite { .. } => "Overwrite",
            Self::Entry { .. } => "BadArchive",
            Self::Limit { .. } => "TooLarge",
            Self::Stream { .. } => "Stream",
            Self::Io { .. } => "Io",
        }
    }

    pub(crate) fn io(doing: &'static str, path: &[u8], error: Errno) -> Self {
        let path = shown(path);
        match error {
            Errno::NOENT => Self::NotFound(path),
            Errno::NOTDIR => Self::NotADirectory(path),
            error => Self::Io { doing, path, source: error.into() },
        }
    }
}

/// A path for people.
pub(crate) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.is_empty() { "/".into() } else { text.into_owned() }
}
