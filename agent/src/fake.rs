//! A world for tests: a kernel that outlives agents, a clock that stands still, a controller on a real mutual-TLS stream.
#![allow(clippy::unwrap_used, clippy::panic)]

mod controller;

pub(crate) use controller::{Connection, Controller};

use crate::world::{
    Adopted, Clock, Events, Images, Inventory, Network, PeerNode, PodSpec, Probing, SandboxEvent, Sandboxes,
    ServiceRanges, StartedContainer, Trouble,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use strata_model::{Check, Container, ContainerName, ImageName, PinnedImage, Subnet, Uid};
use strata_proto::{dispatch, types};
use strata_reconciler::{Answer, ExitFact};
use tokio::sync::{mpsc, watch};

/// What is there whether an agent runs or not.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub sandboxes: BTreeMap<Uid, FakeSandbox>,
    pub writable: BTreeSet<Uid>,
    pub images: BTreeSet<String>,
    pub image_trouble: Option<Trouble>,
    pub start_trouble: Option<ExitFact>,
    /// Probe commands that fail.
    pub unhealthy: BTreeSet<String>,
    pub subnet: Option<Subnet>,
    pub peers: Vec<PeerNode>,
    /// Sequences of the frames of services taken in.
    pub services: Vec<u64>,
    /// Once.
    pub service_trouble: Option<Trouble>,
    /// What was done, in order.
    pub done: Vec<String>,
    next_pid: u32,
}

#[derive(Debug, Default)]
pub(crate) struct FakeSandbox {
    pub containers: BTreeMap<String, FakeContainer>,
    events: Option<mpsc::Sender<SandboxEvent>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FakeContainer {
    pub pid: u32,
    pub exit: Option<ExitFact>,
    /// Goes on after the stop signal.
    pub stubborn: bool,
}

/// One agent's view of it.
#[derive(Clone)]
pub(crate) struct World {
    kernel: Arc<Mutex<Kernel>>,
    clock: Arc<watch::Sender<u64>>,
    inventory: Arc<watch::Sender<u64>>,
}

pub(crate) fn exit(code: i32, unix_ms: u64) -> ExitFact {
    let reason = if code == 0 { "Completed" } else { "Error" };
    ExitFact { code, reason: reason.into(), message: String::new(), finished_unix_ms: unix_ms }
}

impl World {
    pub fn new() -> Self {
        Self {
            kernel: Arc::default(),
            clock: Arc::new(watch::Sender::new(1_000_000)),
            inventory: Arc::new(watch::Sender::new(0)),
        }
    }

    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap()
    }

    pub fn advance(&self, ms: u64) {
        self.clock.send_modify(|now| *now += ms);
    }

    /// The process of a container ends by itself.
    pub fn end(&self, uid: &str, container: &str, code: i32) {
        let at = self.unix_ms();
        let mut kernel = self.kernel();
        let sandbox = kernel.sandboxes.get_mut(uid).unwrap();
        sandbox.end(container, exit(code, at));
    }

    /// The shim is killed.
    pub fn kill_sandbox(&self, uid: &str) {
        self.kernel().sandboxes.remove(uid).unwrap();
    }

    /// Everything that lives is gone, everything on disk stays.
    pub fn reboot(&self) {
        let mut kernel = self.kernel();
        kernel.sandboxes.clear();
        kernel.subnet = None;
        kernel.done.push("reboot".into());
    }

    pub fn pid(&self, uid: &str, container: &str) -> Option<u32> {
        let kernel = self.kernel();
        kernel.sandboxes.get(uid)?.containers.get(container).filter(|c| c.exit.is_none()).map(|c| c.pid)
    }

    pub fn pulled(&self) {
        self.inventory.send_modify(|n| *n += 1);
    }
}

impl FakeSandbox {
    fn end(&mut self, container: &str, exit: ExitFact) {
        let c = self.containers.get_mut(container).unwrap();
        if c.exit.is_some() {
            return;
        }
        c.exit = Some(exit.clone());
        if let Some(events) = &self.events {
            // Nobody listens while no agent runs.
            events.try_send(SandboxEvent::Exited { container: ContainerName::from_trusted(container), exit }).ok();
        }
    }
}

impl Clock for World {
    fn now_ms(&self) -> u64 {
        *self.clock.borrow()
    }
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + *self.clock.borrow()
    }
    async fn sleep_until(&self, at: u64) {
        self.clock.subscribe().wait_for(|now| *now >= at).await.unwrap();
    }
}

impl Images for World {
    async fn has(&self, image: &PinnedImage) -> bool {
        self.kernel().images.contains(&image.digest.to_string())
    }
    async fn ensure(&self, image: &PinnedImage) -> Result<(), Trouble> {
        let mut kernel = self.kernel();
        if let Some(trouble) = &kernel.image_trouble {
            return Err(trouble.clone());
        }
        kernel.images.insert(image.digest.to_string());
        drop(kernel);
        self.pulled();
        Ok(())
    }
    async fn resolve(&self, name: &ImageName) -> Result<types::ImageSpec, Trouble> {
        match name.repository() {
            "library/known" => Ok(types::ImageSpec { digest: digest(), ..Default::default() }),
            _ => Err(Trouble::new("ImageNotFound", format!("{name} is in no registry"))),
        }
    }
    async fn inventory(&self) -> Inventory {
        Inventory { layers: vec![], images: self.kernel().images.iter().cloned().collect() }
    }
    fn inventory_changes(&self) -> watch::Receiver<u64> {
        self.inventory.subscribe()
    }
    fn layer_mount(&self) -> String {
        "File".into()
    }
}

impl Sandboxes for World {
    async fn make(&self, pod: &PodSpec) -> Result<Events, Trouble> {
        let (events, receiver) = mpsc::channel(16);
        let mut kernel = self.kernel();
        kernel.done.push(format!("make {} attempt {}", pod.uid, pod.attempt));
        kernel.writable.insert(pod.uid.clone());
        let sandbox = FakeSandbox { containers: BTreeMap::new(), events: Some(events) };
        assert!(kernel.sandboxes.insert(pod.uid.clone(), sandbox).is_none(), "two sandboxes of {}", pod.uid);
        Ok(receiver)
    }
    async fn adopt(&self, pod: &PodSpec) -> Result<Option<Adopted>, Trouble> {
        let (events, receiver) = mpsc::channel(16);
        let mut kernel = self.kernel();
        let Some(sandbox) = kernel.sandboxes.get_mut(&pod.uid) else { return Ok(None) };
        sandbox.events = Some(events);
        let name = |n: &String| ContainerName::from_trusted(n.clone());
        let running =
            sandbox.containers.iter().filter(|(_, c)| c.exit.is_none()).map(|(n, c)| (name(n), c.pid)).collect();
        let exited = sandbox.containers.iter().filter_map(|(n, c)| Some((name(n), c.exit.clone()?))).collect();
        Ok(Some(Adopted { events: receiver, running, exited }))
    }
    async fn start(&self, pod: &PodSpec, container: &Container) -> Result<StartedContainer, ExitFact> {
        let mut kernel = self.kernel();
        if let Some(exit) = &kernel.start_trouble {
            return Err(exit.clone());
        }
        kernel.next_pid += 1;
        let pid = 1000 + kernel.next_pid;
        kernel.done.push(format!("start {} {}", pod.uid, container.name));
        let stubborn = container.command.iter().any(|c| c == "stubborn");
        let sandbox = kernel.sandboxes.get_mut(&pod.uid).unwrap();
        let before = sandbox.containers.insert(container.name.to_string(), FakeContainer { pid, exit: None, stubborn });
        assert!(before.is_none_or(|c| c.exit.is_some()), "two runs of {} in {}", container.name, pod.uid);
        Ok(StartedContainer { pid })
    }
    async fn signal(&self, pod: &PodSpec, container: &ContainerName) -> Result<(), Trouble> {
        let at = self.unix_ms();
        let mut kernel = self.kernel();
        kernel.done.push(format!("signal {} {container}", pod.uid));
        let sandbox = kernel.sandboxes.get_mut(&pod.uid).ok_or_else(|| Trouble::new("Gone", "no sandbox"))?;
        if !sandbox.containers[container.as_str()].stubborn {
            sandbox.end(container.as_str(), exit(143, at));
        }
        Ok(())
    }
    async fn kill(&self, pod: &PodSpec, container: &ContainerName) -> Result<(), Trouble> {
        let at = self.unix_ms();
        let mut kernel = self.kernel();
        kernel.done.push(format!("kill {} {container}", pod.uid));
        kernel.sandboxes.get_mut(&pod.uid).unwrap().end(container.as_str(), exit(137, at));
        Ok(())
    }
    async fn acknowledge(&self, uid: &Uid, container: &ContainerName) {
        if let Some(sandbox) = self.kernel().sandboxes.get_mut(uid)
            && sandbox.containers.get(container.as_str()).is_some_and(|c| c.exit.is_some())
        {
            sandbox.containers.remove(container.as_str());
        }
    }
    async fn remove(&self, uid: &Uid) -> Result<(), Trouble> {
        self.kernel().sandboxes.remove(uid);
        Ok(())
    }
    async fn discard(&self, uid: &Uid) -> Result<(), Trouble> {
        self.kernel().writable.remove(uid);
        Ok(())
    }
    async fn forget(&self, _uid: &Uid) -> Result<(), Trouble> {
        Ok(())
    }
    async fn sweep(&self, keep: &[PodSpec]) -> Result<(), Trouble> {
        self.kernel().done.push(format!("sweep but {}", keep.len()));
        Ok(())
    }
}

impl Probing for World {
    async fn probe(&self, pod: &PodSpec, container: &ContainerName, check: &Check, _: Duration) -> Answer {
        let mut kernel = self.kernel();
        kernel.done.push(format!("probe {} {container}", pod.uid));
        let Check::Exec(command) = check else { panic!("only commands are asked here") };
        let good = !kernel.unhealthy.contains(&command.join(" "));
        Answer { good, message: if good { String::new() } else { "not well".into() } }
    }
}

impl Network for World {
    async fn set_subnet(&self, subnet: Subnet) -> Result<(), Trouble> {
        self.kernel().subnet = Some(subnet);
        Ok(())
    }
    async fn set_peers(&self, peers: &[PeerNode]) -> Result<(), Trouble> {
        self.kernel().peers = peers.to_vec();
        Ok(())
    }
    async fn set_services(&self, _: &ServiceRanges, frame: &dispatch::Services) -> Result<(), Trouble> {
        let mut kernel = self.kernel();
        if let Some(trouble) = kernel.service_trouble.take() {
            return Err(trouble);
        }
        kernel.services.push(frame.sequence);
        Ok(())
    }
    fn pod_address(&self, index: u32) -> Option<Ipv4Addr> {
        self.kernel().subnet?.address(index)
    }
}

pub(crate) fn digest() -> String {
    format!("sha256:{}", "1".repeat(64))
}

/// A template revision with one container.
pub(crate) fn template(
    revision: &str,
    restart: types::pod_template::RestartPolicy,
    command: &str,
) -> dispatch::Template {
    let container = types::Container {
        name: "main".into(),
        image: "a/b:1".into(),
        image_digest: digest(),
        command: vec![command.into()],
        ..Default::default()
    };
    let mut pod = types::PodTemplate { containers: vec![container], ..Default::default() };
    pod.set_restart_policy(restart);
    let image =
        types::PinnedImage { name: "docker.io/a/b:1".into(), digest: digest(), from_registry: true, layers: vec![] };
    dispatch::Template {
        revision: revision.into(),
        spec: Some(types::TemplateSpec { pod: Some(pod), images: vec![image], ..Default::default() }),
        ..Default::default()
    }
}

/// An assignment of the pod to this node.
pub(crate) fn assignment(uid: &str, revision: &str, index: u32) -> dispatch::Assignment {
    dispatch::Assignment {
        uid: uid.into(),
        namespace: "default".into(),
        name: format!("pod-{uid}"),
        template_revision: revision.into(),
        address_index: index,
        ..Default::default()
    }
}
