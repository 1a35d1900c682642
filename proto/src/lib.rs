//! The language of Strata: the wire types of every conversation between its processes, generated from `proto/strata`,
//! with their conversions to and from the model and their JSON and YAML form.
//!
//! Not here: any decision, any I/O. The shim's wire types are generated in its own crate, so that this one cannot fatten it.

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    pub mod types {
        include!(concat!(env!("OUT_DIR"), "/strata.types.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/strata.types.v1.serde.rs"));
    }
    pub mod cluster {
        include!(concat!(env!("OUT_DIR"), "/strata.cluster.v1.rs"));
    }
    pub mod dispatch {
        include!(concat!(env!("OUT_DIR"), "/strata.dispatch.v1.rs"));
    }
    pub mod node {
        include!(concat!(env!("OUT_DIR"), "/strata.node.v1.rs"));
    }
    pub mod peer {
        include!(concat!(env!("OUT_DIR"), "/strata.peer.v1.rs"));
    }
    pub mod store {
        include!(concat!(env!("OUT_DIR"), "/strata.store.v1.rs"));
    }
}
pub use generated::{cluster, dispatch, node, peer, store, types};

/// The API level this build speaks. Sessions and clients negotiate the lower of both sides' levels.
pub const API_LEVEL: u32 = 1;

/// The compiled descriptors of every proto file, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/strata.bin"));
