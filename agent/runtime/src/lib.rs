//! From an OCI runtime specification to a running process.
//!
//! The way in: [`spec::container_spec`] (image and pod to an OCI [`Spec`](oci_spec::runtime::Spec)) -> [`plan::plan_init`]
//! (pure: specification and host facts to the [`wire::Plan`] that a child walks between clone and execve) ->
//! [`ShimClient::start`]. Around it: [`zygote`] (sandboxes and the pinned mount namespace), [`cgroup`] (limits, kill,
//! usage), [`seccomp`] (the default filter), [`logs`] (reading what the shim wrote).
//!
//! Not here: images and overlays (strata-image, strata-layer), addresses (strata-network), what should run.
//! Invariants: the shim gets files and detached mounts, never a directory of the host; every wait and queue has a bound.

pub mod cgroup;
mod client;
mod error;
pub mod logs;
pub mod plan;
pub mod seccomp;
pub mod spec;
pub mod wire;
pub mod zygote;

pub use client::{
    ContainerState, Exec, ExecRequest, ExecStdio, ExecUser, Exit, Process, ShimClient, ShimEvent, ShimState,
    StartRequest,
};
pub use error::{Error, Result, StartError};
pub use zygote::{Sandbox, SandboxRequest, Zygote};
