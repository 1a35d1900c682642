//! What loops and sessions share.

use crate::{meters::Meters, requests::Requests, secrets::Vault, sessions::Sessions};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use strata_dispatcher::{LeaseSettings, Leases};
use strata_model::{Millis, Subnet};
use strata_store::Store;
use tokio::sync::Notify;

/// Settings of the cluster that sessions and loops need.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Names the cluster: the fingerprint of its CA.
    pub cluster_id: String,
    /// The range that node subnets are cut from.
    pub cluster_cidr: Subnet,
    /// The length of node subnets.
    pub node_prefix_len: u8,
    /// The range that virtual addresses of services come from.
    pub service_cidr: Subnet,
    /// Heartbeats and leases.
    pub leases: LeaseSettings,
}

/// The controller's shared state: the store, the open sessions, the leases.
pub struct Control {
    /// The objects.
    pub store: Store,
    /// The settings.
    pub settings: ClusterSettings,
    /// The cluster's key.
    pub vault: Arc<Vault>,
    /// Open sessions of agents.
    pub sessions: Sessions,
    /// Wakes the node loop when a lease was made or renewed after silence.
    pub leases_changed: Notify,
    /// What loops and sessions count.
    pub meters: Meters,
    /// What the API was asked.
    pub requests: Arc<Requests>,
    /// Held while a node is given its index, so that no two get the same.
    pub(crate) admission: tokio::sync::Mutex<()>,
    leases: Mutex<Leases>,
    started: Instant,
}

impl Control {
    /// A controller over a store. Leases of known nodes begin when the node loop starts.
    #[must_use]
    pub fn new(store: Store, settings: ClusterSettings, vault: Arc<Vault>) -> Self {
        Self {
            meters: Meters::default(),
            requests: Arc::new(Requests::default()),
            leases: Mutex::new(Leases::new(settings.leases)),
            store,
            settings,
            vault,
            sessions: Sessions::default(),
            leases_changed: Notify::new(),
            admission: tokio::sync::Mutex::new(()),
            started: Instant::now(),
        }
    }

    /// Milliseconds since the start. The clock stands still while the machine is suspended, so leases end late here, never early;
    /// a node's own deadline counts on CLOCK_BOOTTIME.
    #[must_use]
    pub fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The leases; held only for one look or change.
    pub fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
