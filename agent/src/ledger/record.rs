//! What the node itself knows of a pod, as a file: JSON, so that people can read it.

use serde::{Deserialize, Serialize};
use strata_model::{ContainerName, Phase};
use strata_reconciler::{Condemned, Ended, ExitFact, Images, Observed, ObservedContainer, Probing, Run, Sandbox};

/// `STATE/pods/<uid>/record.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of the boot in which it was written: pids and times of another one mean nothing.
    pub boot_id: String,
    attempt: u32,
    reached: String,
    sandbox_since_ms: Option<u64>,
    sandbox_used: bool,
    sandbox_failures: u32,
    ended: Option<EndedFile>,
    containers: Vec<ContainerFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EndedFile {
    failed: bool,
    stopped: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ContainerFile {
    name: String,
    run: RunFile,
    starts: u32,
    restarts: u32,
    failures: u32,
    last_exit: Option<ExitFile>,
    started_unix_ms: u64,
    signalled_at_ms: Option<u64>,
    killed_at_ms: Option<u64>,
    #[serde(default)]
    started_up: bool,
    #[serde(default)]
    serving: bool,
    #[serde(default)]
    condemned: Option<CondemnedFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restart_grace_ms: Option<u64>,
}

/// A probe has failed: the container is to be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CondemnedFile {
    reason: String,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RunFile {
    NotStarted,
    Running { pid: u32, since_ms: u64 },
    Ended { at_ms: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ExitFile {
    code: i32,
    reason: String,
    message: String,
    finished_unix_ms: u64,
}

const PHASES: [Phase; 9] = [
    Phase::Pending,
    Phase::Assigned,
    Phase::Preparing,
    Phase::Starting,
    Phase::Running,
    Phase::Stopping,
    Phase::Exited,
    Phase::Failed,
    Phase::Lost,
];

impl Record {
    /// What is worth keeping of what was observed: everything but the images, which are looked at again.
    #[must_use]
    pub fn new(boot_id: &str, o: &Observed) -> Self {
        Self {
            boot_id: boot_id.to_owned(),
            attempt: o.attempt,
            reached: o.reached.word().to_owned(),
            sandbox_since_ms: if let Sandbox::Ready { since } = o.sandbox { Some(since) } else { None },
            sandbox_used: o.sandbox_used,
            sandbox_failures: o.sandbox_failures,
            ended: o.ended.map(|e| EndedFile { failed: e.phase == Phase::Failed, stopped: e.stopped }),
            containers: o.containers.iter().map(ContainerFile::from).collect(),
        }
    }

    /// Back. A dead sandbox reads as absent but used: what it left is cleared away by whoever makes the next.
    #[must_use]
    pub fn observed(&self) -> Observed {
        Observed {
            attempt: self.attempt,
            reached: PHASES.into_iter().find(|p| p.word() == self.reached).unwrap_or(Phase::Assigned),
            images: Images::Unknown,
            sandbox: self.sandbox_since_ms.map_or(Sandbox::Absent { since: 0 }, |since| Sandbox::Ready { since }),
            sandbox_used: self.sandbox_used,
            sandbox_failures: self.sandbox_failures,
            containers: self.containers.iter().map(ObservedContainer::from).collect(),
            ended: self
                .ended
                .as_ref()
                .map(|e| Ended { phase: if e.failed { Phase::Failed } else { Phase::Exited }, stopped: e.stopped }),
            gone: false,
        }
    }

    /// The same after a reboot: nothing runs, and times of the old clock are forgotten.
    #[must_use]
    pub fn observed_after_reboot(&self, now: u64) -> Observed {
        let mut o = self.observed();
        o.sandbox_failures = 0;
        if let Sandbox::Ready { since } = &mut o.sandbox {
            *since = now;
        }
        for c in &mut o.containers {
            c.failures = 0;
            c.signalled_at = None;
            c.killed_at = None;
            match &mut c.run {
                Run::Running { since, .. } => *since = now,
                Run::Ended { at } => *at = now,
                Run::NotStarted => {}
            }
        }
        o
    }
}

impl From<&ObservedContainer> for ContainerFile {
    fn from(c: &ObservedContainer) -> Self {
        Self {
            name: c.name.to_string(),
            run: match c.run {
                Run::NotStarted => RunFile::NotStarted,
                Run::Running { pid, since } => RunFile::Running { pid, since_ms: since },
                Run::Ended { at } => RunFile::Ended { at_ms: at },
            },
            starts: c.starts,
            restarts: c.restarts,
            failures: c.failures,
            last_exit: c.last_exit.as_ref().map(|e| ExitFile {
                code: e.code,
                reason: e.reason.clone(),
                message: e.message.clone(),
                finished_unix_ms: e.finished_unix_ms,
            }),
            started_unix_ms: c.started_unix_ms,
            signalled_at_ms: c.signalled_at,
            killed_at_ms: c.killed_at,
            started_up: c.probing.started_up,
            serving: c.probing.serving,
            condemned: c
                .probing
                .condemned
                .as_ref()
                .map(|c| CondemnedFile { reason: c.reason.clone(), message: c.message.clone() }),
            restart_grace_ms: c.restart,
        }
    }
}

impl From<&ContainerFile> for ObservedContainer {
    fn from(c: &ContainerFile) -> Self {
        Self {
            name: ContainerName::from_trusted(c.name.clone()),
            run: match c.run {
                RunFile::NotStarted => Run::NotStarted,
                RunFile::Running { pid, since_ms } => Run::Running { pid, since: since_ms },
                RunFile::Ended { at_ms } => Run::Ended { at: at_ms },
            },
            starts: c.starts,
            restarts: c.restarts,
            failures: c.failures,
            last_exit: c.last_exit.as_ref().map(|e| ExitFact {
                code: e.code,
                reason: e.reason.clone(),
                message: e.message.clone(),
                finished_unix_ms: e.finished_unix_ms,
            }),
            started_unix_ms: c.started_unix_ms,
            signalled_at: c.signalled_at_ms,
            killed_at: c.killed_at_ms,
            probing: Probing::restored(
                c.started_up,
                c.serving,
                c.condemned.as_ref().map(|c| Condemned { reason: c.reason.clone(), message: c.message.clone() }),
            ),
            restart: c.restart_grace_ms,
        }
    }
}
