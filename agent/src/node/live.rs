//! A sandbox that lives, as this agent holds it.

use super::exit;
use crate::world::SandboxEvent;
use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};
use strata_layer::Hold;
use strata_model::{ContainerName, Uid};
use strata_runtime::{
    Exit, ShimClient, ShimEvent,
    cgroup::{CgroupRoot, ContainerCgroup, PodCgroup},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Events of one sandbox that wait for its pod's task.
const EVENTS_WAITING_MAX: usize = 64;

pub(super) struct Live {
    pub client: ShimClient,
    pub userns: OwnedFd,
    /// Layers of its containers: they must not be removed.
    pub holds: Mutex<Vec<(Hold, strata_image::Lease)>>,
    forwarder: JoinHandle<()>,
}

impl Live {
    /// Takes hold of a connection; its events come translated. Killed for want of memory is what the container's cgroup says.
    pub fn new(
        client: ShimClient,
        userns: OwnedFd,
        uid: &Uid,
        cgroups: &CgroupRoot,
    ) -> (Arc<Self>, mpsc::Receiver<SandboxEvent>) {
        let (sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let forwarder = tokio::spawn(forward(client.events(), sender, uid.clone(), cgroups.clone()));
        (Arc::new(Self { client, userns, holds: Mutex::default(), forwarder }), events)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

async fn forward(
    shim: Option<mpsc::Receiver<ShimEvent>>,
    sender: mpsc::Sender<SandboxEvent>,
    uid: Uid,
    cgroups: CgroupRoot,
) {
    let Some(mut shim) = shim else { return };
    while let Some(event) = shim.recv().await {
        let event = match event {
            ShimEvent::Exited { container, exit } => SandboxEvent::Exited {
                exit: fact(&cgroups, &uid, &container, exit).await,
                container: ContainerName::from_trusted(container),
            },
            ShimEvent::Gone => SandboxEvent::Gone,
        };
        if sender.send(event).await.is_err() {
            return;
        }
    }
}

/// The end of a container with its reason.
pub(super) async fn fact(cgroups: &CgroupRoot, uid: &Uid, container: &str, ended: Exit) -> strata_reconciler::ExitFact {
    let (cgroups, uid, container) = (cgroups.clone(), uid.clone(), container.to_owned());
    let kills = super::blocking(move || {
        let pod = PodCgroup::existing(&cgroups, uid.as_str()).ok()?;
        Some(ContainerCgroup::existing(&pod, &container).ok()?.oom_kills())
    });
    let kills = kills.await.ok().flatten().unwrap_or(0);
    exit::fact(&ended, kills > 0)
}
