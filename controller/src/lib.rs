//! The controller: keeps what should run, decides where, tells the nodes, and hears from them.
//!
//! - [`sessions`]: the agents' streams (strata.dispatch.v1): assignments down, status up.
//! - [`loops`]: level-triggered control loops between the store and the pure crates: images, orchestrate, schedule, dispatch, nodes,
//!   removal, cleanup. Each observes a snapshot, plans, commits, waits; an event only wakes it.
//! - [`api`]: what people, tools and joining nodes ask (strata.cluster.v1), and the cluster's certificates.
//! - [`metrics`]: what Prometheus asks; [`meters`] and [`requests`]: what is counted for it.
//! - [`config`], [`serve`], [`restore`]: settings; starting all of it on one port and ending it in order; a backup's way back.
//!
//! Not here: placement, rollout and framing decisions (strata-scheduler, -orchestrator, -dispatcher); what is on disk (strata-store).
//!
//! Invariants:
//! - Every change of an object is conditional on the revision it was read at: a stale loop does nothing.
//! - Desired state is durable before any node hears of it. Observed status is not logged, except for what is final.
//! - After a start nothing is replaced for a node before it has synced again or its lease has ended.

pub mod api;
pub mod config;
pub mod control;
pub mod edit;
pub mod loops;
pub mod meters;
pub mod metrics;
pub mod objects;
pub mod requests;
pub mod restore;
pub mod secrets;
pub mod serve;
pub mod sessions;
mod trace;
