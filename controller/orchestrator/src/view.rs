//! The pods of a workload, sorted by what they mean for a plan.

use crate::{Counts, Input};
use alloc::{collections::BTreeMap, vec::Vec};
use strata_model::{Desired, Mode, Node, NodePhase, Phase, Pod, RestartPolicy};

/// The pods by what they mean.
pub(crate) struct View<'a> {
    /// Exist and are wanted to: neither ended nor being removed. A pod that was stopped on request is one, whatever its phase.
    pub live: Vec<&'a Pod>,
    /// Ended as they should, of the newest revision: their place is taken, for a policy other than Always.
    pub finished: Vec<&'a Pod>,
    /// Ended otherwise: their place is free. Not being removed.
    pub ended: Vec<&'a Pod>,
    input: Input<'a>,
    phases: BTreeMap<&'a str, NodePhase>,
}

impl<'a> View<'a> {
    pub fn of(input: &Input<'a>) -> Self {
        let mut view = Self {
            live: Vec::new(),
            finished: Vec::new(),
            ended: Vec::new(),
            input: *input,
            phases: input.nodes.iter().map(|n| (n.name.as_str(), n.phase)).collect(),
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
        pod.template == workload.revision
            && match workload.template.restart_policy {
                RestartPolicy::Always => false,
                RestartPolicy::OnFailure => pod.phase == Phase::Exited,
                RestartPolicy::Never => pod.phase != Phase::Lost,
            }
    }

    /// Whether the pod's node has not been heard of lately: then nothing may be done about the pod.
    pub fn is_held(&self, pod: &Pod) -> bool {
        !pod.node.is_empty() && self.phases.get(pod.node.as_str()).is_some_and(|p| *p == NodePhase::Unknown)
    }

    /// Whether the pod serves.
    pub fn is_available(&self, pod: &Pod) -> bool {
        pod.desired == Desired::Run && pod.phase == Phase::Running && pod.ready && !self.is_held(pod)
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
                Mode::Replicated(n) => n,
                Mode::Global => count(self.targets().count()),
            },
            replicas: count(self.live.len()),
            ready: count(live.clone().filter(|p| self.is_available(p)).count()),
            updated: count(live.filter(|p| self.is_new(p) && !self.input.workload.revision.is_empty()).count()),
        }
    }
}
