//! Pod templates: what runs in a pod.

use crate::{
    ContainerName, EnvFrom, EnvVar, ImageName, Material, Mount, PinnedImage, Probes, Resources, RevisionName, Volume,
};
use alloc::{collections::BTreeMap, string::String, vec::Vec};

/// Labels: keys and values as Kubernetes has them.
pub type Labels = BTreeMap<String, String>;

/// An immutable pod template with its images pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The hash of the content.
    pub revision: RevisionName,
    /// What runs.
    pub pod: PodTemplate,
    /// One per distinct image of the containers; [`Container::image_digest`] names it.
    pub images: Vec<PinnedImage>,
    /// The configs and secrets that the pod names.
    pub materials: Vec<Material>,
}

/// What runs in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodTemplate {
    /// Labels of the pods.
    pub labels: Labels,
    /// Annotations of the pods.
    pub annotations: Labels,
    /// At least one, names distinct.
    pub containers: Vec<Container>,
    /// When an ended container starts again.
    pub restart_policy: RestartPolicy,
    /// Seconds between stop signal and kill.
    pub termination_grace_s: u32,
    /// Node labels that must be equal.
    pub node_selector: Labels,
    /// "" = the pod's name.
    pub hostname: String,
    /// Defaults of the containers.
    pub security: PodSecurity,
    /// Namespaced kernel parameters.
    pub sysctls: Labels,
    /// Names distinct.
    pub volumes: Vec<Volume>,
}

impl PodTemplate {
    /// What the pod asks of a node: the sum over its containers; a limit without a request counts as one, as in Kubernetes.
    #[must_use]
    pub fn requests(&self) -> Resources {
        let or = |request: u64, limit: u64| if request == 0 { limit } else { request };
        self.containers.iter().fold(Resources::default(), |sum, c| {
            sum.plus(Resources {
                cpu_millis: or(c.requests.cpu_millis, c.limits.cpu_millis),
                memory_bytes: or(c.requests.memory_bytes, c.limits.memory_bytes),
                pids: c.requests.pids,
            })
        })
    }
}

/// When an ended container starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartPolicy {
    /// Whatever its exit code.
    #[default]
    Always,
    /// Unless its exit code was 0.
    OnFailure,
    /// Never.
    Never,
}

/// Defaults of all containers of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodSecurity {
    /// Numeric user.
    pub run_as_user: Option<u32>,
    /// Numeric group.
    pub run_as_group: Option<u32>,
    /// Refuse to start as uid 0.
    pub run_as_non_root: Option<bool>,
    /// Groups added to each process.
    pub supplemental_groups: Vec<u32>,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Distinct within the pod.
    pub name: ContainerName,
    /// As the user wrote it, normalised.
    pub image: ImageName,
    /// In template revisions: which of [`Template::images`] it is; "" before.
    pub image_digest: String,
    /// When a registry is asked.
    pub pull_policy: PullPolicy,
    /// Replaces the image's entrypoint (and drops its command) unless empty.
    pub command: Vec<String>,
    /// Replaces the image's command unless empty.
    pub args: Vec<String>,
    /// In order; added to the image's.
    pub env: Vec<EnvVar>,
    /// Before `env`.
    pub env_from: Vec<EnvFrom>,
    /// Each of a volume of the pod, at a path of its own.
    pub mounts: Vec<Mount>,
    /// "" = the image's.
    pub working_dir: String,
    /// What is set aside on the node.
    pub requests: Resources,
    /// What the kernel enforces.
    pub limits: Resources,
    /// What it listens on.
    pub ports: Vec<Port>,
    /// User, capabilities, root.
    pub security: Security,
    /// "" = the image's, else SIGTERM.
    pub stop_signal: String,
    /// With a terminal.
    pub tty: bool,
    /// With a standard input that can be attached.
    pub stdin: bool,
    /// Whether it serves, and whether it runs on.
    pub probes: Probes,
}

/// When a registry is asked what a tag means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Only if the cluster has no image of that name.
    #[default]
    IfNotPresent,
    /// At each new revision.
    Always,
    /// Never: the cluster has it or it fails.
    Never,
}

/// A port a container listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// "" = none.
    pub name: String,
    /// 1 to 65535.
    pub container_port: u16,
    /// TCP unless said otherwise.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// User, capabilities and root of a container. Every widening is explicit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// Numeric user; absent: the pod's, else the image's.
    pub run_as_user: Option<u32>,
    /// Numeric group.
    pub run_as_group: Option<u32>,
    /// Refuse to start as uid 0.
    pub run_as_non_root: Option<bool>,
    /// The root file system cannot be written.
    pub read_only_root: bool,
    /// Names with or without CAP_; "ALL".
    pub add_capabilities: Vec<String>,
    /// Names with or without CAP_; "ALL".
    pub drop_capabilities: Vec<String>,
    /// Only an explicit true leaves no_new_privs unset.
    pub allow_privilege_escalation: bool,
}
