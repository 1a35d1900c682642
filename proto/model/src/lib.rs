//! The nouns of Strata (design section 2) as Rust types that cannot hold nonsense.
//!
//! Not here: wire formats (strata-proto), I/O, clocks, randomness, async. `no_std`, so that the compiler checks it.
//! Time is always an argument: [`Millis`] on whatever clock the caller keeps.
#![no_std]
extern crate alloc;

mod id;
pub mod ignore;
mod image;
pub mod limits;
mod node;
mod phase;
mod pod;
mod probe;
mod resources;
mod rollout;
mod service;
pub mod signal;
mod storage;
mod template;
mod workload;

pub use id::{Algorithm, ContainerName, Digest, Invalid, NodeName, ObjectName, RevisionName, Uid, check_name};
pub use image::{ImageName, Layer, PinnedImage};
pub use node::{Node, NodePhase, Subnet};
pub use phase::{ContainerState, Desired, Phase, REASON_STOPPED};
pub use pod::{ContainerStatus, Exit, Pod, PodStatus};
pub use probe::{Check, Probe, ProbeKind, Probes};
pub use resources::{Quantity, Resources};
pub use rollout::{Concurrency, CronPolicy, JobPolicy, OnFailure, Revision, Rollout, RolloutState, UpdatePolicy};
pub use service::{Endpoint, ServicePort, ServiceSpec, ServiceView, TargetPort};
pub use storage::{
    EnvFrom, EnvSource, EnvVar, Field, FileItem, Files, HostPathKind, KeyRef, Material, MaterialKind, Mount, Volume,
    VolumeSource,
};
pub use template::{
    Container, Labels, PodSecurity, PodTemplate, Port, Protocol, PullPolicy, RestartPolicy, Security, Template,
};
pub use workload::{Mode, VolumeTemplate, Workload, slot_volume};

/// Milliseconds on the caller's clock.
pub type Millis = u64;
