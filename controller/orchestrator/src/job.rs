//! Pods that run to their end: so many successes, so many at once, so many failures.

use crate::{Input, Plan, plan::back_off, view::View};
use alloc::{
    format,
    string::{String, ToString as _},
};
use strata_model::{Desired, JobPolicy, Millis, Phase, Pod};

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobCounts {
    /// Pods that ended with exit code 0.
    pub succeeded: u32,
    /// Pods that failed.
    pub failed: u32,
    /// Set once: how the job as a whole ended.
    pub end: Option<JobEnd>,
    /// It finished long enough ago to be deleted.
    pub expired: bool,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// Enough pods succeeded.
    pub complete: bool,
    /// Why not.
    pub message: String,
}

/// Status reason of a job that has succeeded.
pub const JOB_COMPLETE: &str = "Complete";
/// Status reason of a job that has failed.
pub const JOB_FAILED: &str = "Failed";

pub(crate) fn plan(input: &Input<'_>, view: &View<'_>, job: JobPolicy, plan: &mut Plan) {
    let workload = input.workload;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let of = |phase: fn(Phase) -> bool| count(input.pods.iter().filter(|p| phase(p.phase) && !was_stopped(p)).count());
    let mut counts =
        JobCounts { succeeded: of(|p| p == Phase::Exited), failed: of(|p| p == Phase::Failed), ..JobCounts::default() };
    if let Some(finished) = workload.finished {
        // What still runs has no purpose any more.
        view.live.iter().filter(|p| !view.is_held(p)).for_each(|p| plan.remove(p));
        if let Some(at) = job.ttl_ms.map(|ttl| finished.saturating_add(ttl)) {
            counts.expired = at <= input.now;
            if !counts.expired {
                plan.wake(at);
            }
        }
        plan.job = Some(counts);
        return;
    }
    counts.end = end(input, view, job, &counts);
    let deadline = (job.deadline_ms > 0).then(|| workload.created.saturating_add(job.deadline_ms));
    if counts.end.is_none() {
        deadline.into_iter().for_each(|at| plan.wake(at));
        if !workload.revision.is_empty() && !workload.paused && !workload.stopped {
            make_pods(input, view, job, counts.succeeded, plan);
        }
    }
    plan.job = Some(counts);
}

fn end(input: &Input<'_>, view: &View<'_>, job: JobPolicy, counts: &JobCounts) -> Option<JobEnd> {
    if counts.succeeded >= job.completions {
        return Some(JobEnd { complete: true, message: String::new() });
    }
    let failed = |message: String| Some(JobEnd { complete: false, message });
    let restarts: u32 = view.live.iter().map(|p| p.restarts).sum();
    if counts.failed.saturating_add(restarts) > job.backoff_limit {
        let last = input.pods.iter().filter(|p| p.phase == Phase::Failed).max_by_key(|p| p.ordinal);
        let last = last.or_else(|| view.live.iter().copied().max_by_key(|p| p.restarts));
        let why = last.map(|p| format!("; {}: {} {}", p.name.name, p.reason, p.message)).unwrap_or_default();
        let limit = job.backoff_limit;
        return failed(format!(
            "BackoffLimitExceeded: {} pods failed and {restarts} containers were restarted, {limit} may{}",
            counts.failed,
            why.trim_end()
        ));
    }
    let over = job.deadline_ms > 0 && input.now >= input.workload.created.saturating_add(job.deadline_ms);
    if over {
        let seconds: Millis = job.deadline_ms / 1000;
        return failed(format!("DeadlineExceeded: it was not complete within {seconds} s"));
    }
    None
}

fn make_pods(input: &Input<'_>, view: &View<'_>, job: JobPolicy, succeeded: u32, plan: &mut Plan) {
    let live = u32::try_from(view.live.len()).unwrap_or(u32::MAX);
    let wanted = job.parallelism.min(job.completions.saturating_sub(succeeded));
    for pod in view.live.iter().rev().take(live.saturating_sub(wanted) as usize).filter(|p| !view.is_held(p)) {
        plan.remove(pod);
    }
    let missing = wanted.saturating_sub(live);
    if missing == 0 {
        return;
    }
    if let Some(at) = back_off(input, view) {
        plan.wake(at);
        return;
    }
    for _ in 0..missing {
        plan.create(None, None, view.revision_to_make().clone());
    }
}

/// Whether the pod's end was asked for: then it says nothing about the job.
fn was_stopped(pod: &Pod) -> bool {
    pod.desired != Desired::Run
}

/// The reason's word and the message for a job that has ended.
#[must_use]
pub fn words(end: &JobEnd) -> (String, String) {
    let reason = if end.complete { JOB_COMPLETE } else { JOB_FAILED };
    (reason.to_string(), end.message.clone())
}
