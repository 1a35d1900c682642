//! Slots 0 to N-1 that are made one after another, each once the one before is ready, and removed in reverse.
//!
//! A slot's pod always has the same name: the record of the old one is gone before the new one is made.

use crate::{Input, Plan, plan::back_off, view::View};
use alloc::vec::Vec;
use strata_model::{Desired, Phase, Pod};

pub(crate) fn plan(input: &Input<'_>, view: &View<'_>, replicas: u32, plan: &mut Plan) {
    let wanted = u64::from(replicas);
    if remove_beyond(input, view, wanted, plan) || input.workload.revision.is_empty() || input.workload.stopped {
        return;
    }
    let slot = |n: u64| input.pods.iter().find(|p| p.ordinal == n);
    let mut all_available = true;
    for n in 0..wanted {
        match slot(n) {
            None => {
                let failed = back_off(input, view);
                match failed {
                    Some(at) => plan.wake(at),
                    None => plan.create_slot(n, view.revision_to_make().clone()),
                }
                return;
            }
            // Its record has to go before the next one of the name comes.
            Some(pod) if pod.desired == Desired::Removed => return,
            Some(pod) if has_ended(pod) => {
                if pod.phase == Phase::Lost || back_off(input, view).is_none() {
                    plan.remove(pod);
                } else {
                    back_off(input, view).into_iter().for_each(|at| plan.wake(at));
                }
                return;
            }
            Some(pod) if !view.is_available(pod) => {
                all_available = false;
                // One that cannot come up must not keep its own repair away.
                if is_old(view, pod) && !view.is_held(pod) && !view.is_ready(pod) {
                    plan.remove(pod);
                    return;
                }
                // Those behind it that were never made wait; what is there is looked at for an update below.
                if (n + 1..wanted).any(|m| slot(m).is_none_or(|p| p.desired == Desired::Removed || has_ended(p))) {
                    return;
                }
            }
            Some(_) => {}
        }
    }
    if !all_available {
        return;
    }
    let old = (0..wanted).rev().filter_map(slot).find(|p| is_old(view, p) && !view.is_held(p));
    if let Some(pod) = old {
        plan.remove(pod);
        return;
    }
    if let Some(pod) = (0..wanted).rev().filter_map(slot).find(|p| view.can_move(p) && !view.is_held(p)) {
        plan.remove(pod);
    }
}

/// Whether the pod is to be replaced by one of the newest revision.
fn is_old(view: &View<'_>, pod: &Pod) -> bool {
    !view.is_frozen() && !view.is_new(pod)
}

fn has_ended(pod: &Pod) -> bool {
    pod.phase.is_ended() && (pod.desired != Desired::Stopped || pod.phase == Phase::Lost)
}

/// Removes the highest slot beyond the wanted ones. True while there is one.
fn remove_beyond(input: &Input<'_>, view: &View<'_>, wanted: u64, plan: &mut Plan) -> bool {
    let mut beyond: Vec<&Pod> = input.pods.iter().filter(|p| p.ordinal >= wanted).collect();
    beyond.sort_by_key(|p| core::cmp::Reverse(p.ordinal));
    let Some(highest) = beyond.first() else { return false };
    if highest.desired != Desired::Removed && !view.is_held(highest) {
        plan.remove(highest);
    }
    true
}
