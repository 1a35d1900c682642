//! What is planned with, what is planned, and what all modes have in common.

use crate::{Advance, JobCounts, global, job, ordered, replicated, rollout::advance, view::View};
use alloc::{collections::BTreeSet, vec::Vec};
use strata_model::{Millis, Mode, Node, NodeName, Pod, RevisionName, Uid, Workload, limits::ENDED_PODS_KEPT};

/// Pods created by one plan: bounds the commit. The rest comes with the next one, see [`Plan::more`].
pub const CREATES_MAX: usize = 500;

/// The longest wait before a pod that ended is replaced, milliseconds.
const BACK_OFF_MAX_MS: u64 = 60_000;

/// Everything a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The workload.
    pub workload: &'a Workload,
    /// Every pod of it that is known, ended ones too.
    pub pods: &'a [Pod],
    /// Pods that a newer pod names as its predecessor.
    pub replaced: &'a BTreeSet<Uid>,
    /// Every node.
    pub nodes: &'a [Node],
    /// The time, on the clock of the pods' `created`.
    pub now: Millis,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A new pod.
    Create {
        /// Its number; its name is `<workload>-<ordinal>`.
        ordinal: u64,
        /// The node it is made for; `None`: the scheduler chooses.
        node: Option<NodeName>,
        /// The pod it replaces.
        predecessor: Option<Uid>,
        /// Its template.
        revision: RevisionName,
    },
    /// Stop the pod and remove it with everything it owns.
    Remove {
        /// Which.
        uid: Uid,
    },
}

/// Numbers for the workload's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How many pods are wanted.
    pub desired: u32,
    /// Pods that exist and are not ended.
    pub replicas: u32,
    /// Of these, running and ready on a node that is heard of.
    pub ready: u32,
    /// Of these, of the newest revision.
    pub updated: u32,
    /// Of the ready ones, those that were so long enough.
    pub available: u32,
}

/// What to do about one workload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// For the status, as things are before the actions.
    pub counts: Counts,
    /// The workload's counter after the actions.
    pub next_ordinal: u64,
    /// When to plan again although nothing has changed.
    pub wake: Option<Millis>,
    /// The plan was cut short: plan again as soon as it is performed.
    pub more: bool,
    /// The workload is being deleted and nothing of it is left.
    pub gone: bool,
    /// What becomes of the rollout; `None` where there are none.
    pub rollout: Option<Advance>,
    /// How a job stands.
    pub job: Option<JobCounts>,
}

impl Plan {
    /// Looks again at this time at the latest.
    pub(crate) fn wake(&mut self, at: Millis) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }

    /// Adds the pod of a slot.
    pub(crate) fn create_slot(&mut self, ordinal: u64, revision: RevisionName) {
        self.actions.push(Action::Create { ordinal, node: None, predecessor: None, revision });
        self.next_ordinal = self.next_ordinal.max(ordinal + 1);
    }

    /// Adds a pod, unless the plan is full.
    pub(crate) fn create(&mut self, node: Option<NodeName>, predecessor: Option<Uid>, revision: RevisionName) {
        let created = self.actions.iter().filter(|a| matches!(a, Action::Create { .. })).count();
        if created >= CREATES_MAX {
            self.more = true;
            return;
        }
        self.actions.push(Action::Create { ordinal: self.next_ordinal, node, predecessor, revision });
        self.next_ordinal += 1;
    }

    pub(crate) fn remove(&mut self, pod: &Pod) {
        self.actions.push(Action::Remove { uid: pod.uid.clone() });
    }
}

/// Decides what to do about a workload now.
#[must_use]
pub fn plan(input: Input<'_>) -> Plan {
    let workload = input.workload;
    let highest = input.pods.iter().map(|p| p.ordinal + 1).max().unwrap_or(0);
    let mut plan = Plan { next_ordinal: workload.next_ordinal.max(highest), ..Plan::default() };
    let view = View::of(&input);
    plan.counts = view.counts();
    if workload.deleting {
        view.removable().for_each(|p| plan.remove(p));
        plan.gone = input.pods.is_empty();
        return plan;
    }
    if !matches!(workload.mode, Mode::Job(_) | Mode::Cron) {
        let advance = advance(&input, &view);
        advance.wake.into_iter().for_each(|at| plan.wake(at));
        view.next_available_at().into_iter().for_each(|at| plan.wake(at));
        let turns = advance.revert.is_some();
        plan.rollout = Some(advance);
        if turns {
            // With the old revision the plan is another one.
            plan.more = true;
            return plan;
        }
    }
    match workload.mode {
        Mode::Replicated(replicas) => replicated::plan(&input, &view, replicas, &mut plan),
        Mode::Global => global::plan(&input, &view, &mut plan),
        Mode::Ordered(replicas) => {
            ordered::plan(&input, &view, replicas, &mut plan);
            return plan;
        }
        Mode::Job(policy) => {
            job::plan(&input, &view, policy, &mut plan);
            return plan;
        }
        Mode::Cron => return plan,
    }
    forget_ended(&input, &view, &mut plan);
    plan
}

/// Removes ended pods that are neither wanted as finished ones nor among the last few that are kept for people.
fn forget_ended(input: &Input<'_>, view: &View<'_>, plan: &mut Plan) {
    let mut ended: Vec<&Pod> = view.ended.clone();
    ended.sort_by_key(|p| core::cmp::Reverse(p.ordinal));
    // A pod that was lost or failed and has no successor yet is still needed to name it, while one is wanted.
    let successors: BTreeSet<&Uid> = plan
        .actions
        .iter()
        .filter_map(|a| match a {
            Action::Create { predecessor, .. } => predecessor.as_ref(),
            Action::Remove { .. } => None,
        })
        .collect();
    let excess: Vec<&Pod> = ended.into_iter().skip(ENDED_PODS_KEPT).filter(|p| !successors.contains(&p.uid)).collect();
    for pod in excess {
        plan.remove(pod);
    }
    debug_assert!(plan.next_ordinal >= input.workload.next_ordinal);
}

/// When the next replacement may be made: after pods that ended by themselves, 1 s, 2 s, 4 s … after the newest pod was made.
/// Lost pods are replaced at once. `None`: now.
pub(crate) fn back_off(input: &Input<'_>, view: &View<'_>) -> Option<Millis> {
    let ended = view
        .ended
        .iter()
        .filter(|p| p.phase != strata_model::Phase::Lost && p.template == input.workload.revision)
        .count();
    let power = u32::try_from(ended).unwrap_or(u32::MAX).checked_sub(1)?;
    let newest = input.pods.iter().map(|p| p.created).max()?;
    let at = newest + (1_000u64 << power.min(16)).min(BACK_OFF_MAX_MS);
    (at > input.now).then_some(at)
}
