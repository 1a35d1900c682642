//! Agents give one another layers and image documents, by digest and without trust.
//!
//! [`PeerService`] serves what this node has to other nodes (a node's certificate is required); [`Peers`] finds out through
//! the controller who has something, and gives each holder as a [`strata_image::BlobSource`].
//!
//! Not here: verifying. Whoever writes bytes down verifies them (`strata-layer` by diff ID, `strata-image` by digest); this
//! crate only names the node that sent them. Not here either: finding holders, which is the controller's `Locate`.
//!
//! Invariants: only the tar of a layer travels, never its index. What is being sent is leased, so that it is not removed
//! meanwhile. The number of streams that are served is bounded; beyond it a caller is told `RESOURCE_EXHAUSTED` at once.

pub mod limits;
mod locate;
mod serve;
mod source;

pub use locate::{AskController, Peers};
pub use serve::PeerService;
pub use source::PeerSource;
