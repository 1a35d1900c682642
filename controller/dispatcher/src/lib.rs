//! What each node is told and whether it is alive, purely.
//!
//! - [`AssignmentSet`]: the pods of one node with a generation that grows with every change.
//! - [`Session`]: what one connection of that node was sent; [`Session::frame`] decides what to send next: a full frame, a delta or nothing.
//! - [`Catalog`]: which pods are behind which service, with a version that grows with every change; [`ServiceSession`]: what one connection of a
//!   node was told of it.
//! - [`Leases`]: until when each node counts as alive, on a clock that is an argument.
//!
//! Not here: the wire format, queues, sockets, the store.
//!
//! Invariants:
//! - A delta is computed from the set as it is, not from a queue of changes, so that it never grows beyond the set; it applies to
//!   exactly the generation that was sent before it. Whatever does not fit is answered with a full frame.
//! - A template is sent once in a session, before or with the first pod that names it.
//! - No node is Lost before its lease has ended, also when the controller has only just started; until a node has synced again or is
//!   Lost, [`Leases::is_settled`] says no, and nothing of it may be replaced.
#![no_std]
extern crate alloc;

mod assignments;
mod leases;
mod services;
mod session;

pub use assignments::{Assignment, AssignmentSet, REMOVED_KEPT};
pub use leases::{LeaseSettings, Leases, Verdict};
pub use services::{Catalog, PodFacts, REMOVED_SERVICES_KEPT, ServiceFrame, ServiceSession, Serving, selects};
pub use session::{FRAMES_MAX, Frame, Session};
