//! The pods of a workload, sorted by what they mean for a plan.

use crate::{Counts, Input};
use alloc::{collections::BTreeMap, vec::Vec};
use strata_model::{
    Desired, Millis, Mode, Node, NodePhase, OnFailure, Phase, Pod, RestartPolicy, RevisionName, Rollout,
};

/// A pod without a readiness probe serves once it has run for so long: one that ends at once never did.
const SETTLE_MS: Millis = 1_000;
/// The same for a pod whose containers have been restarted: it has to show that it stays.
const SETTLE_AFTER_RESTART_MS: Millis = 10_000;

/// The pods by what they mean.
pub(crate) struct View<'a> {
    /// Exist and are wanted to: neither ended nor being removed. A pod that was stopped on request is one, whatever its phase.
    pub live: Vec<&'a Pod>,
    /// Ended as they should, of the newest revision: their place is taken, for a policy other than Always.
    pub finished: Vec<&'a Pod>,
    /// Ended otherwise: their place is free. Not being removed.
    pub ended: Vec<&'a Pod>,
    input: Input<'a>,
    nodes: BTreeMap<&'a str, &'a Node>,
    /// The wait before a pod that is ready counts as available.
    settle_ms: Millis,
}

impl<'a> View<'a> {
    pub fn of(input: &Input<'a>) -> Self {
        let mut view = Self {
            live: Vec::new(),
            finished: Vec::new(),
            ended: Vec::new(),
            input: *input,
            nodes: input.nodes.iter().map(|n| (n.name.as_str(), n)).collect(),
            settle_ms: settle_ms(input.workload),
        };
        for pod in input.pods.iter().filter(|p| p.desired != Desired::Removed) {
            let stopped = pod.desired == Desired::Stopped && pod.phase != Phase::Lost;
            if stopped || !pod.phase.is_ended() {
                view.live.push(pod);
            } else if view.is_finished(pod) {
                view.finished.push(pod);
            } else {
                view.ended.push(pod);
            }
        }
        view
    }

    fn is_finished(&self, pod: &Pod) -> bool {
        let workload = self.input.workload;
        if matches!(workload.mode, Mode::Job(_)) {
            return pod.phase == Phase::Exited;
        }
        pod.template == workload.revision
            && match workload.template.restart_policy {
                RestartPolicy::Always => false,
                RestartPolicy::OnFailure => pod.phase == Phase::Exited,
                RestartPolicy::Never => pod.phase != Phase::Lost,
            }
    }

    /// Whether the pod's node has not been heard of lately: then nothing may be done about the pod.
    pub fn is_held(&self, pod: &Pod) -> bool {
        !pod.node.is_empty() && self.nodes.get(pod.node.as_str()).is_some_and(|n| n.phase == NodePhase::Unknown)
    }

    /// Whether the pod says that it serves: it is not taken away as if it did not, even if that is not known for long.
    pub fn is_ready(&self, pod: &Pod) -> bool {
        pod.desired == Desired::Run && pod.phase == Phase::Running && pod.ready && !self.is_held(pod)
    }

    /// When a pod that is ready counts as available.
    fn available_at(&self, pod: &Pod) -> Option<Millis> {
        let settle_ms = if pod.restarts > 0 { self.settle_ms.max(SETTLE_AFTER_RESTART_MS) } else { self.settle_ms };
        // Without a time it was ready before anybody counted.
        let at = if pod.ready_since == 0 { 0 } else { pod.ready_since.saturating_add(settle_ms) };
        self.is_ready(pod).then_some(at)
    }

    /// Whether the pod serves, and has done so for long enough.
    pub fn is_available(&self, pod: &Pod) -> bool {
        self.available_at(pod).is_some_and(|at| at <= self.input.now)
    }

    /// When the next pod that is ready becomes available.
    pub fn next_available_at(&self) -> Option<Millis> {
        self.live.iter().filter_map(|p| self.available_at(p)).filter(|at| *at > self.input.now).min()
    }

    /// When the last pod of the newest revision became available.
    pub fn newest_available_at(&self) -> Option<Millis> {
        let new = self.live.iter().filter(|p| self.is_new(p));
        new.filter_map(|p| self.available_at(p)).filter(|at| *at <= self.input.now).max()
    }

    /// Whether every wanted pod is there, of the newest revision and available, and no other is left.
    pub fn is_complete(&self) -> bool {
        let counts = self.counts();
        let finished = u32::try_from(self.finished.len()).unwrap_or(u32::MAX);
        let new = self.live.iter().filter(|p| self.is_new(p) && self.is_available(p)).count();
        let new = u32::try_from(new).unwrap_or(u32::MAX).saturating_add(finished);
        new >= counts.desired && counts.replicas == counts.updated
    }

    /// Whether changes of the template wait: asked for, or because the last one failed and is to stay as it is.
    pub fn is_frozen(&self) -> bool {
        let workload = self.input.workload;
        let state = &workload.rollout;
        let failed = state.rollout == Rollout::Failed && state.failed_generation == workload.generation;
        let pauses = workload.update.on_failure == OnFailure::Pause;
        (workload.paused || workload.stopped || (failed && pauses))
            && state.last_complete_but(&workload.revision).is_some()
    }

    /// The revision of pods that are made now.
    pub fn revision_to_make(&self) -> &'a RevisionName {
        let workload = self.input.workload;
        match workload.rollout.last_complete_but(&workload.revision) {
            Some(last) if self.is_frozen() && !self.is_settled_revision() => &last.name,
            _ => &workload.revision,
        }
    }

    /// Whether the newest revision was complete once: then nothing of it waits.
    fn is_settled_revision(&self) -> bool {
        let workload = self.input.workload;
        workload.rollout.record(&workload.revision).is_some_and(|r| r.complete)
    }

    /// Whether the pod's node is drained.
    pub fn is_leaving(&self, pod: &Pod) -> bool {
        self.nodes.get(pod.node.as_str()).is_some_and(|n| n.draining)
    }

    /// Whether a pod that has to be gone before its successor comes may leave a node that is drained: another node would take it.
    pub fn can_move(&self, pod: &Pod) -> bool {
        self.is_leaving(pod) && self.input.workload.volume_templates.is_empty() && self.targets().next().is_some()
    }

    /// Whether the pod is of the newest revision.
    pub fn is_new(&self, pod: &Pod) -> bool {
        pod.template == self.input.workload.revision
    }

    /// Pods that are not being removed yet.
    pub fn removable(&self) -> impl Iterator<Item = &'a Pod> {
        self.input.pods.iter().filter(|p| p.desired != Desired::Removed)
    }

    /// Nodes that should have one pod of a global workload now.
    pub fn targets(&self) -> impl Iterator<Item = &'a Node> {
        let selector = &self.input.workload.template.node_selector;
        self.input.nodes.iter().filter(move |n| {
            n.phase == NodePhase::Ready && !n.unschedulable && selector.iter().all(|(k, v)| n.labels.get(k) == Some(v))
        })
    }

    pub fn counts(&self) -> Counts {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let live = self.live.iter();
        Counts {
            desired: match self.input.workload.mode {
                _ if self.input.workload.deleting => 0,
                Mode::Replicated(n) | Mode::Ordered(n) => n,
                Mode::Global => count(self.targets().count()),
                Mode::Job(job) => job.parallelism.min(job.completions.saturating_sub(count(self.finished.len()))),
                Mode::Cron => 0,
            },
            replicas: count(self.live.len()),
            ready: count(live.clone().filter(|p| self.is_ready(p)).count()),
            available: count(live.clone().filter(|p| self.is_available(p)).count()),
            updated: count(live.filter(|p| self.is_new(p) && !self.input.workload.revision.is_empty()).count()),
        }
    }
}

/// The wait before a pod of this workload that is ready counts as available.
fn settle_ms(workload: &strata_model::Workload) -> Millis {
    let containers = &workload.template.containers;
    let asked = !containers.is_empty() && containers.iter().all(|c| c.probes.readiness.is_some());
    if asked { workload.update.min_ready_ms } else { workload.update.min_ready_ms.max(SETTLE_MS) }
}
