//! What the store counts of itself, for whoever shows it.

use strata_telemetry::metrics::{Counter, Histogram};

/// Counted since the store was opened.
#[derive(Debug)]
pub struct Meters {
    /// Commits that were made.
    pub done: Counter,
    /// Commits refused because a condition did not hold.
    pub conflicts: Counter,
    /// Commits that the disk prevented.
    pub failed: Counter,
    /// From a commit's call to its answer, of those that were made.
    pub commit_seconds: Histogram,
    /// Commits that were made durable together.
    pub group_commits: Histogram,
    /// Writing a group to the log and syncing it.
    pub sync_seconds: Histogram,
    /// Bytes written to the log.
    pub written_bytes: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            done: Counter::default(),
            conflicts: Counter::default(),
            failed: Counter::default(),
            commit_seconds: Histogram::latencies(),
            group_commits: Histogram::sizes(),
            sync_seconds: Histogram::latencies(),
            written_bytes: Counter::default(),
        }
    }
}
