//! What image builds ask of this machine: images by name, and containers for their RUN steps.
//!
//! A step's container is made as a pod's is: a sandbox of its own (user, network, pid, ipc and uts namespaces, cgroup), seccomp and capabilities
//! as by default. It belongs to no pod and to no ledger: an agent that starts sweeps its cgroup and its directory away.
//!
//! ```text
//! STATE/builds/run-<n>/u, w          its writable layer
//! STATE/builds/run-<n>/pod/          its shim's socket and log
//! ```

mod image;
mod output;

use super::{Node, blocking, etc, lock, network::LINK, sandboxes};
use crate::world::Network as _;
use futures::future::BoxFuture;
use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use strata_build::{Ended, Events, RunStep, World};
use strata_image::StoredImage;
use strata_model::{
    ImageName,
    limits::{BUILD_ADDRESSES, CLUSTER_DOMAIN, IDS_PER_POD, PIDS_DEFAULT},
};
use strata_network::host_ifname;
use strata_peer::AskController;
use strata_runtime::{
    SandboxRequest, ShimClient, ShimEvent, StartRequest,
    cgroup::{ContainerCgroup, Limits, PodCgroup},
    logs,
    plan::plan_init,
    spec::{ContainerRequest, UserFiles, container_spec},
};
use tokio::sync::mpsc;

/// The container's name in its sandbox, and the host name it sees.
const NAME: &str = "build";
/// Whose services it finds by their short names.
const NAMESPACE: &str = "default";

/// This machine as builds see it.
pub struct BuildWorld {
    node: Arc<Node>,
    controller: Arc<dyn AskController>,
    /// Which of the addresses for builds are taken.
    slots: Mutex<[bool; BUILD_ADDRESSES as usize]>,
}

/// One of the places for containers of builds: its ids and its address.
struct Slot<'a> {
    world: &'a BuildWorld,
    number: u32,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(taken) = lock(&self.world.slots).get_mut(self.number as usize) {
            *taken = false;
        }
    }
}

/// A container that runs.
struct Running {
    client: ShimClient,
    events: mpsc::Receiver<ShimEvent>,
}

impl World for BuildWorld {
    fn image<'a>(&'a self, name: &'a ImageName, fresh: bool) -> BoxFuture<'a, Result<Arc<StoredImage>, String>> {
        Box::pin(image::ensure(&self.node, &*self.controller, name, fresh))
    }

    fn run<'a>(&'a self, step: RunStep, events: &'a Events) -> BoxFuture<'a, Result<Ended, String>> {
        Box::pin(self.run_step(step, events))
    }
}

impl BuildWorld {
    /// Builds on this node; the controller knows what names mean.
    #[must_use]
    pub fn new(node: Arc<Node>, controller: Arc<dyn AskController>) -> Self {
        Self { node, controller, slots: Mutex::default() }
    }

    fn slot(&self) -> Result<Slot<'_>, String> {
        let mut slots = lock(&self.slots);
        let free = slots.iter().position(|taken| !taken).ok_or_else(|| {
            format!("{BUILD_ADDRESSES} steps of builds run on this node already; try again when one has ended")
        })?;
        slots[free] = true;
        Ok(Slot { world: self, number: u32::try_from(free).unwrap_or(0) })
    }

    async fn run_step(&self, step: RunStep, events: &Events) -> Result<Ended, String> {
        let slot = self.slot()?;
        let uid = uuid::Uuid::new_v4().to_string();
        let dir = step.writable.join("pod");
        let ended = match self.start(&step, &uid, &dir, &slot).await {
            Ok(running) => self.follow(running, &step, &uid, &dir, events).await,
            Err(why) => Err(why),
        };
        // Whatever happened: the container and its sandbox go before anybody looks at the writable layer.
        let gone = self.remove(&uid, &dir).await;
        drop(slot);
        let ended = ended?;
        gone.map(|()| ended)
    }

    async fn start(&self, step: &RunStep, uid: &str, dir: &Path, slot: &Slot<'_>) -> Result<Running, String> {
        let node = &self.node;
        let last = lock(&node.subnet).map_or(u32::from(u16::MAX), strata_model::Subnet::last_index);
        let index = last.saturating_sub(slot.number);
        let id_base = index.checked_mul(IDS_PER_POD).and_then(|n| n.checked_add(node.setup.id_start));
        let id_base = id_base.filter(|base| base.checked_add(IDS_PER_POD).is_some());
        let id_base = id_base.ok_or("the ids of a build would end beyond 32 bits: lower id_start")?;
        let (made, cgroups, owner) = (dir.to_owned(), node.setup.cgroups.clone(), uid.to_owned());
        let joins = blocking(move || {
            sandboxes::make_dirs(&made).map_err(|e| format!("making {}: {e}", made.display()))?;
            let group = PodCgroup::create(&cgroups, &owner).and_then(|pod| pod.shim()).and_then(|shim| shim.join_fds());
            group.map_err(|e| e.to_string())
        });
        let request = SandboxRequest {
            pod_dir: dir.to_owned(),
            hostname: NAME.into(),
            id_base,
            sysctls: Vec::new(),
            cgroups: joins.await.map_err(|t| t.message)??,
        };
        let sandbox = node.setup.zygote.create_sandbox(request).await.map_err(|e| e.to_string())?;
        if step.network {
            self.attach(uid, dir, index, &sandbox.netns).await?;
        }
        let (client, _) = sandboxes::connect(dir).await.map_err(|e| e.to_string())?;
        let events = client.events().ok_or("the shim's events are taken already")?;
        let request = self.request(step, uid, dir, sandbox.userns).await?;
        client.start(request).await.map_err(|e| e.to_string())?;
        Ok(Running { client, events })
    }

    /// The container as the shim shall start it.
    async fn request(&self, step: &RunStep, uid: &str, dir: &Path, userns: OwnedFd) -> Result<StartRequest, String> {
        let node = &self.node;
        let (layers, facts, cgroups) =
            (node.setup.images.layers().clone(), node.facts.clone(), node.setup.cgroups.clone());
        let (under, writable, uid, dir) = (step.layers.clone(), step.writable.clone(), uid.to_owned(), dir.to_owned());
        let mut wanted = ContainerRequest {
            command: step.args.clone(),
            env: step.env.clone(),
            working_dir: Some(step.working_dir.clone()),
            user: Some(step.user.clone()),
            hostname: NAME.into(),
            ..ContainerRequest::default()
        };
        let made = blocking(move || {
            let root =
                layers.mount_overlay(&under, &writable, Some(userns.as_fd()), true).map_err(|e| e.to_string())?;
            let (mounts, binds) = etc::mounts(&dir, userns.as_fd())?;
            wanted.mounts = mounts;
            let users = UserFiles::read(root.as_fd()).map_err(|e| e.to_string())?;
            let spec = container_spec(&wanted, &users).map_err(|e| e.to_string())?;
            let plan = plan_init(&spec, &facts).map_err(|e| e.to_string())?;
            let limits =
                Limits { cpu_millis: 0, cpu_request_millis: 0, memory_bytes: 0, pids: u64::from(PIDS_DEFAULT) };
            let cgroup = PodCgroup::create(&cgroups, &uid)
                .and_then(|pod| ContainerCgroup::create(&pod, NAME, &limits))
                .and_then(|group| group.join_fds());
            let [log_a, log_b] = logs::open(&dir.join("log"), NAME).map_err(|e| e.to_string())?;
            Ok::<_, String>(StartRequest {
                name: NAME.into(),
                plan,
                overlay: root,
                cgroups: cgroup.map_err(|e| e.to_string())?,
                binds,
                log_a: log_a.into(),
                log_b: log_b.into(),
                log_limit_bytes: logs::DEFAULT_LIMIT_BYTES,
                stdin: None,
                keeps_stdin: false,
            })
        });
        made.await.map_err(|t| t.message)?
    }

    async fn attach(&self, uid: &str, dir: &Path, index: u32, netns: &OwnedFd) -> Result<(), String> {
        let network = self.node.network().map_err(|t| t.message)?;
        let address = self.node.pod_address(index).ok_or("the node's subnet has no address for builds")?;
        let link = host_ifname(&format!("{uid}/{}", uuid::Uuid::new_v4()));
        let path: PathBuf = dir.join(LINK);
        std::fs::write(&path, &link).map_err(|e| format!("writing {}: {e}", path.display()))?;
        network.attach(netns.as_fd(), &link, address).await.map_err(|e| e.to_string())?;
        let told = self.node.names.domain();
        let domain = if told.is_empty() { CLUSTER_DOMAIN } else { &told };
        etc::write(dir, NAME, address, NAMESPACE, (network.gateway(), domain))
            .map_err(|e| format!("writing {}: {e}", dir.join("etc").display()))
    }

    /// Passes output on and waits for the end, the bound, or that nobody listens any more.
    async fn follow(
        &self,
        mut running: Running,
        step: &RunStep,
        uid: &str,
        dir: &Path,
        events: &Events,
    ) -> Result<Ended, String> {
        let output = output::Output::follow(&dir.join("log"), NAME, events.clone());
        let code = async {
            match running.events.recv().await {
                Some(ShimEvent::Exited { exit, .. }) => Ok(exit.code),
                _ => Err("the container's shim has died, perhaps for want of memory".to_owned()),
            }
        };
        let ended = tokio::select! {
            code = code => code.map(Ended::Exit),
            () = tokio::time::sleep(step.timeout) => Ok(Ended::TooLong),
            () = events.closed() => Ok(Ended::Cancelled),
        };
        if !matches!(ended, Ok(Ended::Exit(_))) {
            self.kill(uid).await;
        }
        output.finish().await;
        drop(running.client);
        ended
    }

    async fn kill(&self, uid: &str) {
        let (cgroups, uid) = (self.node.setup.cgroups.clone(), uid.to_owned());
        let killed = blocking(move || {
            let pod = PodCgroup::existing(&cgroups, &uid)?;
            ContainerCgroup::existing(&pod, NAME)?.kill_all()
        });
        if let Ok(Err(error)) = killed.await {
            tracing::debug!("the container of a build is not killed by its cgroup, its sandbox goes now: {error}");
        }
    }

    /// Removes the sandbox with all in it: its cgroup ends shim and processes, and with them its namespaces and mounts.
    async fn remove(&self, uid: &str, dir: &Path) -> Result<(), String> {
        let (cgroups, uid, dir) = (self.node.setup.cgroups.clone(), uid.to_owned(), dir.to_owned());
        let removed = blocking(move || {
            PodCgroup::existing(&cgroups, &uid).and_then(|pod| pod.remove()).map_err(|e| e.to_string())?;
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("removing {}: {e}", dir.display())),
                _ => Ok(()),
            }
        });
        removed.await.map_err(|t| t.message)?
    }
}
