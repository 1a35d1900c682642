//! Workloads: pod templates that are kept running.

use crate::{CronPolicy, JobPolicy, Millis, ObjectName, PodTemplate, RevisionName, RolloutState, Uid, UpdatePolicy};
use alloc::{
    format,
    string::{String, ToString as _},
    vec::Vec,
};

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
    /// What was done so far to get from one revision to the next.
    pub rollout: RolloutState,
    /// Changes of the template wait.
    pub paused: bool,
    /// Its pods are stopped and stay where they are.
    pub stopped: bool,
    /// The generation whose template the newest revision is.
    pub observed_generation: u64,
    /// The newest template has no revision yet, and `message` says why.
    pub waits_for_images: bool,
    /// What the status says.
    pub message: String,
    /// Why the template was changed last, as whoever did it said.
    pub cause: String,
    /// Of a cron workload.
    pub cron: Option<CronPolicy>,
    /// Of a cron workload: the newest run that was looked at.
    pub last_scheduled: Millis,
    /// Of a job: when it ended.
    pub finished: Option<Millis>,
    /// Of an ordered one: a volume for each of its slots.
    pub volume_templates: Vec<VolumeTemplate>,
}

/// A volume for each slot of an ordered workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeTemplate {
    /// Mounts name it.
    pub name: String,
    /// Asked for.
    pub size_bytes: u64,
}

impl VolumeTemplate {
    /// What the pod template of a workload calls its slot's volume: [`slot_volume`] makes it the name of one.
    #[must_use]
    pub fn source(&self, workload: &str) -> String {
        format!("{}-{workload}-{SLOT}", self.name)
    }
}

/// Stands for a pod's ordinal in the name of a volume; no name of an object has such characters.
const SLOT: &str = "{slot}";

/// The volume that a pod with this ordinal means by a name in its template.
#[must_use]
pub fn slot_volume(name: &str, ordinal: u64) -> String {
    name.replace(SLOT, &ordinal.to_string())
}

/// How many pods, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// This many, anywhere.
    Replicated(u32),
    /// This many, anywhere; their names are slots that are made and removed one after another.
    Ordered(u32),
    /// One on every node that matches.
    Global,
    /// Until enough have succeeded.
    Job(JobPolicy),
    /// None itself: a job at each time of [`Workload::cron`].
    Cron,
}
