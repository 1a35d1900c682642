//! A number of pods, anywhere; and the way from one revision to the next.

use crate::{Input, Plan, plan::back_off, view::View};
use alloc::{collections::BTreeMap, vec::Vec};
use core::cmp::Reverse;
use strata_model::{Desired, Phase, Pod};

pub(crate) fn plan(input: &Input<'_>, view: &View<'_>, replicas: u32, plan: &mut Plan) {
    if input.workload.revision.is_empty() {
        return;
    }
    let wanted = replicas as usize;
    // What is to go: of another revision, unless changes wait; or on a node that is drained.
    let outdated = |p: &Pod| !view.is_frozen() && !view.is_new(p);
    let (old, new): (Vec<&Pod>, Vec<&Pod>) = view.live.iter().partition(|p| outdated(p) || view.is_leaving(p));
    let policy = input.workload.update;
    // A drain alone takes nothing away before its successor serves.
    let drains = !old.is_empty() && !old.iter().any(|p| outdated(p));
    let (max_surge, max_unavailable) =
        if drains { (policy.max_surge.max(1), 0) } else { (policy.max_surge, policy.max_unavailable) };
    let new_places = new.len() + view.finished.len();
    // Pods that serve may go only while enough others do. A finished pod serves as much as it ever will.
    let min_available = wanted.saturating_sub(max_unavailable as usize);
    let available = view.live.iter().filter(|p| view.is_available(p)).count() + view.finished.len();
    let mut spare = available.saturating_sub(min_available);
    let removed_new = remove_excess(view, &new, new_places.saturating_sub(wanted), &mut spare, plan);
    let new_places = new_places - removed_new;
    let unavailable_new = new.iter().filter(|p| !view.is_available(p)).count().saturating_sub(removed_new);
    // New pods that are still coming up keep as many old ones alive, as in Kubernetes.
    let may_remove = (new_places + old.len()).saturating_sub(min_available + unavailable_new);
    let removed_old = remove_old(view, &old, may_remove, &mut spare, plan);
    // All at once without a surge: the old ones are gone before the first new one comes.
    let all_at_once = max_surge == 0 && max_unavailable as usize >= wanted;
    if all_at_once && (!old.is_empty() || input.pods.iter().any(|p| is_going(view, p))) {
        return;
    }
    let surge = if old.len() > removed_old { max_surge as usize } else { 0 };
    let total = new_places + old.len() - removed_old;
    let missing = (wanted + surge).saturating_sub(total).min(wanted.saturating_sub(new_places));
    create_missing(input, view, missing, plan);
}

/// Whether the pod is of an older revision and on its way out.
fn is_going(view: &View<'_>, pod: &Pod) -> bool {
    pod.desired == Desired::Removed && !view.is_new(pod)
}

/// Makes new pods; those that follow a lost or failed one name it.
fn create_missing(input: &Input<'_>, view: &View<'_>, missing: usize, plan: &mut Plan) {
    let mut lost: Vec<&Pod> = view.ended.iter().copied().filter(|p| !input.replaced.contains(&p.uid)).collect();
    lost.sort_by_key(|p| (p.phase != Phase::Lost, p.ordinal));
    let mut lost = lost.into_iter();
    // The back-off is for pods that ended by themselves: what is missing beyond them is made now.
    let wait = back_off(input, view);
    for _ in 0..missing {
        let predecessor = lost.next();
        if let (Some(pod), Some(at)) = (predecessor, wait)
            && pod.phase != Phase::Lost
        {
            plan.wake(at);
            break;
        }
        plan.create(None, predecessor.map(|p| p.uid.clone()), view.revision_to_make().clone());
    }
}

/// Removes pods of the newest revision that are too many: those that do not serve first, then where the most are together,
/// then the newest. Answers how many.
fn remove_excess(view: &View<'_>, new: &[&Pod], excess: usize, spare: &mut usize, plan: &mut Plan) -> usize {
    let mut crowd: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in new {
        *crowd.entry(pod.node.as_str()).or_default() += 1;
    }
    let mut candidates: Vec<&Pod> = new.iter().copied().filter(|p| !view.is_held(p)).collect();
    for removed in 0..excess {
        let key = |p: &Pod| {
            let together = if p.node.is_empty() { 0 } else { crowd.get(p.node.as_str()).copied().unwrap_or(0) };
            (view.is_ready(p), Reverse(together), Reverse(p.ordinal))
        };
        let Some(i) = (0..candidates.len()).min_by_key(|i| key(candidates[*i])) else { return removed };
        let pod = candidates.swap_remove(i);
        if view.is_ready(pod) {
            if *spare == 0 {
                return removed;
            }
            *spare -= 1;
        }
        if let Some(n) = crowd.get_mut(pod.node.as_str()) {
            *n -= 1;
        }
        plan.remove(pod);
    }
    excess
}

/// Removes up to `may_remove` pods of older revisions, those that do not serve first. Answers how many.
fn remove_old(view: &View<'_>, old: &[&Pod], may_remove: usize, spare: &mut usize, plan: &mut Plan) -> usize {
    let mut candidates: Vec<&Pod> = old.iter().copied().filter(|p| !view.is_held(p)).collect();
    candidates.sort_by_key(|p| (view.is_ready(p), p.ordinal));
    for (removed, pod) in candidates.iter().take(may_remove).enumerate() {
        if view.is_ready(pod) {
            if *spare == 0 {
                return removed;
            }
            *spare -= 1;
        }
        plan.remove(pod);
    }
    candidates.len().min(may_remove)
}
