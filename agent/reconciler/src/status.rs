//! What is told of a pod.

use crate::{
    Assigned, Images, Observed, ObservedContainer, Run, Sandbox,
    plan::{is_done, start_at},
    probe::{is_ready, why_unready},
};
use alloc::{format, string::String};
use strata_model::{ContainerState, ContainerStatus, Desired, Exit, Millis, Phase, PodStatus, REASON_STOPPED};

/// The pod's status. Its `(attempt, phase)` never goes back from one fact to the next.
#[must_use]
pub fn status(assigned: &Assigned, observed: &Observed, now: Millis) -> PodStatus {
    let phase = match observed.ended {
        Some(ended) => ended.phase,
        None => phase(assigned, observed).max(observed.reached),
    };
    let (mut reason, mut message) = trouble(assigned, observed);
    let containers =
        observed.containers.iter().map(|c| container(assigned, observed, c, now)).collect::<alloc::vec::Vec<_>>();
    if reason.is_empty()
        && let Some(c) = containers.iter().find(|c: &&ContainerStatus| !c.ready && is_bad(&c.reason))
    {
        reason.clone_from(&c.reason);
        message = format!("container {}: {}", c.name, c.message);
    }
    let ready = phase == Phase::Running && containers.iter().all(|c| c.ready);
    PodStatus { phase, ready, reason, message, attempt: observed.attempt, containers }
}

fn is_bad(reason: &str) -> bool {
    !reason.is_empty() && reason != "Completed"
}

fn phase(assigned: &Assigned, observed: &Observed) -> Phase {
    if assigned.desired != Desired::Run {
        return Phase::Stopping;
    }
    if !matches!(observed.sandbox, Sandbox::Ready { .. }) {
        return Phase::Preparing;
    }
    let started = |c: &ObservedContainer| match c.run {
        Run::NotStarted => false,
        Run::Running { .. } => true,
        // A failed start is no start, unless it is never tried again.
        Run::Ended { .. } => c.started_unix_ms > 0 || is_done(assigned.restart_policy, c),
    };
    if observed.containers.iter().all(started) { Phase::Running } else { Phase::Starting }
}

/// Reason and message of what holds the whole pod up.
fn trouble(assigned: &Assigned, observed: &Observed) -> (String, String) {
    match observed.ended {
        Some(ended) if ended.stopped && assigned.desired != Desired::Removed => {
            return (REASON_STOPPED.into(), "stopped on request: `ctl start` runs it again".into());
        }
        Some(_) => return (String::new(), String::new()),
        None => {}
    }
    let failure = match (&observed.images, &observed.sandbox) {
        (Images::Failed(f), _) | (_, Sandbox::Failed(f)) => f,
        _ => return (String::new(), String::new()),
    };
    (failure.reason.clone(), failure.message.clone())
}

fn container(assigned: &Assigned, observed: &Observed, c: &ObservedContainer, now: Millis) -> ContainerStatus {
    let last_exit = c.last_exit.as_ref().map(|e| Exit {
        code: e.code,
        reason: e.reason.clone(),
        message: e.message.clone(),
        finished_unix_ms: e.finished_unix_ms,
    });
    let exit_reason = || c.last_exit.as_ref().map_or_else(Default::default, |e| (e.reason.clone(), e.message.clone()));
    let over = observed.ended.is_some() || assigned.desired != Desired::Run;
    let (state, (reason, message)) = match c.run {
        Run::Running { .. } => {
            (ContainerState::Running, why_unready(assigned.probes_of(&c.name), c).unwrap_or_default())
        }
        Run::Ended { .. } if over || is_done(assigned.restart_policy, c) => (ContainerState::Exited, exit_reason()),
        Run::Ended { .. } => {
            let (reason, mut text) = exit_reason();
            if let Some(at) = start_at(assigned.restart_policy, c).filter(|at| *at > now) {
                let wait_s = (at - now).div_ceil(1000);
                let gap = if text.is_empty() { "" } else { "; " };
                text = format!("{text}{gap}starts again within {wait_s} s (failed {} times in a row)", c.failures);
            }
            (ContainerState::Waiting, (reason, text))
        }
        Run::NotStarted if over => (ContainerState::Exited, Default::default()),
        Run::NotStarted => (ContainerState::Waiting, trouble(assigned, observed)),
    };
    ContainerStatus {
        name: c.name.clone(),
        state,
        ready: is_ready(assigned.probes_of(&c.name), c),
        restarts: c.restarts,
        reason,
        message,
        last_exit,
        pid: if let Run::Running { pid, .. } = c.run { pid } else { 0 },
        started_unix_ms: c.started_unix_ms,
    }
}
