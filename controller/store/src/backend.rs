//! Where the store's world begins: what keeps the objects over a restart.
//!
//! The contract. A store calls [`Backend::load`] once, then [`Backend::append`] and [`Backend::reserve`] from one thread and
//! [`Backend::checkpoint`] from another.
//! - A group of changes is all there after a crash or not at all; if `append` returned `Ok`, it is there.
//! - A checkpoint makes the log up to a position unnecessary; it never changes what a later `load` returns, save that it may also keep the
//!   unlogged state of the objects it writes.
//! - An example: append(put a@1) -> position 1; append(delete a@2, put b@3) -> 2; checkpoint(snapshot at 3, dirty {a, b}, position 2) writes b and
//!   forgets a, then drops groups 1 and 2; a crash anywhere in between loads {b@3}.

mod memory;
mod sled;

pub use self::{memory::Memory, sled::Sled};
use crate::{Key, Snapshot};
use std::path::PathBuf;
use strata_proto::store;

/// What a backend holds at start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Every object, as puts: no key twice, none absent.
    pub objects: Vec<store::Change>,
    /// No revision above it was ever given out.
    pub revision: u64,
    /// What the log changed since the last checkpoint: the next one must write it.
    pub dirty: Vec<Key>,
    /// The position of the last group in the log.
    pub position: u64,
}

/// Keeps groups of changes on something that survives the process. See the module for the contract.
pub trait Backend: Send + Sync {
    /// Reads everything back, once, before anything else.
    ///
    /// # Errors
    /// Refuses damage and newer formats; the message names the way out.
    fn load(&self) -> Result<Loaded, BackendError>;

    /// Appends one group and returns its position once it is on disk.
    ///
    /// # Errors
    /// [`BackendError::Full`]: nothing was written, later groups may succeed. Anything else: the backend is not to be written to again.
    fn append(&self, group: &[store::Change]) -> Result<Appended, BackendError>;

    /// Makes sure that no later [`Backend::load`] reports a revision below this one.
    ///
    /// # Errors
    /// As for `append`.
    fn reserve(&self, revision: u64) -> Result<(), BackendError>;

    /// Writes the objects under these keys as the snapshot has them (absent: forgets them), then drops the log up to `position`.
    /// The snapshot contains every group up to there.
    ///
    /// # Errors
    /// As for `append`.
    fn checkpoint(&self, snapshot: &Snapshot, dirty: &[Key], position: u64) -> Result<(), BackendError>;

    /// Gives back space that is no longer needed, as far as the backend does not do so by itself.
    ///
    /// # Errors
    /// As for `append`.
    fn compact(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Something that an operator must know although it works on.
    fn alarm(&self) -> Option<String> {
        None
    }
}

/// Where a group went.
#[derive(Debug, Clone, Copy)]
pub struct Appended {
    /// Grows by one with each group.
    pub position: u64,
    /// What it takes in the log.
    pub bytes: u64,
}

/// What can go wrong with a backend.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Too little space to write safely; nothing was written.
    #[error("the disk of {} is nearly full: {free_bytes} bytes are free, the store keeps {reserved_bytes} in reserve; nothing was changed, free some space and try again", dir.display())]
    Full {
        /// The store's directory.
        dir: PathBuf,
        /// Free there.
        free_bytes: u64,
        /// What must stay free.
        reserved_bytes: u64,
    },
    /// A read or write failed.
    #[error("{what} in {} failed: {source}; if the disk is full free some space, then restart the controller", dir.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The store's directory.
        dir: PathBuf,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is there is not what was written.
    #[error("the store in {} is damaged ({what}); restore that directory from a backup, or move it away to begin with an empty cluster (agents then remove the pods it does not know)", dir.display())]
    Damaged {
        /// The store's directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A newer release wrote it.
    #[error("the store in {} has level {found}, this release reads up to level {known}: start the release that wrote it, or a later one", dir.display())]
    Newer {
        /// The store's directory.
        dir: PathBuf,
        /// Its level.
        found: u64,
        /// The highest level this build reads.
        known: u64,
    },
    /// Another process has it open.
    #[error("the store in {} is in use by another process: stop the other controller first", dir.display())]
    InUse {
        /// The store's directory.
        dir: PathBuf,
    },
}
