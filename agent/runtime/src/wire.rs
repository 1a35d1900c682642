//! The shim's wire types, generated from `proto/strata/shim/v1/shim.proto`.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/strata.shim.v1.rs"));

/// The version of the protocol that this build speaks.
pub const VERSION: u32 = 1;
