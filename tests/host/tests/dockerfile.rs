//! Builds without containers on the real kernel: COPY, ADD and WORKDIR in all their corners, the cache, hostile contexts, full disks. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "dockerfile/copying.rs"]
mod copying;
#[path = "dockerfile/lab.rs"]
mod lab;
#[path = "dockerfile/trouble.rs"]
mod trouble;
