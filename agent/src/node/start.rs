//! Starting a container: image and template to specification, plan, root, limits; then the shim.

use super::{
    Node, blocking,
    environment::{Environment, Whereabouts, environment},
    etc, exit,
    live::Live,
    lock,
    sandboxes::hostname,
    volumes,
};
use crate::{
    timeline::Step,
    world::{Clock, Network, PodSpec, StartedContainer},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};
use strata_image::StoredImage;
use strata_layer::{LayerStore, prepare_writable};
use strata_model::{Container, Digest, PodTemplate, limits::PIDS_DEFAULT};
use strata_reconciler::ExitFact;
use strata_runtime::{
    StartRequest,
    cgroup::{ContainerCgroup, Limits, PodCgroup},
    logs,
    plan::plan_init,
    spec::{BindMount, ContainerRequest, UserFiles, container_spec},
};

/// Why a start failed: what it counts as, and the sentence.
struct Failed(i32, String);

impl From<strata_runtime::Error> for Failed {
    fn from(e: strata_runtime::Error) -> Self {
        Self(e.exit_code(), e.to_string())
    }
}

impl From<strata_layer::LayerError> for Failed {
    fn from(e: strata_layer::LayerError) -> Self {
        Self(128, e.to_string())
    }
}

impl Node {
    pub(super) async fn start_in(
        &self,
        live: &Arc<Live>,
        pod: &PodSpec,
        container: &Container,
    ) -> Result<StartedContainer, ExitFact> {
        match self.try_start(live, pod, container).await {
            Ok(pid) => Ok(StartedContainer { pid }),
            Err(Failed(code, message)) => Err(exit::start_error(code, message, self.unix_ms())),
        }
    }

    async fn try_start(&self, live: &Arc<Live>, pod: &PodSpec, container: &Container) -> Result<u32, Failed> {
        let image = pod.image_of(container).and_then(|i| self.setup.images.image(&i.digest));
        let image =
            image.ok_or_else(|| Failed(128, format!("image {} is not on the node any more", container.image)))?;
        self.hold_image(pod, container);
        let _lock = self.writable_lock(&pod.uid, &container.name).lock_owned().await;
        let (live_, pod_, container_, image_) = (live.clone(), pod.clone(), container.clone(), image.clone());
        let (facts, cgroups) = (self.facts.clone(), self.setup.cgroups.clone());
        let layers = self.setup.images.layers().clone();
        let here = Whereabouts {
            node: self.setup.name.clone(),
            host_address: self.setup.address,
            pod_address: self.pod_address(pod.address_index).map(Into::into),
        };
        let state_dir = self.setup.state_dir.clone();
        let request = blocking(move || {
            let name = container_.name.as_str();
            let pod_name = pod_.name.name.as_str();
            let timed = Step::begin(pod_name, "container: root");
            let root = make_root(&layers, &image_, &pod_.dir.join("c").join(name), &live_.userns)?;
            drop(timed);
            let (etc_binds, mut trees) =
                etc::mounts(&pod_.dir, live_.userns.as_fd()).map_err(|why| Failed(128, why))?;
            let env = environment(&pod_, &container_, &here).map_err(|why| Failed(128, why))?;
            let timed = Step::begin(pod_name, "container: volumes");
            let mounts = volumes::mounts(&state_dir, &pod_, &container_, live_.userns.as_fd());
            let mounts = mounts.map_err(|why| Failed(128, why))?;
            trees.extend(mounts.trees);
            drop(timed);
            let timed = Step::begin(pod_name, "container: specification and plan");
            let mut wanted = request(&pod_, &container_, &image_, env, mounts.binds);
            wanted.mounts.splice(0..0, etc_binds);
            let spec = container_spec(&wanted, &UserFiles::read(root.as_fd())?)?;
            let plan = plan_init(&spec, &facts)?;
            drop(timed);
            let timed = Step::begin(pod_name, "container: cgroup");
            let group = PodCgroup::create(&cgroups, pod_.uid.as_str())?;
            // A new group for each run: its count of kills for want of memory is this run's.
            ContainerCgroup::existing(&group, name)?.remove()?;
            let cgroup = ContainerCgroup::create(&group, name, &limits(&container_))?;
            drop(timed);
            let [log_a, log_b] = logs::open(&pod_.dir.join("log"), name)?;
            Ok::<_, Failed>(StartRequest {
                name: name.to_owned(),
                plan,
                overlay: root,
                cgroups: cgroup.join_fds()?,
                binds: trees,
                log_a: log_a.into(),
                log_b: log_b.into(),
                log_limit_bytes: logs::DEFAULT_LIMIT_BYTES,
                stdin: None,
                keeps_stdin: container_.stdin,
            })
        });
        let request = request.await.map_err(|t| Failed(128, t.message))??;
        let timed = Step::begin(&pod.name.name, "container: launch by the shim");
        let process = live.client.start(request).await?;
        drop(timed);
        self.used(&image);
        Ok(process.pid)
    }

    /// Keeps the image of a container from being removed for as long as its sandbox lives.
    pub(super) fn hold_image(&self, pod: &PodSpec, container: &Container) {
        let (Some(live), Some(pinned)) = (self.live(&pod.uid), pod.image_of(container)) else { return };
        let digests: Vec<Digest> = pinned.layers.iter().map(|l| l.diff_id.clone()).collect();
        let mut lease = self.setup.images.lease();
        lease.hold(&pinned.digest);
        digests.iter().for_each(|d| lease.hold(d));
        let mut holds = lock(&live.holds);
        // Restarts hold the same again: the newest per container is enough.
        holds.truncate(strata_model::limits::CONTAINERS_MAX - 1);
        holds.insert(0, (self.setup.images.layers().hold(&digests), lease));
    }
}

/// An image's layers, the lowest first.
pub(super) fn lowers_of(image: &StoredImage) -> Vec<Digest> {
    image.layers.iter().map(|l| l.diff_id.clone()).collect()
}

/// The container's root: its image's layers below its own writable one, with the pod's ids. Never synced: a writable layer
/// lives no longer than the boot.
fn make_root(layers: &LayerStore, image: &StoredImage, dir: &Path, userns: &OwnedFd) -> Result<OwnedFd, Failed> {
    let lowers = lowers_of(image);
    std::fs::create_dir_all(dir).map_err(|e| Failed(128, format!("making {}: {e}", dir.display())))?;
    prepare_writable(dir, layers.root_attributes(&lowers)?)?;
    Ok(layers.mount_overlay(&lowers, dir, Some(userns.as_fd()), true)?)
}

/// What the container shall be: the template's word, else the pod's, else the image's.
fn request(
    pod: &PodSpec,
    c: &Container,
    image: &StoredImage,
    env: Environment,
    mounts: Vec<BindMount>,
) -> ContainerRequest {
    let template: &PodTemplate = &pod.template.pod;
    let (own, all) = (&c.security, &template.security);
    ContainerRequest {
        image: image.config.clone(),
        command: env.command,
        args: env.args,
        env: env.variables,
        working_dir: Some(c.working_dir.clone()).filter(|d| !d.is_empty()),
        user: own.run_as_user.or(all.run_as_user).map(|uid| uid.to_string()),
        run_as_group: own.run_as_group.or(all.run_as_group),
        run_as_non_root: own.run_as_non_root.or(all.run_as_non_root).unwrap_or(false),
        groups: all.supplemental_groups.clone(),
        add_capabilities: own.add_capabilities.clone(),
        drop_capabilities: own.drop_capabilities.clone(),
        read_only_root: own.read_only_root,
        allow_privilege_escalation: own.allow_privilege_escalation,
        tty: c.tty,
        hostname: hostname(pod),
        mounts,
        open_files: None,
    }
}

fn limits(c: &Container) -> Limits {
    let pids = if c.limits.pids == 0 { PIDS_DEFAULT } else { c.limits.pids };
    Limits {
        cpu_millis: c.limits.cpu_millis,
        cpu_request_millis: if c.requests.cpu_millis == 0 { c.limits.cpu_millis } else { c.requests.cpu_millis },
        memory_bytes: c.limits.memory_bytes,
        pids: u64::from(pids),
    }
}
