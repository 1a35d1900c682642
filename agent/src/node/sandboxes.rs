//! Sandboxes of this machine: made by the zygote, kept by their shims, bounded by cgroups.

use super::{Node, blocking, exit, live, live::Live, lock, network::LINK, volumes};
use crate::{
    timeline::Step,
    world::{Adopted, Clock, Events, PodSpec, Sandboxes, StartedContainer, Trouble},
};
use std::{io, path::Path, sync::Arc, time::Duration};
use strata_layer::discard_writable;
use strata_model::{Container, ContainerName, Uid, limits::IDS_PER_POD, signal};
use strata_reconciler::ExitFact;
use strata_runtime::{
    Error, SandboxRequest, ShimClient,
    cgroup::{ContainerCgroup, PodCgroup},
};
use tokio::time::timeout;

/// How long a shim may take to answer when it is looked for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Sandboxes for Node {
    async fn make(&self, pod: &PodSpec) -> Result<Events, Trouble> {
        self.network()?;
        self.remove(&pod.uid).await?;
        let id_base = pod.address_index.checked_mul(IDS_PER_POD).and_then(|n| n.checked_add(self.setup.id_start));
        let id_base = id_base.filter(|b| b.checked_add(IDS_PER_POD).is_some()).ok_or_else(|| {
            Trouble::new(
                "CreateError",
                format!("ids of the pod at index {} would end beyond 32 bits: lower id_start", pod.address_index),
            )
        })?;
        let (dir, cgroups, uid) = (pod.dir.clone(), self.setup.cgroups.clone(), pod.uid.clone());
        let pod_name = pod.name.name.as_str();
        let timed = Step::begin(pod_name, "sandbox: directory and cgroup");
        let joins = blocking(move || {
            make_dirs(&dir).map_err(|e| no_directory(&dir, &e))?;
            let group = PodCgroup::create(&cgroups, uid.as_str()).and_then(|p| p.shim()).and_then(|s| s.join_fds());
            group.map_err(create_error)
        })
        .await??;
        drop(timed);
        let request = SandboxRequest {
            pod_dir: pod.dir.clone(),
            hostname: hostname(pod),
            id_base,
            sysctls: pod.template.pod.sysctls.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            cgroups: joins,
        };
        let timed = Step::begin(pod_name, "sandbox: namespaces and shim");
        let made = self.setup.zygote.create_sandbox(request).await.map_err(create_error)?;
        drop(timed);
        let attached = async {
            use std::os::fd::AsFd;
            let timed = Step::begin(pod_name, "sandbox: network");
            self.attach(pod, made.netns.as_fd()).await?;
            drop(timed);
            let _timed = Step::begin(pod_name, "sandbox: connection to the shim");
            connect(&pod.dir).await.map_err(create_error)
        };
        match attached.await {
            Ok((client, _)) => Ok(self.take(&pod.uid, client, made.userns)),
            Err(trouble) => {
                self.remove(&pod.uid).await?;
                Err(trouble)
            }
        }
    }

    async fn adopt(&self, pod: &PodSpec) -> Result<Option<Adopted>, Trouble> {
        let (client, state) = match connect(&pod.dir).await {
            Ok(found) => found,
            Err(e) if is_gone(&e) => return Ok(None),
            Err(e) => return Err(create_error(e)),
        };
        let (mut running, mut exited) = (Vec::new(), Vec::new());
        for c in state.containers {
            let name = ContainerName::from_trusted(c.name.clone());
            match (c.process, c.exit) {
                (_, Some(ended)) => {
                    exited.push((name, live::fact(&self.setup.cgroups, &pod.uid, &c.name, ended).await))
                }
                (Some(process), None) => running.push((name, process.pid)),
                // It ended just now: its event comes.
                (None, None) => running.push((name, 0)),
            }
        }
        let events = self.take(&pod.uid, client, state.userns);
        for container in &pod.template.pod.containers {
            if running.iter().any(|(name, _)| *name == container.name) {
                self.hold_image(pod, container);
                // An agent that died while it read the container's files has left it frozen.
                self.thaw(&pod.uid, &container.name);
            }
        }
        Ok(Some(Adopted { events, running, exited }))
    }

    async fn start(&self, pod: &PodSpec, container: &Container) -> Result<StartedContainer, ExitFact> {
        match self.live(&pod.uid) {
            Some(live) => self.start_in(&live, pod, container).await,
            None => Err(exit::start_error(128, "the pod's sandbox is gone", self.unix_ms())),
        }
    }

    async fn signal(&self, pod: &PodSpec, container: &ContainerName) -> Result<(), Trouble> {
        let wanted = pod.template.pod.containers.iter().find(|c| c.name == *container);
        let image = wanted.and_then(|c| pod.image_of(c)).and_then(|i| self.setup.images.image(&i.digest));
        let of_image = image.and_then(|i| i.config.config().as_ref().and_then(|c| c.stop_signal().clone()));
        let text = wanted.map(|c| c.stop_signal.clone()).filter(|s| !s.is_empty()).or(of_image).unwrap_or_default();
        let number = if text.is_empty() {
            signal::TERM
        } else {
            signal::number(&text).unwrap_or_else(|| {
                tracing::warn!(pod = %pod.uid, %container, "the stop signal {text:?} is unknown, SIGTERM is sent");
                signal::TERM
            })
        };
        self.send(&pod.uid, container, number).await
    }

    async fn kill(&self, pod: &PodSpec, container: &ContainerName) -> Result<(), Trouble> {
        let sent = self.send(&pod.uid, container, signal::KILL).await;
        let (cgroups, uid, name) = (self.setup.cgroups.clone(), pod.uid.clone(), container.clone());
        blocking(move || {
            let group = PodCgroup::existing(&cgroups, uid.as_str())?;
            ContainerCgroup::existing(&group, name.as_str())?.kill_all()
        })
        .await?
        .map_err(create_error)?;
        // What the cgroup has killed needs no shim.
        if let Err(trouble) = sent {
            tracing::debug!(pod = %pod.uid, "{trouble}");
        }
        Ok(())
    }

    async fn acknowledge(&self, uid: &Uid, container: &ContainerName) {
        if let Some(live) = self.live(uid)
            && let Err(e) = live.client.acknowledge(container.as_str()).await
        {
            // It will be told again, and is known then.
            tracing::debug!(pod = %uid, %container, "its end is not acknowledged: {e}");
        }
    }

    async fn remove(&self, uid: &Uid) -> Result<(), Trouble> {
        let live = lock(&self.pods).remove(uid);
        if let Some(live) = live
            && let Err(e) = live.client.shutdown().await
        {
            tracing::debug!(pod = %uid, "its shim does not say goodbye: {e}");
        }
        let (cgroups, uid, dir) = (self.setup.cgroups.clone(), uid.clone(), self.pod_dir(uid));
        // The shim itself is in there: whatever it is doing, it ends here, and the pod's namespaces with it.
        blocking(move || {
            PodCgroup::existing(&cgroups, uid.as_str())?.remove()?;
            let link = dir.join(LINK);
            match std::fs::remove_file(&link) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => tracing::debug!("removing {}: {e}", link.display()),
                _ => {}
            }
            Ok::<(), Error>(())
        })
        .await?
        .map_err(|e| Trouble::new("RemoveError", e.to_string()))
    }

    async fn discard(&self, uid: &Uid) -> Result<(), Trouble> {
        let dir = self.pod_dir(uid);
        blocking(move || {
            let containers = dir.join("c");
            volumes::unmount(&dir).map_err(|e| Trouble::new("RemoveError", e.to_string()))?;
            let entries = match std::fs::read_dir(&containers) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(Trouble::new("RemoveError", format!("reading {}: {e}", containers.display()))),
            };
            for entry in entries.flatten() {
                let path = entry.path();
                discard_writable(&path).map_err(|e| Trouble::new("RemoveError", e.to_string()))?;
                std::fs::remove_dir_all(&path)
                    .map_err(|e| Trouble::new("RemoveError", format!("removing {}: {e}", path.display())))?;
            }
            Ok(())
        })
        .await?
    }

    async fn forget(&self, uid: &Uid) -> Result<(), Trouble> {
        let dir = self.pod_dir(uid);
        blocking(move || volumes::forget(&dir)).await?.map_err(|e| Trouble::new("RemoveError", e.to_string()))
    }

    async fn sweep(&self, keep: &[PodSpec]) -> Result<(), Trouble> {
        let keep: Vec<String> = keep.iter().map(|p| p.uid.to_string()).collect();
        let (cgroups, state_dir) = (self.setup.cgroups.clone(), self.setup.state_dir.clone());
        blocking(move || {
            if let Err(e) = volumes::sweep_named(&state_dir) {
                tracing::warn!("removed volumes are still on the disk: {e}");
            }
            for pod in cgroups.pods().into_iter().filter(|p| !keep.contains(p)) {
                tracing::info!(pod, "removing what is left of a pod that is in no ledger");
                PodCgroup::existing(&cgroups, &pod)?.remove()?;
            }
            Ok::<(), Error>(())
        })
        .await?
        .map_err(|e| Trouble::new("RemoveError", e.to_string()))
    }
}

impl Node {
    fn take(&self, uid: &Uid, client: ShimClient, userns: std::os::fd::OwnedFd) -> Events {
        let (live, events) = Live::new(client, userns, uid, &self.setup.cgroups);
        lock(&self.pods).insert(uid.clone(), live);
        events
    }

    async fn send(&self, uid: &Uid, container: &ContainerName, signal: i32) -> Result<(), Trouble> {
        let live = self.live(uid).ok_or_else(|| Trouble::new("Gone", "the pod's sandbox is gone"))?;
        let sent = live.client.signal(container.as_str(), signal).await;
        sent.map_err(|e| Trouble::new("SignalError", format!("sending signal {signal} to {container}: {e}")))
    }

    /// The client of a pod's shim, for execs.
    #[must_use]
    pub fn shim(&self, uid: &Uid) -> Option<ShimClient> {
        self.live(uid).map(|l| Arc::clone(&l)).map(|l| l.client.clone())
    }
}

pub(super) async fn connect(dir: &Path) -> Result<(ShimClient, strata_runtime::ShimState), Error> {
    timeout(CONNECT_TIMEOUT, ShimClient::connect(dir))
        .await
        .unwrap_or_else(|_| Err(Error::Timeout { peer: "shim".into(), seconds: CONNECT_TIMEOUT.as_secs() }))
}

/// No shim was ever made there, or it has died.
fn is_gone(e: &Error) -> bool {
    match e {
        Error::Io { source, .. } => {
            matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        }
        Error::Gone { .. } => true,
        _ => false,
    }
}

fn create_error(e: Error) -> Trouble {
    Trouble::new("CreateError", e.to_string())
}

fn no_directory(dir: &Path, e: &io::Error) -> Trouble {
    let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let (reason, hint) = if full { ("DiskFull", "; free space on the node's disk") } else { ("CreateError", "") };
    Trouble::new(reason, format!("making {}: {e}{hint}", dir.display()))
}

/// Only root may look into a pod's directory: its socket commands the pod.
pub(super) fn make_dirs(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("log"))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("c"))
}

/// The template's, else the pod's name; the kernel takes 64 bytes, DNS labels have 63.
pub(super) fn hostname(pod: &PodSpec) -> String {
    let wanted = &pod.template.pod.hostname;
    let name = if wanted.is_empty() { &pod.name.name } else { wanted };
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}
