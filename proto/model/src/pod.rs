//! Pods: the unit of placement, thin.

use crate::{ContainerName, ContainerState, Desired, Millis, NodeName, ObjectName, Phase, RevisionName, Uid};
use alloc::{string::String, vec::Vec};

/// A pod as the controller and a node know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Unique for its life.
    pub uid: Uid,
    /// Namespace and name.
    pub name: ObjectName,
    /// The workload it belongs to, in its namespace; "" = applied by hand.
    pub workload: String,
    /// Its number within the workload.
    pub ordinal: u64,
    /// What runs in it; empty until its images are resolved.
    pub template: RevisionName,
    /// Where; empty until it is bound, then for life.
    pub node: NodeName,
    /// Its place in the node's subnet; 0 = none yet.
    pub address_index: u32,
    /// What should become of it.
    pub desired: Desired,
    /// What was last heard of it.
    pub phase: Phase,
    /// Ready to serve.
    pub ready: bool,
    /// Since when it is ready, on the controller's clock; 0 = not, or long ago.
    pub ready_since: Millis,
    /// Starts of its containers after the first.
    pub restarts: u32,
    /// One word, "" when all is well.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it was made, on the controller's clock.
    pub created: Millis,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// 128+N for a signal.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When, Unix milliseconds.
    pub finished_unix_ms: u64,
}

/// What one container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its name within the pod.
    pub name: ContainerName,
    /// What it does now.
    pub state: ContainerState,
    /// It runs and its probes say that it serves.
    pub ready: bool,
    /// Starts after the first.
    pub restarts: u32,
    /// Of the present state; keeps the last exit's reason while a restart waits.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The last exit, if any.
    pub last_exit: Option<Exit>,
    /// Host pid, 0 when not running.
    pub pid: u32,
    /// When it last started, Unix milliseconds.
    pub started_unix_ms: u64,
}

/// What a node observed of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodStatus {
    /// Where it is in its life.
    pub phase: Phase,
    /// Ready to serve.
    pub ready: bool,
    /// One word, "" when all is well.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Grows when the whole sandbox is made anew.
    pub attempt: u32,
    /// In the template's order.
    pub containers: Vec<ContainerStatus>,
}
