//! The session with the controller: assignments down, status up. Pods live on without it.
//!
//! ```text
//! connect (back-off, jitter) -> Hello with everything on the node -> Welcome -> frames, acknowledged once they are in the ledger
//!                                                                            -> status batches, heartbeats
//! ```
//! A frame that does not fit is answered with Resync, and deltas are left aside until the full frame comes. When the stream
//! ends, for whatever reason, a new one begins with Hello: nothing needs to be remembered of the old one.

mod backoff;
mod frames;
mod network;
mod resolve;
mod services;
mod stream;

pub use backoff::{BACKOFF_FIRST, BACKOFF_MAX, Backoff};

use crate::{ledger::Ledger, pods::Pods, world::World};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};
use strata_proto::types;
use strata_transport::{CONTROLLER_SERVER_NAME, Identity, TransportError, client};
use tokio::sync::watch;

/// Status is collected for this long.
pub const BATCH_WAIT: Duration = Duration::from_millis(50);
/// Reports and events in one batch.
pub const BATCH_ITEMS_MAX: usize = 100;
/// Messages that wait to be sent.
pub const OUTBOX_MAX: usize = 8;
/// Frames that wait to be taken into the ledger.
pub const FRAMES_WAITING_MAX: usize = 8;
/// How long a message may wait for room in the outbox.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the controller may take to say Welcome.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of one message from the controller: a full frame of the largest node with its templates.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// References that are being resolved at the same time.
pub const RESOLVES_AT_ONCE: usize = 4;
/// References that wait to be resolved; beyond it the answer is `Overloaded`.
pub const RESOLVES_WAITING_MAX: usize = 256;

/// What the node says of itself in each Hello.
#[derive(Debug, Clone)]
pub struct Node {
    /// HOST:PORT.
    pub controller: String,
    /// Its name.
    pub name: String,
    /// Where its API is reached; `None`: the address that reaches the controller.
    pub advertise: Option<IpAddr>,
    /// The API's port.
    pub port: u16,
    /// Of this boot.
    pub boot_id: String,
    /// For selectors.
    pub labels: BTreeMap<String, String>,
    /// What it has.
    pub capacity: types::Resources,
    /// v1, v2 or hybrid.
    pub cgroup: String,
}

/// The address of this node that its settings name: `advertise`, else a `listen` that is one address.
#[must_use]
pub fn configured_address(advertise: Option<IpAddr>, listen: IpAddr) -> Option<IpAddr> {
    advertise.or_else(|| Some(listen).filter(|ip| !ip.is_unspecified()))
}

/// The address at which this node is reached: the configured one, else the one from which it reaches the controller.
pub async fn own_address(advertise: Option<IpAddr>, listen: IpAddr, controller: &str) -> Option<IpAddr> {
    match configured_address(advertise, listen) {
        Some(address) => Some(address),
        None => stream::address_towards(controller).await.ok(),
    }
}

/// Why a session cannot be had, ever.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Certificates are wrong, expired or foreign.
    #[error("this node's identity and the controller's do not fit: {0}")]
    Identity(#[source] TransportError),
    /// The controller says that this agent must not go on.
    #[error("the controller ends the session ({reason}): {message}")]
    Refused {
        /// Stable word.
        reason: String,
        /// For people.
        message: String,
    },
}

/// What keeps the session up.
pub struct Session<W: World> {
    /// This node.
    pub node: Node,
    /// Shown to the controller.
    pub identity: Identity,
    /// Its pods.
    pub pods: Arc<Pods<W>>,
    /// The world.
    pub world: Arc<W>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Says whether a session is up, for whoever wants to know.
    pub up: watch::Sender<bool>,
}

/// How one session ended.
enum End {
    /// Try again.
    Broken(String),
    /// Do not.
    Never(SessionError),
}

impl<W: World> Session<W> {
    /// Keeps a session up until it is dropped or the controller refuses for good.
    ///
    /// # Errors
    /// [`SessionError`]: before the first session of this process a refused identity is an error of the settings; later it is
    /// only logged, and tried again, because the pods need the agent.
    pub async fn keep(&self) -> Result<(), SessionError> {
        let mut backoff = Backoff::default();
        let mut had_one = false;
        loop {
            let end = match client::channel(&self.node.controller, &self.identity, CONTROLLER_SERVER_NAME).await {
                Ok(channel) => self.run(channel, &mut backoff, &mut had_one).await,
                Err(e) if is_identity(&e) && !had_one => End::Never(SessionError::Identity(e)),
                Err(e) => End::Broken(e.to_string()),
            };
            self.up.send_replace(false);
            match end {
                End::Never(e) => return Err(e),
                End::Broken(why) => {
                    let wait = backoff.next_wait();
                    tracing::warn!(controller = self.node.controller, wait_ms = wait.as_millis(), "no session: {why}");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

/// Whether an error says that one of the two sides is not who it should be.
fn is_identity(e: &TransportError) -> bool {
    !matches!(e, TransportError::Connect { .. } | TransportError::ConnectTimeout { .. } | TransportError::Tls { .. })
}

#[cfg(test)]
mod tests;
