//! Generates the wire types with protox (no protoc needed), their services, and their canonical JSON.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: &[&str] = &[
    "strata/types/v1/types.proto",
    "strata/cluster/v1/cluster.proto",
    "strata/dispatch/v1/dispatch.proto",
    "strata/node/v1/node.proto",
    "strata/peer/v1/peer.proto",
    "strata/store/v1/store.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed=strata");
    let set = protox::compile(FILES, ["."])?;
    let bytes = prost::Message::encode_to_vec(&set);
    fs::write(out.join("strata.bin"), &bytes)?;
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .bytes(".strata.node.v1.ImportChunk.data")
        .bytes(".strata.peer.v1.Chunk.data")
        // What can carry a secret prints itself without it: see src/redact.rs.
        .skip_debug([".strata.types.v1.SecretSpec", ".strata.types.v1.Material", ".strata.dispatch.v1.SecretContent"])
        .compile_fds(set)?;
    pbjson_build::Builder::new().register_descriptors(&bytes)?.emit_fields().build(&[".strata.types.v1"])?;
    Ok(())
}
