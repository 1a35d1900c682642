//! Where the rollout of the newest revision is: begun, coming forward, complete, failed, taken back.

use crate::{Input, view::View};
use alloc::{
    format,
    string::{String, ToString as _},
};
use strata_model::{Millis, OnFailure, Pod, Revision, RevisionName, Rollout, RolloutState, limits::HISTORY_MAX};

/// What becomes of a workload's rollout now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// To be remembered.
    pub state: RolloutState,
    /// The revision the workload goes back to.
    pub revert: Option<RevisionName>,
    /// The reason's word and a sentence, when the rollout has failed just now.
    pub failure: Option<String>,
    /// When to look again although nothing has happened.
    pub(crate) wake: Option<Millis>,
}

/// Reason of a workload whose rollout has failed.
pub const ROLLOUT_FAILED: &str = "RolloutFailed";

pub(crate) fn advance(input: &Input<'_>, view: &View<'_>) -> Advance {
    let workload = input.workload;
    let mut next = Advance { state: workload.rollout.clone(), revert: None, failure: None, wake: None };
    let state = &mut next.state;
    let failed_now = state.failed_generation == workload.generation;
    let complete = state.record(&workload.revision).is_some_and(|r| r.complete);
    if state.rollout == Rollout::Reverted && failed_now && complete {
        return next;
    }
    // Its images cannot be had: there is no revision of this generation yet.
    let unresolved = workload.waits_for_images && !failed_now;
    if (workload.revision.is_empty() || workload.observed_generation < workload.generation) && !unresolved {
        return next;
    }
    if !unresolved {
        if state.history.last().is_none_or(|r| r.name != workload.revision) {
            begin(state, &workload.revision, &workload.cause, input.now);
        }
        if state.record(&workload.revision).is_some_and(|r| r.complete) {
            state.rollout = Rollout::Complete;
            return next;
        }
    }
    if workload.paused || workload.stopped {
        state.rollout = Rollout::Paused;
        return next;
    }
    let goes_on = state.rollout == Rollout::Progressing || (state.rollout == Rollout::Failed && failed_now);
    if !goes_on {
        state.rollout = Rollout::Progressing;
        state.progressed = input.now;
    }
    if !unresolved && view.is_complete() {
        state.rollout = Rollout::Complete;
        if let Some(record) = state.history.last_mut() {
            record.complete = true;
        }
        return next;
    }
    if state.rollout == Rollout::Failed {
        return next;
    }
    state.progressed = view.newest_available_at().map_or(state.progressed, |at| at.max(state.progressed));
    let deadline = state.progressed.saturating_add(workload.update.progress_deadline_ms);
    if input.now < deadline {
        next.wake = Some(deadline);
        return next;
    }
    fail(next, input, view, unresolved)
}

/// A new revision becomes the newest of the history; one that was there before moves up.
fn begin(state: &mut RolloutState, name: &RevisionName, cause: &str, now: Millis) {
    let number = state.history.iter().map(|r| r.number).max().unwrap_or(0) + 1;
    let before = state.history.iter().position(|r| r.name == *name).map(|i| state.history.remove(i));
    let cause = if cause.is_empty() { before.map(|r| r.cause).unwrap_or_default() } else { cause.to_string() };
    state.history.push(Revision { number, name: name.clone(), created: now, cause, complete: false });
    while state.history.len() > HISTORY_MAX {
        // What one would go back to stays.
        let kept = state.last_complete_but(name).map(|r| r.number);
        let Some(oldest) = state.history.iter().position(|r| Some(r.number) != kept) else { break };
        state.history.remove(oldest);
    }
    state.rollout = Rollout::Progressing;
    state.progressed = now;
}

fn fail(mut next: Advance, input: &Input<'_>, view: &View<'_>, unresolved: bool) -> Advance {
    let workload = input.workload;
    let state = &mut next.state;
    state.failed_generation = workload.generation;
    let newest = state.history.last().filter(|_| !unresolved);
    let what = newest.map_or_else(|| "the new template".to_string(), |r| format!("revision {}", r.number));
    let seconds = workload.update.progress_deadline_ms / 1000;
    let why = if unresolved { workload.message.clone() } else { why(view) };
    let why = if why.is_empty() { why } else { format!(": {why}") };
    // Without a revision of its own the last one never went.
    let target = match newest {
        Some(newest) => state.last_complete_but(&newest.name).cloned(),
        None => state.history.iter().rev().find(|r| r.complete).cloned(),
    };
    let (rollout, then) = match (workload.update.on_failure, target) {
        (OnFailure::Revert, Some(target)) => {
            next.revert = Some(target.name);
            (Rollout::Reverted, format!("back at revision {}", target.number))
        }
        (OnFailure::Revert, None) => (Rollout::Failed, "there is no revision that was complete to go back to".into()),
        (OnFailure::Pause, _) => (Rollout::Failed, "it stays as it is (update.onFailure is Pause)".into()),
    };
    state.rollout = rollout;
    next.failure = Some(format!("{what} made no progress for {seconds} s{why}; {then}"));
    next
}

/// The trouble of the newest revision's pods, in the words of the first that has some.
fn why(view: &View<'_>) -> String {
    let newest = |p: &&&Pod| view.is_new(p);
    let told = |p: &&&Pod| !p.reason.is_empty();
    let say = |p: &&Pod| {
        let colon = if p.message.is_empty() { "" } else { ": " };
        format!("{} is {}: {}{colon}{}", p.name.name, p.phase.word(), p.reason, p.message)
    };
    let live = view.live.iter().filter(newest).filter(|p| !p.ready).find(told);
    let ended = || view.ended.iter().filter(newest).find(told);
    live.or_else(ended).map(say).unwrap_or_default()
}
