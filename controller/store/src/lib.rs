//! The controller's store: revisioned objects, one writer, group commit, pluggable backends.
//!
//! In: [`Change`]s from the API and the control loops. Out: [`Snapshot`]s to read, [`WatchStream`]s to follow, and files of a [`backend`].
//!
//! Not here: what objects mean, validation, generations, uids (the API's), leader election.
//!
//! Invariants
//! - One thread writes. A commit is all or nothing; it is acknowledged only when its durable changes are on disk.
//! - In-memory tables are the truth for reads. A [`Snapshot`] never changes; taking one and committing cost what changes, not what exists
//!   (the tables are persistent maps that share their unchanged parts).
//! - Every change has a revision of its own. Revisions never go back, also over restarts (they are reserved ahead).
//! - Watchers see every change in order. One that is too slow is ended with [`WatchEnd::Lagged`] and never slows the writer.
//! - After a disk error the store stops writing for good ([`StoreError::Failed`]) and says why; reads go on. A disk that is merely filling up is
//!   noticed before it is full: commits are refused with [`StoreError::DiskFull`], nothing is written, and they work again when there is space.

pub mod backend;
mod checkpoint;
mod commit;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod handle;
mod key;
mod meters;
mod tables;
mod watch;
mod writer;

pub use commit::{Change, Commit, Condition, Op};
pub use error::StoreError;
pub use handle::{Status, Store};
pub use key::Key;
pub use meters::Meters;
pub use tables::Snapshot;
pub use watch::{Compacted, Event, WatchEnd, WatchStream};

/// Every bound of the store.
pub mod limits {
    /// Changes of one commit.
    pub const COMMIT_CHANGES_MAX: usize = 10_000;
    /// Encoded bytes of one commit.
    pub const COMMIT_BYTES_MAX: usize = 8 << 20;
    /// Commits waiting for the writer; more callers wait for their turn.
    pub const QUEUE_COMMITS: usize = 1_024;
    /// Changes at which a group is closed.
    pub const GROUP_CHANGES: usize = 2_000;
    /// Encoded bytes at which a group is closed.
    pub const GROUP_BYTES: usize = 384 << 10;
    /// Revisions reserved ahead on disk: what a restart may skip.
    pub const REVISIONS_AHEAD: u64 = 100_000;
    /// Changes kept for watchers that come back.
    pub const HISTORY_EVENTS: usize = 65_536;
    /// Slices of changes a watcher may be behind before it is ended.
    pub const WATCH_SLICES: usize = 512;
    /// Changes in one such slice.
    pub const WATCH_SLICE_EVENTS: usize = 256;
    /// Milliseconds between two rounds of checkpointing.
    pub const CHECKPOINT_MS: u64 = 200;
    /// Log bytes not yet covered by a checkpoint at which the writer waits for one.
    pub const LOG_BYTES_MAX: u64 = 128 << 20;
}
