//! Workloads to pods, purely: replicas, slots, one pod per node, jobs, rollouts and their way back, replacement of lost pods, deletion.
//!
//! In: a workload, its pods, the nodes, the time. Out: a [`Plan`]: actions, status counts, what is to be remembered of the rollout, when to
//! look again. Not here: where a replicated pod goes (strata-scheduler), restarts of containers (the agent restarts them in place), the store.
//!
//! Invariants (proptested in `tests/invariants.rs`):
//! - A plan is a function of what is seen, so performing half of it and planning again is fine.
//! - Nothing is done about pods on a node whose phase is Unknown: neither replaced nor removed, nor counted as available.
//! - During a rollout there are never more than `replicas + max_surge` pods because of it, and a pod that is available is only
//!   removed while at least `replicas - max_unavailable` others are.
//! - A pod on a node that is drained is removed only when another one serves in its place.
//! - Ordinals only grow, but for slots: of a slot there is one pod at a time.
#![no_std]
extern crate alloc;

pub mod cron;
mod global;
mod job;
mod ordered;
mod plan;
mod replicated;
mod rollout;
mod view;

pub use job::{JOB_COMPLETE, JOB_FAILED, JobCounts, JobEnd, words};
pub use plan::{Action, CREATES_MAX, Counts, Input, Plan, plan};
pub use rollout::{Advance, ROLLOUT_FAILED};
