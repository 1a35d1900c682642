//! Workloads to pods, purely: replicas, one pod per node, rollouts, replacement of lost pods, deletion.
//!
//! In: a workload, its pods, the nodes, the time. Out: a [`Plan`]: actions, status counts, when to look again.
//! Not here: where a replicated pod goes (strata-scheduler), restarts of containers (the agent restarts them in place), the store.
//!
//! Invariants (proptested in `tests/invariants.rs`):
//! - A plan is a function of what is seen, so performing half of it and planning again is fine.
//! - Nothing is done about pods on a node whose phase is Unknown: neither replaced nor removed, nor counted as available.
//! - During a rollout there are never more than `replicas + max_surge` pods because of it, and a pod that is available is only
//!   removed while at least `replicas - max_unavailable` others are.
//! - Ordinals only grow.
#![no_std]
extern crate alloc;

mod global;
mod plan;
mod replicated;
mod view;

pub use plan::{Action, CREATES_MAX, Counts, Input, Plan, plan};
