//! Conversions between wire types and the model: into the model by `TryFrom` (it rejects), out by `From` (it cannot fail).

mod node;
mod pod;
mod probe;
mod service;
mod storage;
mod template;
mod workload;

use strata_model::Invalid;

/// Why a wire object is not a valid model object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct BadObject {
    /// Where in the object, as in `spec.template.containers[0].image`.
    pub path: String,
    /// What is wrong and what to write instead.
    pub why: String,
}

impl BadObject {
    /// Makes the error.
    pub fn new(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into() }
    }

    /// The same error, seen from one level up.
    #[must_use]
    pub fn below(mut self, parent: &str) -> Self {
        self.path = if self.path.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.path) };
        self
    }
}

impl From<Invalid> for BadObject {
    fn from(invalid: Invalid) -> Self {
        Self::new("", invalid.to_string())
    }
}

/// Unix milliseconds as a protobuf timestamp.
#[must_use]
pub fn timestamp_of_ms(ms: u64) -> pbjson_types::Timestamp {
    pbjson_types::Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    }
}

/// A protobuf timestamp as Unix milliseconds; 0 when absent or before 1970.
#[must_use]
pub fn timestamp_ms(at: Option<&pbjson_types::Timestamp>) -> u64 {
    at.and_then(|t| {
        let seconds = u64::try_from(t.seconds).ok()?;
        Some(seconds.saturating_mul(1000) + u64::try_from(t.nanos).unwrap_or(0) / 1_000_000)
    })
    .unwrap_or(0)
}

/// The present time.
#[must_use]
pub fn timestamp_now() -> pbjson_types::Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    timestamp_of_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
