//! What people, tools and nodes ask of the controller: the services of strata.cluster.v1.
//!
//! Not here: the control loops and the agents' sessions; they meet this part only in the store.
//!
//! Every refusal carries a stable word under the metadata key [`REASON_KEY`].

mod act;
mod apply;
mod backup;
mod cluster;
mod delete;
mod images;
mod join;
mod locate;
mod namespaces;
mod node_clients;
mod objects;
mod pki;
mod refusal;
mod relay;
mod select;
mod services;
mod storage;
#[cfg(test)]
mod tests;
mod tokens;
mod undo;
mod validate;
mod view;
mod volumes;

pub(crate) use act::desired_pod;
pub use images::record_image;
pub use namespaces::ensure_default_namespace;
pub use node_clients::NodeClients;
pub use pki::Pki;
pub use refusal::{REASON_KEY, Refusal};
pub use tokens::ensure_bootstrap_token;
pub use volumes::remove_deleted_volumes;

use crate::secrets::Vault;
use std::{net::Ipv4Addr, sync::Arc, time::Duration};
use strata_model::Subnet;
use strata_proto::cluster::{cluster_server::ClusterServer, join_server::JoinServer, objects_server::ObjectsServer};
use strata_store::{Change, Commit, Store, StoreError};
use strata_transport::{Role, authorize::RequireRole};
use tokio::sync::Semaphore;
use tracing::Instrument as _;

/// Every bound of the API.
pub mod limits {
    use std::time::Duration;

    /// How long a call waits for its commit.
    pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
    /// How often an unconditional change is tried again when others change the same object.
    pub const RETRIES: usize = 32;
    /// Objects of one portion of a list.
    pub const LIST_PORTION_OBJECTS: usize = 500;
    /// Encoded bytes at which a portion is closed; with the largest object it stays below gRPC's 4 MiB.
    pub const LIST_PORTION_BYTES: usize = 1 << 20;
    /// Between two bookmarks of a watch.
    pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
    /// Lists and watches at the same time.
    pub const STREAMS_MAX: usize = 4096;
    /// Relayed streams at the same time.
    pub const RELAYS_MAX: usize = 1024;
    /// Joins at the same time.
    pub const JOINS_MAX: usize = 16;
    /// How long the first message of a client's stream may take.
    pub const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
    /// How long a node may take to accept a stream.
    pub const NODE_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
    /// The longest import or pull.
    pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3600);
    /// The longest time that nodes get to remove a deleted image.
    pub const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);
    /// The longest time that a node gets to remove what nobody needs.
    pub const PRUNE_TIMEOUT: Duration = Duration::from_secs(300);
    /// Nodes that pull or remove at the same time on behalf of one call.
    pub const NODES_AT_ONCE: usize = 8;
    /// Progress messages waiting for a slow client.
    pub const PROGRESS_QUEUE: usize = 64;
    /// Digests in one Locate.
    pub const LOCATE_DIGESTS: usize = 1_000;
    /// Holders named for one digest.
    pub const LOCATE_HOLDERS: usize = 16;
    /// A token's life unless said otherwise, seconds.
    pub const TOKEN_TTL_DEFAULT_S: u32 = 24 * 3600;
    /// The longest life of a token, seconds.
    pub const TOKEN_TTL_MAX_S: u32 = 30 * 24 * 3600;
}

/// What the services share.
pub struct ApiState {
    /// The objects.
    pub store: Store,
    /// The cluster's certificates.
    pub pki: Pki,
    /// Channels to the agents' node API.
    pub nodes: NodeClients,
    /// The cluster's key.
    pub vault: Arc<Vault>,
    streams: Arc<Semaphore>,
    relays: Arc<Semaphore>,
    joins: Arc<Semaphore>,
    service_range: Subnet,
    /// Held while a service is given its address and ports, so that no two get the same.
    services: tokio::sync::Mutex<()>,
}

impl ApiState {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If the controller's own identity cannot be issued.
    pub fn new(store: Store, pki: Pki, vault: Arc<Vault>) -> Result<Self, strata_transport::TransportError> {
        let nodes = NodeClients::new(pki.controller_identity()?);
        Ok(Self {
            store,
            pki,
            nodes,
            vault,
            streams: Arc::new(Semaphore::new(limits::STREAMS_MAX)),
            relays: Arc::new(Semaphore::new(limits::RELAYS_MAX)),
            joins: Arc::new(Semaphore::new(limits::JOINS_MAX)),
            service_range: Subnet { network: Ipv4Addr::new(10, 128, 0, 0), prefix_len: 16 },
            services: tokio::sync::Mutex::default(),
        })
    }

    /// The same with virtual addresses of services from this range, instead of 10.128.0.0/16.
    #[must_use]
    pub fn with_service_range(self, range: Subnet) -> Self {
        Self { service_range: range, ..self }
    }

    /// Commits within the bound of a call.
    async fn commit(&self, changes: Vec<Change>) -> Result<Commit, StoreErrorOrTimeout> {
        let span = tracing::info_span!("commit", changes = changes.len());
        match tokio::time::timeout(limits::COMMIT_TIMEOUT, self.store.commit(changes)).instrument(span).await {
            Ok(result) => result.map_err(StoreErrorOrTimeout::Store),
            Err(_) => Err(StoreErrorOrTimeout::Timeout(limits::COMMIT_TIMEOUT)),
        }
    }
}

/// Why a call's commit did not come to an end.
enum StoreErrorOrTimeout {
    Store(StoreError),
    Timeout(Duration),
}

impl From<StoreErrorOrTimeout> for Refusal {
    fn from(error: StoreErrorOrTimeout) -> Self {
        match error {
            StoreErrorOrTimeout::Store(error) => error.into(),
            StoreErrorOrTimeout::Timeout(after) => Refusal::timed_out(format!(
                "the store did not answer within {} s: the change may still be made, look before you try again",
                after.as_secs()
            )),
        }
    }
}

/// The services, ready to be mounted beside others: `Server::builder().add_routes(services(state).add_service(..))`.
#[must_use]
pub fn services(state: &Arc<ApiState>) -> tonic::service::Routes {
    let admin = RequireRole(&[Role::Admin]);
    tonic::service::Routes::default()
        .add_service(ObjectsServer::with_interceptor(objects::ObjectsService(state.clone()), admin))
        .add_service(ClusterServer::new(cluster::ClusterService(state.clone())))
        .add_service(JoinServer::new(join::JoinService(state.clone())))
}
