//! How a workload gets from one template revision to the next, and what is remembered of it.

use crate::{Millis, RevisionName};
use alloc::{string::String, vec::Vec};

/// How a change is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdatePolicy {
    /// Pods above the wanted number while an update runs.
    pub max_surge: u32,
    /// Pods below it. Never both 0.
    pub max_unavailable: u32,
    /// A rollout that makes no progress for so long has failed.
    pub progress_deadline_ms: Millis,
    /// A pod counts as available once it was ready for so long.
    pub min_ready_ms: Millis,
    /// What becomes of a rollout that has failed.
    pub on_failure: OnFailure,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            max_surge: 1,
            max_unavailable: 0,
            progress_deadline_ms: Millis::from(crate::limits::PROGRESS_DEADLINE_DEFAULT_S) * 1000,
            min_ready_ms: 0,
            on_failure: OnFailure::Revert,
        }
    }
}

/// What becomes of a rollout that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The last revision that was complete comes back.
    #[default]
    Revert,
    /// All stays as it is.
    Pause,
}

/// Where the rollout of the newest revision is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rollout {
    /// Every pod is of it and available.
    #[default]
    Complete,
    /// On its way.
    Progressing,
    /// Held back on request.
    Paused,
    /// No progress within the deadline; nothing to go back to, or not wanted.
    Failed,
    /// No progress within the deadline: the last complete revision is back.
    Reverted,
}

/// What is remembered of a workload's rollouts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RolloutState {
    /// Newest last.
    pub history: Vec<Revision>,
    /// Of the newest revision.
    pub rollout: Rollout,
    /// When it last came forward.
    pub progressed: Millis,
    /// The generation whose rollout failed.
    pub failed_generation: u64,
}

/// One revision a workload had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// 1, 2, ...
    pub number: u64,
    /// Of the template.
    pub name: RevisionName,
    /// When its rollout began.
    pub created: Millis,
    /// Why, as whoever changed it said.
    pub cause: String,
    /// Its rollout was once complete.
    pub complete: bool,
}

impl RolloutState {
    /// What is remembered of a revision.
    #[must_use]
    pub fn record(&self, name: &RevisionName) -> Option<&Revision> {
        self.history.iter().rev().find(|r| r.name == *name)
    }

    /// The last revision that was complete, other than this one.
    #[must_use]
    pub fn last_complete_but(&self, name: &RevisionName) -> Option<&Revision> {
        self.history.iter().rev().find(|r| r.complete && r.name != *name)
    }
}

/// How a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobPolicy {
    /// Pods that must succeed.
    pub completions: u32,
    /// Pods at once.
    pub parallelism: u32,
    /// Pods that may fail; restarts of containers count, too.
    pub backoff_limit: u32,
    /// 0 = none.
    pub deadline_ms: Millis,
    /// After it finished it is deleted; `None`: kept.
    pub ttl_ms: Option<Millis>,
}

/// When a cron workload runs its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronPolicy {
    /// Five fields or `@daily` ...
    pub schedule: String,
    /// IANA name; "" = UTC.
    pub time_zone: String,
    /// What a run does that finds the one before still running.
    pub concurrency: Concurrency,
    /// No new runs.
    pub suspend: bool,
    /// A run that is later than that is missed; 0 = none.
    pub starting_deadline_ms: Millis,
    /// Finished jobs kept that succeeded.
    pub keep_succeeded: u32,
    /// Finished jobs kept that failed.
    pub keep_failed: u32,
}

/// What a run does that finds the one before still running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Concurrency {
    /// Both run.
    #[default]
    Allow,
    /// It is missed.
    Forbid,
    /// The one before is removed.
    Replace,
}
