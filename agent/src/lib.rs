//! The agent: makes one node match its assignments.
//!
//! In: frames of assignments over the [`session`]; requests of the controller over the [`node_api`]. Out: containers, and what is
//! observed of them. The loop is the same everywhere: observe, plan ([`strata_reconciler`]), perform (through [`world`]), wait.
//!
//! Not here: what should run where (the controller), how a layer is made or a process started (the crates beside this one).
//!
//! Invariants:
//! - A frame is in the [`ledger`] before it is acknowledged; the agent starts from the ledger, with or without a controller.
//! - Containers outlive the agent: it is their finder, never their parent.
//! - One task per pod performs one step at a time; nothing else touches the pod.

pub mod capacity;
pub mod config;
pub mod identity;
pub mod join;
pub mod ledger;
pub mod lock;
pub mod metrics;
pub mod node;
pub mod node_api;
pub mod pods;
pub mod session;
pub mod timeline;
pub mod world;

#[cfg(test)]
mod fake;
