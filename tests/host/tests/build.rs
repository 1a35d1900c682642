//! Builds without containers on the real kernel: COPY, ADD and WORKDIR in all their corners, the cache, hostile contexts, full disks. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "build/copying.rs"]
mod copying;
#[path = "build/lab.rs"]
mod lab;
#[path = "build/trouble.rs"]
mod trouble;
