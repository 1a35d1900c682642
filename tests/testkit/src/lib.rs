//! What the tests of a running cluster share: `ctl` as a person would call it, facts about nodes and pods, images and registries.
//!
//! The cluster itself is made by `deploy/quickstart` (see `tests/run`); tests run one at a time and leave it as they found it.
//! Waiting is always for a state that is looked at until it holds or a deadline passes, with the last state in the message.
#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;
mod ctl;
mod image;
mod node;

pub use cluster::{Cluster, eventually};
pub use ctl::Run;
pub use image::{HELLO, Registry, hello_archive, push};
pub use node::Node;
