//! Where the world begins: what the agent asks of images, sandboxes, network and clock.
//!
//! The real world is [`crate::node`]; the tests have a fake one. Everything is idempotent: an agent may die between a step and
//! its note of it, and the next one asks again.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};
use strata_model::{
    Check, Container, ContainerName, ImageName, Layer, Millis, ObjectName, PinnedImage, Subnet, Template, Uid,
};
use strata_proto::types;
use strata_reconciler::{Answer, ExitFact};
use tokio::sync::{mpsc, watch};

/// What went wrong, for a pod's status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Trouble {
    /// Stable word: `ImageNotFound`, `ImagePull`, `DiskFull`, `CreateError` ...
    pub reason: String,
    /// What was being done, to what, and what to do.
    pub message: String,
}

impl Trouble {
    /// Makes one.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// A pod as the world needs it to make its sandbox and start its containers.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// Its uid.
    pub uid: Uid,
    /// Its name: the default host name.
    pub name: ObjectName,
    /// Its own directory.
    pub dir: PathBuf,
    /// What runs in it.
    pub template: Arc<Template>,
    /// Its place in the node's subnet.
    pub address_index: u32,
    /// Grows with each sandbox.
    pub attempt: u32,
}

impl PodSpec {
    /// The image that a container names.
    #[must_use]
    pub fn image_of(&self, container: &Container) -> Option<&PinnedImage> {
        self.template.images.iter().find(|i| i.digest.to_string() == container.image_digest)
    }
}

/// What a sandbox tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxEvent {
    /// A container's process ended. Told again after adoption until acknowledged.
    Exited {
        /// Which.
        container: ContainerName,
        /// How, with its reason (`Completed`, `Error`, `OOMKilled`).
        exit: ExitFact,
    },
    /// The sandbox died. The last event; so is the end of the channel.
    Gone,
}

/// Events of one sandbox.
pub type Events = mpsc::Receiver<SandboxEvent>;

/// What is found of a sandbox when an agent starts.
#[derive(Debug)]
pub struct Adopted {
    /// Events from now on. Ends that nobody has acknowledged come again.
    pub events: Events,
    /// Containers that run: name, host pid.
    pub running: Vec<(ContainerName, u32)>,
    /// Containers that have ended and were not acknowledged.
    pub exited: Vec<(ContainerName, ExitFact)>,
}

/// A process that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedContainer {
    /// On the host.
    pub pid: u32,
}

/// What a node holds of images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Layers with the sizes of their files.
    pub layers: Vec<Layer>,
    /// Digests of images that are wholly here.
    pub images: Vec<String>,
}

/// What images have cost a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Storage {
    /// Layers that are mounted.
    pub mounted_layers: u64,
    /// Bytes received from registries since the agent's start.
    pub registry_bytes: u64,
    /// Bytes received from other nodes.
    pub peer_bytes: u64,
    /// Bytes sent to other nodes.
    pub served_bytes: u64,
    /// Of the file system of the state directory.
    pub size_bytes: u64,
    /// Free there.
    pub free_bytes: u64,
}

/// Images and layers.
pub trait Images: Send + Sync + 'static {
    /// Whether all of an image is here. Quick.
    fn has(&self, image: &PinnedImage) -> impl Future<Output = bool> + Send;
    /// Gets what is missing of an image: from peers first, then from its registry. Dropping the future gives it up.
    fn ensure(&self, image: &PinnedImage) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// Asks a registry what a name means now. Pulls no layers.
    fn resolve(&self, name: &ImageName) -> impl Future<Output = Result<types::ImageSpec, Trouble>> + Send;
    /// What is here.
    fn inventory(&self) -> impl Future<Output = Inventory> + Send;
    /// What it has cost, for metrics.
    fn storage(&self) -> impl Future<Output = Storage> + Send {
        async { Storage::default() }
    }
    /// Changes its value whenever the inventory may have changed.
    fn inventory_changes(&self) -> watch::Receiver<u64>;
    /// How layers are mounted: File, Loop or Directory.
    fn layer_mount(&self) -> String;
}

/// Sandboxes and the containers in them.
pub trait Sandboxes: Send + Sync + 'static {
    /// Makes a pod's sandbox, with its address. What an earlier one left is cleared first.
    fn make(&self, pod: &PodSpec) -> impl Future<Output = Result<Events, Trouble>> + Send;
    /// Finds the sandbox of an earlier agent. `None`: there is none that lives.
    fn adopt(&self, pod: &PodSpec) -> impl Future<Output = Result<Option<Adopted>, Trouble>> + Send;
    /// Starts a container in it. The error is how it counts: code 126, 127 or 128, reason `StartError`.
    fn start(
        &self,
        pod: &PodSpec,
        container: &Container,
    ) -> impl Future<Output = Result<StartedContainer, ExitFact>> + Send;
    /// Sends the container's stop signal to its first process.
    fn signal(&self, pod: &PodSpec, container: &ContainerName) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// Kills everything in the container.
    fn kill(&self, pod: &PodSpec, container: &ContainerName) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// The end of a container is noted: it need not be told again.
    fn acknowledge(&self, uid: &Uid, container: &ContainerName) -> impl Future<Output = ()> + Send;
    /// Removes sandbox, namespaces and cgroups. Writable layers and logs stay. One that is not there is fine.
    fn remove(&self, uid: &Uid) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// Drops the pod's writable layers (its sandbox is gone). None is fine.
    fn discard(&self, uid: &Uid) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// Removes the pod's scratch space: it goes for good. None is fine.
    fn forget(&self, uid: &Uid) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// At the agent's start: clears away what belongs to none of these pods (cgroups, links).
    fn sweep(&self, keep: &[PodSpec]) -> impl Future<Output = Result<(), Trouble>> + Send;
}

/// Another node, as far as the network needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerNode {
    /// Its name.
    pub node: String,
    /// Where it is reached.
    pub address: std::net::IpAddr,
    /// Of its node and peer API.
    pub port: u16,
    /// Its pods' addresses.
    pub subnet: Subnet,
}

/// The ranges of addresses that services work with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRanges {
    /// All pods.
    pub cluster: Subnet,
    /// Virtual addresses of services.
    pub services: Subnet,
    /// What names of services end in: `cluster.local`.
    pub domain: String,
}

impl ServiceRanges {
    /// From the words of the controller; `None` if it knows no services.
    #[must_use]
    pub fn parse(cluster: &str, services: &str, domain: &str) -> Option<Self> {
        Some(Self { cluster: cluster.parse().ok()?, services: services.parse().ok()?, domain: domain.to_owned() })
    }
}

/// The node's own network.
pub trait Network: Send + Sync + 'static {
    /// Makes bridge and gateway for this subnet.
    fn set_subnet(&self, subnet: Subnet) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// Makes the routes to the other nodes' pods exactly these.
    fn set_peers(&self, peers: &[PeerNode]) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// Takes a frame of services in: when it returns they are in effect on this node. The same frame may come again.
    fn set_services(
        &self,
        ranges: &ServiceRanges,
        frame: &strata_proto::dispatch::Services,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// The address of the pod with this index; `None` without a subnet.
    fn pod_address(&self, index: u32) -> Option<std::net::Ipv4Addr>;
}

/// Questions to containers.
pub trait Probing: Send + Sync + 'static {
    /// Asks once; no answer within `wait` is a bad one. Dropping the future gives it up, and kills a command that runs.
    fn probe(
        &self,
        pod: &PodSpec,
        container: &ContainerName,
        check: &Check,
        wait: Duration,
    ) -> impl Future<Output = Answer> + Send;
}

/// Time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since boot, sleep included (CLOCK_BOOTTIME).
    fn now_ms(&self) -> Millis;
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;
    /// Returns when [`Clock::now_ms`] is at least this.
    fn sleep_until(&self, at: Millis) -> impl Future<Output = ()> + Send;
}

/// All of it.
pub trait World: Images + Sandboxes + Network + Probing + Clock {}
impl<T: Images + Sandboxes + Network + Probing + Clock> World for T {}
