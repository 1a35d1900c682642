//! The parent of one pod's containers, and the zygote that makes pods: one small static program in two roles.
//!
//! `strata-shim zygote --socket DIR` pins a node's mount namespace and makes sandboxes ([`zygote`]); `strata-shim pod` is
//! process 1 of a pod ([`pod`]), executed by the zygote inside the sandbox with its listening socket at descriptor 3.
//!
//! Not here: decisions. What a container is comes as a plan; images, addresses, limits and restarts are the agent's.
//! Invariants: one thread, one poll loop, no async; no descriptor of a host directory ever comes in; between clone and
//! execve the child allocates nothing; a container never waits for its log.

mod child;
mod door;
mod launch;
mod log;
mod outcome;
mod pod;
mod rootfs;
mod sandbox;
mod terminal;
mod wire;
mod zygote;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["zygote", "--socket", dir] => zygote::run(dir.as_ref(), zygote::Mounts::New),
        ["zygote", "--socket", dir, "--keep-mounts"] => zygote::run(dir.as_ref(), zygote::Mounts::Own),
        ["zygote", "--socket", dir, "--mounts", file] => zygote::run(dir.as_ref(), zygote::Mounts::Of(file.as_ref())),
        ["pod"] => pod::run(),
        ["--version"] => {
            println!("strata-shim {} (protocol {})", env!("CARGO_PKG_VERSION"), wire::VERSION);
            Ok(())
        }
        _ => {
            eprintln!(
                "usage: strata-shim zygote --socket DIR [--keep-mounts | --mounts FILE]\n(started by strata-agent; \"pod\" is the zygote's own)"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strata-shim: {error}");
            ExitCode::FAILURE
        }
    }
}
