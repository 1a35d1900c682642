//! strata-build: a Dockerfile and its context become an image.
//!
//! ```text
//! text -> Dockerfile (parse-dockerfile, heredocs completed here) -> stages that are needed -> steps
//! COPY, ADD, WORKDIR -> one layer file, written straight from the sources      RUN -> a container, whose writable layer is sealed
//! steps -> config, history, diff IDs -> canonical image (strata-image)
//! ```
//!
//! The context is itself a layer file, in a store of its own: nothing of it is ever unpacked, and what it calls its paths and links is
//! meant within its own root. The same holds for stages and images that are copied from: all are read-only mounts, read by descriptor.
//!
//! Not here: where images come from and how a container runs ([`World`]), names in the cluster (the controller's), the transport.
//!
//! Invariants: the same Dockerfile and context give the same layers for every step but RUN, on any node: no clock is read. A step that
//! fails leaves no layer, and the steps before it stay cached. Everything is bounded by [`limits`].

mod build;
mod cache;
mod config;
mod copy;
mod dockerfile;
mod error;
mod heredoc;
pub mod limits;
mod stage;
mod time;
mod tree;
mod words;
mod world;

pub use build::{BuildRequest, Builder, Built};
pub use cache::{Cache, CacheEntry};
pub use error::{BuildError, Result};
pub use world::{Ended, Event, Events, RunStep, World};
