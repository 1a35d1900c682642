//! What one connection of a node was sent, and what to send it next.

use crate::{Assignment, AssignmentSet};
use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};
use strata_model::{RevisionName, Uid};

/// Frames that may wait for their acknowledgement. A node that is further behind is sent nothing more until it has
/// acknowledged, and then the whole truth.
pub const FRAMES_MAX: usize = 8;

/// What to send to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The whole truth: pods that are not in it go.
    Full {
        /// The set's generation.
        generation: u64,
        /// All pods.
        pods: Vec<Assignment>,
        /// Templates that this session has not been sent yet.
        templates: Vec<RevisionName>,
    },
    /// What changed since `base`, which is what was sent before.
    Delta {
        /// The generation it applies to.
        base: u64,
        /// The generation it leads to.
        generation: u64,
        /// New or changed pods.
        pods: Vec<Assignment>,
        /// Forgotten pods.
        removed: Vec<Uid>,
        /// Templates that this session has not been sent yet.
        templates: Vec<RevisionName>,
    },
    /// The node has it all, or has to acknowledge first.
    Nothing,
}

/// One connection of a node.
#[derive(Debug, Clone, Default)]
pub struct Session {
    sent: Option<u64>,
    /// Generations sent and not acknowledged, oldest first.
    waiting: VecDeque<u64>,
    acknowledged: Option<u64>,
    resync: bool,
    templates: BTreeSet<RevisionName>,
}

impl Session {
    /// A connection that was sent nothing yet: its first frame is a full one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides what to send next and counts it as sent: a caller that cannot send it calls [`Session::resync`].
    pub fn frame(&mut self, set: &AssignmentSet) -> Frame {
        let generation = set.generation();
        if self.sent == Some(generation) && !self.resync {
            return Frame::Nothing;
        }
        if self.waiting.len() >= FRAMES_MAX {
            self.resync = true;
            return Frame::Nothing;
        }
        let delta = self.sent.filter(|_| !self.resync).and_then(|base| {
            set.since(base).map(|(pods, removed)| (base, pods.cloned().collect::<Vec<_>>(), removed.cloned().collect()))
        });
        self.resync = false;
        self.sent = Some(generation);
        self.waiting.push_back(generation);
        match delta {
            Some((base, pods, removed)) => {
                let templates = self.new_templates(&pods);
                Frame::Delta { base, generation, pods, removed, templates }
            }
            None => {
                let pods: Vec<Assignment> = set.pods().cloned().collect();
                let templates = self.new_templates(&pods);
                Frame::Full { generation, pods, templates }
            }
        }
    }

    /// The node has everything up to this generation in its ledger.
    pub fn acknowledge(&mut self, generation: u64) {
        while self.waiting.front().is_some_and(|g| *g <= generation) {
            self.waiting.pop_front();
        }
        self.acknowledged = self.acknowledged.max(Some(generation));
    }

    /// The newest generation that the node has in its ledger.
    #[must_use]
    pub fn acknowledged(&self) -> Option<u64> {
        self.acknowledged
    }

    /// A frame did not fit, or could not be sent: the next one is full and carries its templates again.
    pub fn resync(&mut self) {
        self.resync = true;
        self.waiting.clear();
        self.templates.clear();
    }

    fn new_templates(&mut self, pods: &[Assignment]) -> Vec<RevisionName> {
        let mut new = Vec::new();
        for pod in pods {
            if self.templates.insert(pod.template.clone()) {
                new.push(pod.template.clone());
            }
        }
        new
    }
}
