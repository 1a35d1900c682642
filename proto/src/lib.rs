//! The language of Strata: the wire types of every conversation between its processes, generated from `proto/strata`,
//! with their conversions to and from the model and their JSON and YAML form.
//!
//! Not here: any decision, any I/O. The shim's wire types are generated in its own crate, so that this one cannot fatten it.

pub mod backup;
mod convert;
pub mod document;
mod redact;

pub use convert::{BadObject, timestamp_ms, timestamp_now, timestamp_of_ms};

#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
mod generated {
    macro_rules! package {
        ($name:ident, $($file:literal),+) => {
            pub mod $name {
                pub mod v1 {
                    $(include!(concat!(env!("OUT_DIR"), "/", $file));)+
                }
            }
        };
    }
    package!(types, "strata.types.v1.rs", "strata.types.v1.serde.rs");
    package!(cluster, "strata.cluster.v1.rs");
    package!(dispatch, "strata.dispatch.v1.rs");
    package!(node, "strata.node.v1.rs");
    package!(peer, "strata.peer.v1.rs");
    package!(store, "strata.store.v1.rs");
}
pub use generated::{
    cluster::v1 as cluster, dispatch::v1 as dispatch, node::v1 as node, peer::v1 as peer, store::v1 as store,
    types::v1 as types,
};

/// The API level this build speaks. Sessions and clients negotiate the lower of both sides' levels.
pub const API_LEVEL: u32 = 1;

/// The compiled descriptors of every proto file, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/strata.bin"));
