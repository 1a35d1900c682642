//! The plan: what to do now, and when to look again if nothing happens before.

use crate::{
    Assigned, DueProbe, Ended, ExitFact, Images, Observed, ObservedContainer, Run, Sandbox, backoff::delay_ms,
    probe::due,
};
use alloc::{vec, vec::Vec};
use strata_model::{ContainerName, Desired, Millis, Phase, RestartPolicy};

/// How long a kill may take before the whole sandbox goes.
pub const KILL_PATIENCE_MS: Millis = 5_000;

/// One thing to do. Each is idempotent: the agent may die in the middle and do it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Begin a new attempt: writes the number down before anything of it exists. -> `AttemptBegun`
    BeginAttempt,
    /// Get every image of the pod. May take minutes; given up when the pod is no longer to run. -> `ImagesReady`, `ImagesFailed`
    EnsureImages,
    /// Make the namespaces, their shim and the pod's address. -> `SandboxReady`, `SandboxFailed`
    MakeSandbox,
    /// Start a container's process. -> `Started`, `StartFailed`
    StartContainer(ContainerName),
    /// Send the stop signal. -> `Signalled`
    Signal(ContainerName),
    /// Kill everything in the container. -> `Killed`
    Kill(ContainerName),
    /// Remove sandbox, namespaces, cgroups; writable layers, logs and the address stay. -> `SandboxRemoved`
    RemoveSandbox,
    /// Write down that the attempt is over. -> `AttemptEnded`
    EndAttempt(Ended),
    /// Remove all that is left, writable layers too; then tell the controller. -> `PodRemoved`
    RemovePod,
}

/// What to do with one pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodPlan {
    /// In order; the first one is performed, then a new plan is made.
    pub steps: Vec<Step>,
    /// If nothing happens before: when to plan again.
    pub wake_at: Option<Millis>,
    /// To be made now, beside the steps.
    pub probes: Vec<DueProbe>,
}

/// Plans for one pod. One that is in no assignment any more is planned for as [`Assigned::unwanted`].
#[must_use]
pub fn plan(assigned: &Assigned, observed: &Observed, now: Millis) -> PodPlan {
    if observed.gone {
        return PodPlan::default();
    }
    let stopping = assigned.desired != Desired::Run || observed.reached == Phase::Stopping;
    if let Some(ended) = observed.ended {
        return plan_ended(assigned, observed, ended);
    }
    if stopping { plan_stop(assigned, observed, now) } else { plan_run(assigned, observed, now) }
}

fn steps(steps: Vec<Step>) -> PodPlan {
    PodPlan { steps, ..PodPlan::default() }
}

fn plan_ended(assigned: &Assigned, observed: &Observed, ended: Ended) -> PodPlan {
    if !matches!(observed.sandbox, Sandbox::Absent { .. }) {
        return steps(vec![Step::RemoveSandbox]);
    }
    match assigned.desired {
        Desired::Removed => steps(vec![Step::RemovePod]),
        Desired::Run if ended.stopped => steps(vec![Step::BeginAttempt]),
        Desired::Run | Desired::Stopped => PodPlan::default(),
    }
}

fn plan_stop(assigned: &Assigned, observed: &Observed, now: Millis) -> PodPlan {
    let mut plan = PodPlan::default();
    let mut patience_over = false;
    let mut running = false;
    for c in observed.containers.iter().filter(|c| c.is_running()) {
        running = true;
        patience_over |= stop_container(assigned.grace_ms, c, now, &mut plan);
    }
    // A sandbox that died or could not be made holds nobody; one whose container does not die of a kill is taken down with it.
    let nobody = !running || !matches!(observed.sandbox, Sandbox::Ready { .. });
    if nobody || (patience_over && plan.steps.is_empty()) {
        return match observed.sandbox {
            Sandbox::Absent { .. } => steps(vec![Step::EndAttempt(Ended { phase: Phase::Exited, stopped: true })]),
            _ => steps(vec![Step::RemoveSandbox]),
        };
    }
    plan
}

/// Signal, grace, kill. True if even the kill has not ended it.
fn stop_container(grace_ms: Millis, c: &ObservedContainer, now: Millis, plan: &mut PodPlan) -> bool {
    match (c.signalled_at, c.killed_at) {
        (None, None) if grace_ms > 0 => plan.steps.push(Step::Signal(c.name.clone())),
        (Some(at), None) if now < at.saturating_add(grace_ms) => wake(plan, at.saturating_add(grace_ms)),
        (_, None) => plan.steps.push(Step::Kill(c.name.clone())),
        (_, Some(at)) if now < at.saturating_add(KILL_PATIENCE_MS) => wake(plan, at.saturating_add(KILL_PATIENCE_MS)),
        (_, Some(_)) => return true,
    }
    false
}

fn plan_run(assigned: &Assigned, observed: &Observed, now: Millis) -> PodPlan {
    if observed.containers.iter().all(|c| is_done(assigned.restart_policy, c)) {
        let ok = observed.containers.iter().all(|c| c.last_exit.as_ref().is_some_and(ExitFact::is_success));
        let phase = if ok { Phase::Exited } else { Phase::Failed };
        return steps(vec![Step::EndAttempt(Ended { phase, stopped: false })]);
    }
    match &observed.sandbox {
        Sandbox::Dead { .. } => return steps(vec![Step::RemoveSandbox]),
        Sandbox::Absent { .. } if observed.sandbox_used => return steps(vec![Step::BeginAttempt]),
        Sandbox::Absent { since } => {
            return prepare(observed, since.saturating_add(delay_ms(observed.sandbox_failures)), now);
        }
        Sandbox::Failed(f) => return prepare(observed, f.at.saturating_add(delay_ms(f.count)), now),
        Sandbox::Ready { .. } => {}
    }
    let mut starts = PodPlan::default();
    for c in &observed.containers {
        match start_at(assigned.restart_policy, c) {
            Some(at) if at <= now => starts.steps.push(Step::StartContainer(c.name.clone())),
            Some(at) => wake(&mut starts, at),
            None => {}
        }
    }
    let mut plan = if starts.steps.is_empty() { starts } else { with_images(observed, starts, now) };
    let mut ends = PodPlan::default();
    for c in &observed.containers {
        if c.is_running() && (c.probing.condemned.is_some() || c.restart.is_some()) {
            if stop_container(c.restart.unwrap_or(assigned.grace_ms), c, now, &mut ends) {
                return steps(vec![Step::RemoveSandbox]);
            }
            continue;
        }
        let (probes, next) = due(assigned.probes_of(&c.name), c, now);
        plan.probes.extend(probes);
        next.into_iter().for_each(|at| wake(&mut plan, at));
    }
    // What has failed, or is to be restarted, goes before anything new comes.
    ends.steps.append(&mut plan.steps);
    plan.steps = ends.steps;
    ends.wake_at.into_iter().for_each(|at| wake(&mut plan, at));
    plan
}

fn prepare(observed: &Observed, sandbox_at: Millis, now: Millis) -> PodPlan {
    let plan = if sandbox_at <= now {
        steps(vec![Step::MakeSandbox])
    } else {
        PodPlan { wake_at: Some(sandbox_at), ..PodPlan::default() }
    };
    with_images(observed, plan, now)
}

/// Puts the images before everything that needs them; holds it back while they cannot be had.
fn with_images(observed: &Observed, mut plan: PodPlan, now: Millis) -> PodPlan {
    match &observed.images {
        Images::Ready => plan,
        Images::Unknown => {
            plan.steps.insert(0, Step::EnsureImages);
            plan
        }
        Images::Failed(f) => {
            let at = f.at.saturating_add(delay_ms(f.count));
            if at <= now {
                plan.steps.insert(0, Step::EnsureImages);
            } else {
                plan.steps.clear();
                wake(&mut plan, at);
            }
            plan
        }
    }
}

/// Whether a container has ended for good in this attempt.
pub(crate) fn is_done(policy: RestartPolicy, c: &ObservedContainer) -> bool {
    matches!(c.run, Run::Ended { .. })
        && c.restart.is_none()
        && match policy {
            RestartPolicy::Always => false,
            RestartPolicy::OnFailure => c.last_exit.as_ref().is_some_and(ExitFact::is_success),
            RestartPolicy::Never => true,
        }
}

/// When a container that does not run is to be started.
pub(crate) fn start_at(policy: RestartPolicy, c: &ObservedContainer) -> Option<Millis> {
    match c.run {
        Run::Running { .. } => None,
        Run::NotStarted => Some(0),
        Run::Ended { .. } if c.restart.is_some() => Some(0),
        Run::Ended { .. } if is_done(policy, c) => None,
        Run::Ended { at } => Some(at.saturating_add(delay_ms(c.failures))),
    }
}

fn wake(plan: &mut PodPlan, at: Millis) {
    plan.wake_at = Some(plan.wake_at.map_or(at, |w| w.min(at)));
}
