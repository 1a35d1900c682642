//! What happened to a pod: results of steps and events. The only way an [`Observed`] changes.

use crate::{
    Answer, Assigned, ExitFact, Failure, Images, Observed, Probing, Run, Sandbox,
    backoff::RUN_RESETS_BACKOFF_MS,
    observed::{Ended, ObservedContainer},
    status::status,
};
use alloc::{string::String, vec::Vec};
use strata_model::{ContainerName, Millis, Phase, ProbeKind};

/// Exit code of a process that SIGKILL ended.
const KILLED: i32 = 137;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Every image of the pod is on the node.
    ImagesReady,
    /// One is not: a stable word and a sentence.
    ImagesFailed(String, String),
    /// The sandbox is there.
    SandboxReady,
    /// It could not be made.
    SandboxFailed(String, String),
    /// It died, and with it every container.
    SandboxGone,
    /// It was removed on purpose.
    SandboxRemoved,
    /// A new attempt has begun (in the ledger, too).
    AttemptBegun,
    /// A container's process executes.
    Started {
        /// Which.
        container: ContainerName,
        /// On the host.
        pid: u32,
        /// Unix milliseconds.
        started_unix_ms: u64,
    },
    /// A container could not be started; counts as an exit.
    StartFailed {
        /// Which.
        container: ContainerName,
        /// Code 126, 127 or 128; reason `StartError`.
        exit: ExitFact,
    },
    /// A container's process ended.
    Exited {
        /// Which.
        container: ContainerName,
        /// How.
        exit: ExitFact,
    },
    /// The stop signal was sent (or there was nobody to send it to).
    Signalled(ContainerName),
    /// The kill was sent.
    Killed(ContainerName),
    /// A probe is under way.
    ProbeBegun {
        /// Which.
        container: ContainerName,
        /// Which of its probes.
        kind: ProbeKind,
    },
    /// What a probe found.
    Probed {
        /// Which.
        container: ContainerName,
        /// Which of its probes.
        kind: ProbeKind,
        /// The process that was asked.
        pid: u32,
        /// Good or bad.
        answer: Answer,
    },
    /// Somebody asked for a restart of a container.
    RestartAsked {
        /// Which.
        container: ContainerName,
        /// Between stop signal and kill.
        grace_ms: Millis,
    },
    /// The attempt is over.
    AttemptEnded(Ended),
    /// Nothing of the pod is left on the node.
    PodRemoved,
    /// Found at the agent's start, in a living sandbox: a running container.
    FoundRunning {
        /// Which.
        container: ContainerName,
        /// On the host.
        pid: u32,
        /// Unix milliseconds, 0 if unknown.
        started_unix_ms: u64,
    },
    /// Found at the agent's start: an end that was not noted yet, of a run that may not have been noted either.
    FoundExited {
        /// Which.
        container: ContainerName,
        /// How; its time tells a new end from one that was noted.
        exit: ExitFact,
    },
}

impl Observed {
    /// Takes in one fact. `now` as in [`crate::plan`].
    pub fn record(&mut self, assigned: &Assigned, fact: Fact, now: Millis) {
        self.take_in(assigned, fact, now);
        self.look(assigned, now);
    }

    /// Remembers how far the pod has come, before its status is told: what was told is never taken back, whatever is wanted next.
    pub fn look(&mut self, assigned: &Assigned, now: Millis) {
        self.reached = status(assigned, self, now).phase;
    }

    fn take_in(&mut self, assigned: &Assigned, fact: Fact, now: Millis) {
        match fact {
            Fact::ImagesReady => self.images = Images::Ready,
            Fact::ImagesFailed(reason, message) => {
                let count = if let Images::Failed(f) = &self.images { f.count.saturating_add(1) } else { 1 };
                self.images = Images::Failed(Failure { reason, message, at: now, count });
            }
            Fact::SandboxReady => {
                self.sandbox = Sandbox::Ready { since: now };
                self.sandbox_used = true;
            }
            Fact::SandboxFailed(reason, message) => {
                self.sandbox_failures = self.sandbox_failures.saturating_add(1);
                self.sandbox = Sandbox::Failed(Failure { reason, message, at: now, count: self.sandbox_failures });
            }
            Fact::SandboxGone => {
                if let Sandbox::Ready { since } = self.sandbox
                    && now.saturating_sub(since) >= RUN_RESETS_BACKOFF_MS
                {
                    self.sandbox_failures = 0;
                }
                self.sandbox_failures = self.sandbox_failures.saturating_add(1);
                self.sandbox = Sandbox::Dead { at: now };
                self.end_running(now, "SandboxDied", "the pod's sandbox died, and its containers with it");
            }
            Fact::SandboxRemoved => {
                self.sandbox = Sandbox::Absent { since: now };
                self.end_running(now, "Error", "killed with its sandbox");
            }
            Fact::AttemptBegun => self.begin_attempt(),
            Fact::Started { container, pid, started_unix_ms } => {
                if let Some(c) = self.container_mut(&container) {
                    c.count_start();
                    c.run = Run::Running { pid, since: now };
                    c.started_unix_ms = started_unix_ms;
                    c.signalled_at = None;
                    c.killed_at = None;
                    c.probing = Probing::default();
                    c.restart = None;
                }
            }
            Fact::StartFailed { container, exit } => {
                // The next try looks at the images again: a layer may have been taken away.
                self.images = Images::Unknown;
                if let Some(c) = self.container_mut(&container) {
                    c.count_start();
                    c.restart = None;
                    c.end(exit, 0, now);
                }
            }
            Fact::Exited { container, exit } => {
                // An end is told on each new connection until it is acknowledged: the one that was noted already is not this run's.
                if let Some(c) = self.container_mut(&container)
                    && let Run::Running { since, .. } = c.run
                    && !c.last_exit.as_ref().is_some_and(|e| e.is_same_end(&exit))
                {
                    c.end(exit, now.saturating_sub(since), now);
                }
            }
            Fact::Signalled(container) => {
                if let Some(c) = self.container_mut(&container) {
                    c.signalled_at = Some(now);
                }
            }
            Fact::Killed(container) => {
                if let Some(c) = self.container_mut(&container) {
                    c.killed_at = Some(now);
                }
            }
            Fact::ProbeBegun { container, kind } => {
                if let Some(c) = self.container_mut(&container) {
                    c.probing.begin(kind, now);
                }
            }
            Fact::Probed { container, kind, pid, answer } => {
                if let Some(c) = self.container_mut(&container)
                    && matches!(c.run, Run::Running { pid: now, .. } if now == pid)
                    && let Some(probe) = assigned.probes_of(&container).get(kind)
                {
                    c.probing.answer(kind, probe, answer);
                }
            }
            Fact::RestartAsked { container, grace_ms } => {
                if let Some(c) = self.container_mut(&container) {
                    c.restart = Some(grace_ms);
                }
            }
            Fact::AttemptEnded(ended) => self.ended = Some(ended),
            Fact::PodRemoved => {
                self.sandbox = Sandbox::Absent { since: now };
                self.gone = true;
                if self.ended.is_none() {
                    self.ended = Some(Ended { phase: Phase::Exited, stopped: true });
                }
            }
            Fact::FoundRunning { container, pid, started_unix_ms } => {
                if self.container_mut(&container).is_none() {
                    self.containers.push(ObservedContainer::new(container.clone()));
                }
                if let Some(c) = self.container_mut(&container) {
                    // The agent may have died between the start and its note of it.
                    if !c.is_running() {
                        c.count_start();
                        c.probing = Probing::default();
                    }
                    let since = if let Run::Running { since, .. } = c.run { since } else { now };
                    c.run = Run::Running { pid, since };
                    if started_unix_ms > 0 {
                        c.started_unix_ms = started_unix_ms;
                    }
                }
            }
            Fact::FoundExited { container, exit } => {
                if let Some(c) = self.container_mut(&container) {
                    if let Run::Running { since, .. } = c.run {
                        c.end(exit, now.saturating_sub(since), now);
                    } else if c.last_exit.as_ref().is_none_or(|e| e.finished_unix_ms < exit.finished_unix_ms) {
                        c.count_start();
                        c.started_unix_ms = exit.finished_unix_ms;
                        c.end(exit, 0, now);
                    }
                }
            }
        }
    }

    fn end_running(&mut self, now: Millis, reason: &str, message: &str) {
        for c in &mut self.containers {
            if let Run::Running { since, .. } = c.run {
                let exit =
                    ExitFact { code: KILLED, reason: reason.into(), message: message.into(), finished_unix_ms: 0 };
                c.end(exit, now.saturating_sub(since), now);
            }
        }
    }

    /// A stop on request forgets what ended before it; a sandbox that died does not make a finished container run again.
    fn begin_attempt(&mut self) {
        let stopped = self.ended.as_ref().is_some_and(|e| e.stopped);
        self.attempt = self.attempt.saturating_add(1);
        self.ended = None;
        self.reached = Phase::Pending;
        self.sandbox_used = false;
        let fresh: Vec<ObservedContainer> = self.containers.drain(..).map(|c| c.for_new_attempt(stopped)).collect();
        self.containers = fresh;
    }
}
