//! Probes of one container's present run: when each is due, and what its answers mean.

use crate::{ExitFact, ObservedContainer, Run};
use alloc::{format, string::String, vec::Vec};
use strata_model::{ContainerName, Millis, Probe, ProbeKind, Probes};

/// Reason of a container that is stopped because its liveness probe failed.
pub const LIVENESS_FAILED: &str = "LivenessFailed";
/// Reason of a container that is stopped because its startup probe failed.
pub const STARTUP_FAILED: &str = "StartupFailed";
/// Reason of a running container that is not ready because a probe says so.
pub const UNREADY: &str = "Unready";

/// A probe that is to be made now. Its answer is a [`crate::Fact::Probed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueProbe {
    /// Which container.
    pub container: ContainerName,
    /// Which probe.
    pub kind: ProbeKind,
    /// The run it asks, by its process: an answer about an earlier one means nothing.
    pub pid: u32,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Good or bad.
    pub good: bool,
    /// What was seen, for people.
    pub message: String,
}

/// What the probes of one run have found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probing {
    /// The startup probe has succeeded.
    pub started_up: bool,
    /// The readiness probe has succeeded and has not failed since.
    pub serving: bool,
    /// A probe has failed: the container is to be stopped.
    pub condemned: Option<Condemned>,
    pub(crate) startup: Track,
    pub(crate) readiness: Track,
    pub(crate) liveness: Track,
}

/// Why a container is to be stopped although it should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// [`LIVENESS_FAILED`] or [`STARTUP_FAILED`].
    pub reason: String,
    /// With the last answer.
    pub message: String,
}

/// The course of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Track {
    under_way: bool,
    begun_at: Option<Millis>,
    good: u32,
    bad: u32,
    last_bad: String,
}

impl Probing {
    /// What is known again after a restart of the agent; the counting begins anew.
    #[must_use]
    pub fn restored(started_up: bool, serving: bool, condemned: Option<Condemned>) -> Self {
        Self { started_up, serving, condemned, ..Self::default() }
    }

    fn track(&mut self, kind: ProbeKind) -> &mut Track {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Readiness => &mut self.readiness,
            ProbeKind::Liveness => &mut self.liveness,
        }
    }

    pub(crate) fn begin(&mut self, kind: ProbeKind, now: Millis) {
        let track = self.track(kind);
        track.under_way = true;
        track.begun_at = Some(now);
    }

    pub(crate) fn answer(&mut self, kind: ProbeKind, probe: &Probe, answer: Answer) {
        let track = self.track(kind);
        track.under_way = false;
        if answer.good {
            (track.good, track.bad) = (track.good.saturating_add(1), 0);
            track.last_bad.clear();
            if track.good >= probe.success_threshold {
                match kind {
                    ProbeKind::Startup => self.started_up = true,
                    ProbeKind::Readiness => self.serving = true,
                    ProbeKind::Liveness => {}
                }
            }
            return;
        }
        (track.good, track.bad) = (0, track.bad.saturating_add(1));
        track.last_bad.clone_from(&answer.message);
        if track.bad < probe.failure_threshold {
            return;
        }
        let bad = track.bad;
        let condemn = |reason: &str| {
            let times = if bad == 1 { String::new() } else { format!(" {bad} times in a row") };
            let message = format!("its {} probe failed{times}: {}", kind.word(), answer.message);
            Some(Condemned { reason: reason.into(), message })
        };
        match kind {
            ProbeKind::Readiness => self.serving = false,
            ProbeKind::Startup => self.condemned = condemn(STARTUP_FAILED),
            ProbeKind::Liveness => self.condemned = condemn(LIVENESS_FAILED),
        }
    }
}

/// The probes of a container that are due, and when the next one is.
pub(crate) fn due(probes: &Probes, c: &ObservedContainer, now: Millis) -> (Vec<DueProbe>, Option<Millis>) {
    let Run::Running { pid, since } = c.run else { return (Vec::new(), None) };
    if c.probing.condemned.is_some() || c.signalled_at.is_some() {
        return (Vec::new(), None);
    }
    let kinds: &[ProbeKind] = match (&probes.startup, c.probing.started_up) {
        (Some(_), false) => &[ProbeKind::Startup],
        _ => &[ProbeKind::Readiness, ProbeKind::Liveness],
    };
    let (mut found, mut wake) = (Vec::new(), None::<Millis>);
    for kind in kinds {
        let Some(probe) = probes.get(*kind) else { continue };
        let track = match kind {
            ProbeKind::Startup => &c.probing.startup,
            ProbeKind::Readiness => &c.probing.readiness,
            ProbeKind::Liveness => &c.probing.liveness,
        };
        if track.under_way {
            continue;
        }
        let seconds = |s: u32| Millis::from(s) * 1000;
        let at = match track.begun_at {
            None => since.saturating_add(seconds(probe.initial_delay_s)),
            Some(begun) => begun.saturating_add(seconds(probe.period_s)),
        };
        if at <= now {
            found.push(DueProbe { container: c.name.clone(), kind: *kind, pid });
        } else {
            wake = Some(wake.map_or(at, |w| w.min(at)));
        }
    }
    (found, wake)
}

/// Whether a running container serves.
pub(crate) fn is_ready(probes: &Probes, c: &ObservedContainer) -> bool {
    c.is_running()
        && c.probing.condemned.is_none()
        && (probes.startup.is_none() || c.probing.started_up)
        && (probes.readiness.is_none() || c.probing.serving)
}

/// Why a running container does not serve, once a probe has said so.
pub(crate) fn why_unready(probes: &Probes, c: &ObservedContainer) -> Option<(String, String)> {
    if let Some(condemned) = &c.probing.condemned {
        return Some((condemned.reason.clone(), condemned.message.clone()));
    }
    let (kind, track) = match (&probes.startup, c.probing.started_up) {
        (Some(_), false) => (ProbeKind::Startup, &c.probing.startup),
        _ => (ProbeKind::Readiness, &c.probing.readiness),
    };
    (!is_ready(probes, c) && !track.last_bad.is_empty())
        .then(|| (UNREADY.into(), format!("its {} probe fails: {}", kind.word(), track.last_bad)))
}

impl ExitFact {
    /// Whether the end counts as success: code 0, and not because a probe had failed.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == 0 && self.reason != LIVENESS_FAILED && self.reason != STARTUP_FAILED
    }
}
