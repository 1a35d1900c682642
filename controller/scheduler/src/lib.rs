//! Pods to nodes, purely: filters, scores and explanations.
//!
//! In: nodes ([`Scheduler::set_node`]), what their pods occupy ([`Scheduler::add_pod`]), requests. Out: one [`Placement`] a request.
//! Not here: the store, addresses within a node's subnet, replicas, pre-emption.
//!
//! Invariants:
//! - The choice is exact and deterministic: the best of all feasible nodes, never of a sample; ties go to the lower slot.
//! - Nodes are dense slots that are only ever updated where something changed; a batch costs one scan per distinct shape
//!   (same resources, selector, layers, workload) and a logarithm per pod.
//! - The order of scores is strict: spread over nodes, then layer bytes still to be fetched, then packing. So replicas that are at
//!   least as many as the feasible nodes reach every one of them.
//! - What [`Scheduler::place`] answers is already counted as occupied; a caller whose commit fails takes it back with
//!   [`Scheduler::remove_pod`].
#![no_std]
extern crate alloc;

mod explain;
mod filter;
mod nodes;
mod place;
mod score;

pub use explain::{Explanation, Lack};
pub use nodes::Scheduler;
pub use place::Placement;

use alloc::vec::Vec;
use strata_model::{Labels, Layer, NodeName, ObjectName, Resources, Uid};

/// Pods of one node: a bridge takes 1,023 ports, and a few are the node's own.
pub const PODS_PER_NODE_MAX: u32 = 1_000;

/// A pod that looks for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The pod.
    pub uid: Uid,
    /// What makes it like others.
    pub shape: Shape,
}

/// What decides where a pod may go and where it had better go. Equal shapes are placed with one scan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Shape {
    /// What it asks of a node: CPU thousandths, bytes, processes.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Processes.
    pub pids: u32,
    /// Node labels that must be equal.
    pub selector: Labels,
    /// Digests and sizes of what its images need.
    pub layers: Vec<(strata_model::Digest, u64)>,
    /// Pods of one workload are spread over nodes; `None` for a pod applied by hand.
    pub workload: Option<ObjectName>,
    /// The one node it may go to, if it was made for one.
    pub node: Option<NodeName>,
    /// Its volumes that are somewhere already, and where: it goes there.
    pub volumes: Vec<(alloc::string::String, NodeName)>,
}

impl Shape {
    /// The requests as resources.
    #[must_use]
    pub fn resources(&self) -> Resources {
        Resources { cpu_millis: self.cpu_millis, memory_bytes: self.memory_bytes, pids: self.pids }
    }

    /// Sets the requests.
    #[must_use]
    pub fn with_resources(mut self, r: Resources) -> Self {
        self.cpu_millis = r.cpu_millis;
        self.memory_bytes = r.memory_bytes;
        self.pids = r.pids;
        self
    }

    /// Sets the layers, each once.
    #[must_use]
    pub fn with_layers<'a>(mut self, layers: impl Iterator<Item = &'a Layer>) -> Self {
        self.layers = layers.map(|l| (l.diff_id.clone(), l.size_bytes)).collect();
        self.layers.sort();
        self.layers.dedup_by(|a, b| a.0 == b.0);
        self
    }
}

/// A pod that is bound to a node, and what it takes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant {
    /// Where.
    pub node: NodeName,
    /// What is set aside for it; nothing once it has ended (it still counts as a pod: it holds its address).
    pub resources: Resources,
    /// Whose spread it counts in; `None` once it has ended.
    pub workload: Option<ObjectName>,
}
