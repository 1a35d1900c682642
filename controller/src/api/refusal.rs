//! Why a call is refused: a gRPC code, a stable word, a text that says what to do.

use strata_proto::BadObject;
use strata_store::{Key, StoreError};
use tonic::{Code, Status, metadata::MetadataValue};

/// The metadata key of the word.
pub const REASON_KEY: &str = "strata-reason";

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The class of error, as clients act on it.
    pub code: Code,
    /// A stable CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// Makes one.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "Invalid", message)
    }
    pub(super) fn not_found(key: &Key) -> Self {
        Self::new(Code::NotFound, "NotFound", format!("there is no {key}"))
    }
    pub(super) fn precondition(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, reason, message)
    }
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Aborted, "Conflict", message)
    }
    pub(super) fn timed_out(message: impl Into<String>) -> Self {
        Self::new(Code::DeadlineExceeded, "TimedOut", message)
    }
    pub(super) fn overloaded(what: &str) -> Self {
        Self::new(Code::ResourceExhausted, "Overloaded", format!("too many {what} at once: try again in a moment"))
    }
}

impl From<BadObject> for Refusal {
    fn from(bad: BadObject) -> Self {
        Self::invalid(bad.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Conflict { .. } => Code::Aborted,
            StoreError::TooLarge { .. } => Code::InvalidArgument,
            StoreError::DiskFull(_) => Code::ResourceExhausted,
            StoreError::Disk(_) => Code::Internal,
            StoreError::Failed(_) | StoreError::Open(_) | StoreError::Threads(_) | StoreError::Closed => {
                Code::Unavailable
            }
        };
        Self::new(code, error.reason(), error.to_string())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut status = Status::new(refusal.code, refusal.message);
        status.metadata_mut().insert(REASON_KEY, MetadataValue::from_static(refusal.reason));
        status
    }
}
