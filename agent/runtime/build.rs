//! Generates the shim's wire types with protox (no protoc needed).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../../proto/strata/shim/v1/shim.proto");
    let set = protox::compile(["strata/shim/v1/shim.proto"], ["../../proto"])?;
    prost_build::Config::new().compile_fds(set)?;
    Ok(())
}
