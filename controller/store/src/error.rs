//! What can go wrong with a store.

use crate::{Key, backend::BackendError};
use std::sync::Arc;

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A condition did not hold; nothing of the commit was done.
    #[error("{key} {}: read it again and repeat the change", match found { Some(r) => format!("is at revision {r}"), None => "is not there".to_owned() })]
    Conflict {
        /// Whose condition.
        key: Key,
        /// The revision it has; `None`: it is not there.
        found: Option<u64>,
    },
    /// More than the store takes.
    #[error("{what} has {size} {unit}, the limit is {limit}")]
    TooLarge {
        /// The object or commit.
        what: String,
        /// How large it is.
        size: usize,
        /// What is allowed.
        limit: usize,
        /// Of both.
        unit: &'static str,
    },
    /// The disk is nearly full; nothing was written, and commits work again when there is space.
    #[error("{0}")]
    DiskFull(Arc<BackendError>),
    /// Writing failed just now: whether the change is on disk shows after a restart. The store writes no more.
    #[error("{0}")]
    Disk(Arc<BackendError>),
    /// Writing failed earlier: the store takes no more changes until the controller is restarted. Reads go on.
    #[error("the store takes no changes since an earlier error; restart the controller when its cause is gone: {0}")]
    Failed(Arc<BackendError>),
    /// The store could not be opened.
    #[error("{0}")]
    Open(Arc<BackendError>),
    /// A thread of the store could not be started.
    #[error("the store's threads do not start: {0}")]
    Threads(Arc<std::io::Error>),
    /// The store was closed.
    #[error("the store is closed: the controller is shutting down")]
    Closed,
}

impl StoreError {
    /// A stable word for it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "Conflict",
            Self::TooLarge { .. } => "TooLarge",
            Self::DiskFull(_) => "DiskFull",
            Self::Disk(_) => "Disk",
            Self::Failed(_) => "StoreFailed",
            Self::Open(_) | Self::Threads(_) => "StoreUnavailable",
            Self::Closed => "ShuttingDown",
        }
    }
}
