//! Workloads: pod templates that are kept running.

use crate::{Millis, ObjectName, PodTemplate, RevisionName, Uid};

/// A pod template with how many of it should run, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Unique for its life.
    pub uid: Uid,
    /// Namespace and name.
    pub name: ObjectName,
    /// Grows with each change of the spec.
    pub generation: u64,
    /// How many, where.
    pub mode: Mode,
    /// What.
    pub template: PodTemplate,
    /// How a change is rolled out.
    pub update: UpdatePolicy,
    /// The newest template revision; empty until its images are resolved.
    pub revision: RevisionName,
    /// The number of the next pod; only grows.
    pub next_ordinal: u64,
    /// It is being deleted: its pods go first.
    pub deleting: bool,
    /// When it was made, on the controller's clock.
    pub created: Millis,
}

/// How many pods, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// This many, anywhere.
    Replicated(u32),
    /// One on every node that matches.
    Global,
}

/// How a change is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdatePolicy {
    /// Pods above the wanted number while an update runs.
    pub max_surge: u32,
    /// Pods below it. Never both 0.
    pub max_unavailable: u32,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self { max_surge: 1, max_unavailable: 0 }
    }
}
