//! What is asked of a pod at once, beside what its assignment wants of it: a restart of containers in place.

use super::Pods;
use crate::world::World;
use strata_model::{ContainerName, Millis, Uid};
use tokio::sync::oneshot;

/// Asks of one pod that wait for its task.
pub const ASKS_WAITING_MAX: usize = 8;

/// A restart in the same sandbox: stop with grace, then start, whatever the restart policy says.
#[derive(Debug)]
pub struct Ask {
    /// Which.
    pub containers: Vec<ContainerName>,
    /// Between stop signal and kill.
    pub grace_ms: Millis,
    /// Told once it is noted: from then on it is done even if the agent dies.
    pub taken: oneshot::Sender<()>,
}

impl<W: World> Pods<W> {
    /// Asks a pod's task; true once it has noted it, false if there is none, or it has too much to do.
    pub async fn ask_restart(&self, uid: &Uid, containers: Vec<ContainerName>, grace_ms: Millis) -> bool {
        let Some(asks) = self.shared.lock().get(uid).map(|h| h.asks.clone()) else { return false };
        let (taken, noted) = oneshot::channel();
        asks.try_send(Ask { containers, grace_ms, taken }).is_ok() && noted.await.is_ok()
    }
}
