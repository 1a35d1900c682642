//! What is known of one pod on this node.

use crate::{Assigned, Probing, backoff::RUN_RESETS_BACKOFF_MS};
use alloc::{string::String, vec::Vec};
use strata_model::{ContainerName, Millis, Phase};

/// Everything known of one pod. Made anew or from the ledger's record, changed only by [`Observed::record`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Grows when the whole sandbox is made anew.
    pub attempt: u32,
    /// The furthest phase reported in this attempt.
    pub reached: Phase,
    /// Of all containers together.
    pub images: Images,
    /// The process that holds the pod's namespaces.
    pub sandbox: Sandbox,
    /// A sandbox was there in this attempt: the next one belongs to a new attempt.
    pub sandbox_used: bool,
    /// Failures and deaths of it in a row.
    pub sandbox_failures: u32,
    /// In the template's order.
    pub containers: Vec<ObservedContainer>,
    /// The attempt is over.
    pub ended: Option<Ended>,
    /// Nothing is left on the node.
    pub gone: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Exited or Failed.
    pub phase: Phase,
    /// On request: running again is a new attempt, not a contradiction.
    pub stopped: bool,
}

/// A failure that is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Stable word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When.
    pub at: Millis,
    /// In a row, from 1.
    pub count: u32,
}

/// The images of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Images {
    /// Not looked at since the agent started or a start failed.
    #[default]
    Unknown,
    /// All there.
    Ready,
    /// One is missing.
    Failed(Failure),
}

/// The sandbox of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandbox {
    /// None.
    Absent {
        /// When it was removed, or 0.
        since: Millis,
    },
    /// There, its shim answers.
    Ready {
        /// When it was made.
        since: Millis,
    },
    /// Could not be made.
    Failed(Failure),
    /// Died; what it left is still to be cleared away.
    Dead {
        /// When.
        at: Millis,
    },
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedContainer {
    /// Its name.
    pub name: ContainerName,
    /// Its process.
    pub run: Run,
    /// Starts and failed starts in this attempt.
    pub starts: u32,
    /// Over all attempts: starts after the first of an attempt.
    pub restarts: u32,
    /// Ends in a row without a long run between them.
    pub failures: u32,
    /// Of the last run.
    pub last_exit: Option<ExitFact>,
    /// Of the last start, Unix milliseconds.
    pub started_unix_ms: u64,
    /// The stop signal was sent to this run.
    pub signalled_at: Option<Millis>,
    /// The kill was sent to this run.
    pub killed_at: Option<Millis>,
    /// What the probes of this run have found.
    pub probing: Probing,
    /// Somebody asked for a restart: the run is stopped with this grace and the next begins at once, whatever the policy says.
    pub restart: Option<Millis>,
}

/// The process of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// None in this attempt yet.
    NotStarted,
    /// Runs.
    Running {
        /// On the host.
        pid: u32,
        /// When it started.
        since: Millis,
    },
    /// Ended, or could not be started.
    Ended {
        /// When.
        at: Millis,
    },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitFact {
    /// 128+N for a signal.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `SandboxDied`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When, Unix milliseconds.
    pub finished_unix_ms: u64,
}

impl ExitFact {
    /// Whether both are of one process: told twice.
    pub(crate) fn is_same_end(&self, other: &Self) -> bool {
        self.finished_unix_ms != 0 && self.finished_unix_ms == other.finished_unix_ms && self.code == other.code
    }
}

impl Observed {
    /// A pod of which nothing is on the node yet.
    #[must_use]
    pub fn new(assigned: &Assigned) -> Self {
        Self {
            attempt: 0,
            reached: Phase::Assigned,
            images: Images::Unknown,
            sandbox: Sandbox::Absent { since: 0 },
            sandbox_used: false,
            sandbox_failures: 0,
            containers: assigned.containers.iter().cloned().map(ObservedContainer::new).collect(),
            ended: None,
            gone: false,
        }
    }

    /// The container of this name.
    #[must_use]
    pub fn container(&self, name: &ContainerName) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| c.name == *name)
    }

    pub(crate) fn container_mut(&mut self, name: &ContainerName) -> Option<&mut ObservedContainer> {
        self.containers.iter_mut().find(|c| c.name == *name)
    }
}

impl ObservedContainer {
    /// One that has not been started.
    #[must_use]
    pub fn new(name: ContainerName) -> Self {
        Self {
            name,
            run: Run::NotStarted,
            starts: 0,
            restarts: 0,
            failures: 0,
            last_exit: None,
            started_unix_ms: 0,
            signalled_at: None,
            killed_at: None,
            probing: Probing::default(),
            restart: None,
        }
    }

    /// Whether its process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.run, Run::Running { .. })
    }

    pub(crate) fn count_start(&mut self) {
        if self.starts > 0 {
            self.restarts = self.restarts.saturating_add(1);
        }
        self.starts = self.starts.saturating_add(1);
    }

    /// A run that was to be stopped because of a probe tells that as its reason.
    pub(crate) fn end(&mut self, mut exit: ExitFact, ran_ms: Millis, now: Millis) {
        if let Some(condemned) = core::mem::take(&mut self.probing).condemned {
            exit.reason = condemned.reason;
            exit.message = condemned.message;
        }
        if ran_ms >= RUN_RESETS_BACKOFF_MS {
            self.failures = 0;
        }
        // An end that was asked for is no failure.
        if self.restart.is_none() {
            self.failures = self.failures.saturating_add(1);
        }
        self.last_exit = Some(exit);
        self.run = Run::Ended { at: now };
    }

    pub(crate) fn for_new_attempt(self, all_anew: bool) -> Self {
        let done = !all_anew
            && self.last_exit.as_ref().is_some_and(ExitFact::is_success)
            && matches!(self.run, Run::Ended { .. });
        if done {
            self
        } else {
            let fresh = Self::new(self.name.clone());
            Self { restarts: self.restarts, failures: self.failures, last_exit: self.last_exit, ..fresh }
        }
    }
}
