//! The real world: image store, shims, cgroups, bridge and clock of this machine behind the traits of [`crate::world`].
//!
//! ```text
//! STATE/pods/<uid>/shim.sock          the shim's socket
//! STATE/pods/<uid>/etc/                resolv.conf, hosts, hostname of its containers
//! STATE/pods/<uid>/link               name of the host's end of its veth pair
//! STATE/pods/<uid>/c/<container>/     u and w: the writable layer
//! STATE/pods/<uid>/log/               logs of its containers
//! STATE/pods/<uid>/{v,m}/             its volumes (see `volumes`)
//! ```

mod build;
mod cache;
mod clock;
mod environment;
mod etc;
mod exit;
mod files;
mod images;
mod live;
mod locate;
mod network;
mod probe;
mod sandboxes;
mod services;
mod start;
mod volumes;

pub use build::BuildWorld;
pub(crate) use files::Root;
pub use images::{spec_of_resolved, spec_of_stored};
pub use locate::ViaController;

use live::Live;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use strata_image::{ImageStore, Locate, Registry};
use strata_model::{Subnet, Uid};
use strata_network::NodeNetwork;
use strata_runtime::{Zygote, cgroup::CgroupRoot, plan::HostFacts};
use tokio::sync::{mpsc, watch};

/// What the real world is made of.
pub struct Setup {
    /// STATE.
    pub state_dir: PathBuf,
    /// Images.
    pub images: ImageStore,
    /// The registry client.
    pub registry: Registry,
    /// Other nodes.
    pub peers: Arc<dyn Locate>,
    /// Makes sandboxes.
    pub zygote: Zygote,
    /// The agent's own cgroup.
    pub cgroups: CgroupRoot,
    /// Name of the bridge.
    pub bridge: String,
    /// How the pods of other nodes are reached.
    pub overlay: strata_network::Overlay,
    /// First host id of this node's pods.
    pub id_start: u32,
    /// The node's name, for pods that ask for it.
    pub name: String,
    /// Where the node is reached, for pods that ask for it; `None`: not known.
    pub address: Option<std::net::IpAddr>,
}

/// This machine.
pub struct Node {
    setup: Setup,
    facts: HostFacts,
    pods: Mutex<HashMap<Uid, Arc<Live>>>,
    network: Mutex<Option<Arc<NodeNetwork>>>,
    subnet: Mutex<Option<Subnet>>,
    services: tokio::sync::Mutex<services::Services>,
    names: services::Names,
    inventory: watch::Sender<u64>,
    cache: mpsc::Sender<cache::Used>,
    writables: files::Locks,
}

impl Node {
    /// Takes hold of it. To be called within the async runtime.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let cache = cache::start(setup.images.layers().clone());
        Self {
            facts: HostFacts::observe(),
            setup,
            pods: Mutex::default(),
            network: Mutex::default(),
            subnet: Mutex::default(),
            services: tokio::sync::Mutex::default(),
            names: services::Names::default(),
            inventory: watch::Sender::new(0),
            cache,
            writables: files::Locks::default(),
        }
    }

    /// The image store, for the node API and for peers.
    #[must_use]
    pub fn image_store(&self) -> &ImageStore {
        &self.setup.images
    }

    /// The registry client.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.setup.registry
    }

    /// Other nodes.
    #[must_use]
    pub fn peers(&self) -> Arc<dyn Locate> {
        self.setup.peers.clone()
    }

    /// Says that layers or images have come or gone.
    pub fn inventory_changed(&self) {
        self.inventory.send_modify(|n| *n += 1);
    }

    /// The directory of a pod's logs.
    #[must_use]
    pub fn log_dir(&self, uid: &Uid) -> PathBuf {
        self.pod_dir(uid).join("log")
    }

    /// Removes a named volume with its data.
    ///
    /// # Errors
    /// A name that is none; what the disk says.
    pub async fn remove_volume(&self, namespace: &str, name: &str) -> Result<(), tonic::Status> {
        let (state_dir, key) = (self.setup.state_dir.clone(), (namespace.to_owned(), name.to_owned()));
        let removed = blocking(move || volumes::remove_named(&state_dir, &key.0, &key.1)).await;
        let removed = removed.map_err(|trouble| tonic::Status::unavailable(trouble.message))?;
        removed.map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidInput => tonic::Status::invalid_argument(e.to_string()),
            _ => tonic::Status::internal(format!("removing volume {namespace}/{name}: {e}")),
        })
    }

    fn pod_dir(&self, uid: &Uid) -> PathBuf {
        self.setup.state_dir.join("pods").join(uid.as_str())
    }

    fn live(&self, uid: &Uid) -> Option<Arc<Live>> {
        lock(&self.pods).get(uid).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what blocks on the kernel or the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, crate::world::Trouble> {
    // What is done there belongs to the caller's span.
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|e| crate::world::Trouble::new("Stopping", format!("the agent stops: {e}")))
}
