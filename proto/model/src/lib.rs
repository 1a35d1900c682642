//! The nouns of Strata (design section 2) as Rust types that cannot hold nonsense.
//!
//! Not here: wire formats (strata-proto), I/O, clocks, randomness, async. `no_std`, so that the compiler checks it.
#![no_std]
extern crate alloc;

mod id;

pub use id::{Algorithm, ContainerName, Digest, Invalid, NodeName, ObjectName, RevisionName, Uid, check_name};
