//! Which pods are behind which service, and what each connection of a node was told of it.

mod session;

pub use session::{ServiceFrame, ServiceSession};

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::net::Ipv4Addr;
use strata_model::{
    Endpoint, Labels, Millis, ObjectName, Protocol, ServiceSpec, ServiceView, TargetPort, Uid, limits::ENDPOINTS_MAX,
};

/// Removed services that are remembered for deltas; a session that is further behind gets a full frame.
pub const REMOVED_SERVICES_KEPT: usize = 1024;

/// Whether a pod can be behind a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Serving {
    /// It does not run, or is to stop.
    Not,
    /// It runs, but not ready: only services that publish such pods have it.
    Unready,
    /// Ready.
    Ready,
}

/// A pod as services see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// The pod.
    pub uid: Uid,
    /// Where its services are.
    pub namespace: String,
    /// What selectors look at.
    pub labels: Labels,
    /// None without an address.
    pub address: Option<Ipv4Addr>,
    /// Where it runs.
    pub node: String,
    /// Its own name in DNS; "" = none.
    pub hostname: String,
    /// Whether it can be behind a service.
    pub serving: Serving,
    /// Its named container ports.
    pub ports: Vec<(String, Protocol, u16)>,
}

impl PodFacts {
    /// The pod behind a service, if it is.
    #[must_use]
    pub fn endpoint(&self, spec: &ServiceSpec) -> Option<Endpoint> {
        let wanted = if spec.publish_not_ready { Serving::Unready } else { Serving::Ready };
        if self.serving < wanted || !selects(&spec.selector, &self.labels) {
            return None;
        }
        let named = |name: &str, protocol| {
            self.ports.iter().find(|(n, p, _)| n == name && *p == protocol).map_or(0, |(_, _, port)| *port)
        };
        let ports = spec.ports.iter().map(|p| match &p.target {
            TargetPort::Number(port) => *port,
            TargetPort::Named(name) => named(name, p.protocol),
        });
        Some(Endpoint {
            address: self.address?,
            node: self.node.clone(),
            hostname: self.hostname.clone(),
            ports: ports.collect(),
        })
    }
}

/// Whether a selector chooses what has these labels. An empty one chooses nothing.
#[must_use]
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[derive(Debug, Clone)]
struct Entry {
    version: u64,
    spec: ServiceSpec,
    /// In the order of their uids, which is that of their ages.
    endpoints: BTreeMap<Uid, Endpoint>,
}

/// All services with the pods behind them. Every change of a service gives it a new version. Work scales with what changed: a pod is looked
/// up by its labels.
#[derive(Debug, Default)]
pub struct Catalog {
    version: u64,
    services: BTreeMap<ObjectName, Entry>,
    /// Services by namespace and the first label of their selector.
    by_label: BTreeMap<(String, String, String), BTreeSet<ObjectName>>,
    /// The services that a pod is behind.
    members: BTreeMap<Uid, BTreeSet<ObjectName>>,
    /// The newest change of each service.
    changed: BTreeMap<u64, ObjectName>,
    removed: BTreeMap<ObjectName, u64>,
    /// Deltas from an older version than this cannot be made.
    floor: u64,
    /// Pods that have left a service: the version that says so, and when.
    left: BTreeMap<Uid, (u64, Millis)>,
}

impl Catalog {
    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The names of all services.
    pub fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.keys()
    }

    /// The pods behind services.
    pub fn members(&self) -> impl Iterator<Item = &Uid> {
        self.members.keys()
    }

    /// A service as nodes are told of it.
    #[must_use]
    pub fn view(&self, name: &ObjectName) -> Option<ServiceView> {
        let entry = self.services.get(name)?;
        let endpoints = entry.endpoints.values().take(ENDPOINTS_MAX).cloned().collect();
        Some(ServiceView { name: name.clone(), spec: entry.spec.clone(), endpoints })
    }

    /// A service is new or has changed. `pods` are those of its namespace, looked at only if the spec differs.
    pub fn set_service(
        &mut self,
        name: &ObjectName,
        spec: ServiceSpec,
        now: Millis,
        pods: impl IntoIterator<Item = PodFacts>,
    ) {
        let old = match self.services.get(name) {
            Some(entry) if entry.spec == spec => return,
            Some(_) => self.take(name),
            None => BTreeMap::new(),
        };
        let mut endpoints = BTreeMap::new();
        for pod in pods {
            if let Some(endpoint) = pod.endpoint(&spec) {
                self.members.entry(pod.uid.clone()).or_default().insert(name.clone());
                endpoints.insert(pod.uid, endpoint);
            }
        }
        if let Some((key, value)) = spec.selector.first_key_value() {
            let label = (name.namespace.clone(), key.clone(), value.clone());
            self.by_label.entry(label).or_default().insert(name.clone());
        }
        let gone: Vec<Uid> = old.into_keys().filter(|uid| !endpoints.contains_key(uid)).collect();
        self.services.insert(name.clone(), Entry { version: 0, spec, endpoints });
        self.touch(name);
        self.note_left(gone, now);
    }

    /// A service is no more.
    pub fn remove_service(&mut self, name: &ObjectName, now: Millis) {
        if !self.services.contains_key(name) {
            return;
        }
        let gone = self.take(name);
        self.version += 1;
        self.changed.insert(self.version, name.clone());
        self.removed.insert(name.clone(), self.version);
        self.note_left(gone.into_keys().collect(), now);
        while self.removed.len() > REMOVED_SERVICES_KEPT {
            let Some((oldest, version)) = self.removed.iter().min_by_key(|(_, v)| **v).map(|(n, v)| (n.clone(), *v))
            else {
                break;
            };
            self.removed.remove(&oldest);
            self.changed.remove(&version);
            self.floor = version;
        }
    }

    /// A pod is new or has changed.
    pub fn set_pod(&mut self, pod: &PodFacts, now: Millis) {
        let mut candidates = self.members.get(&pod.uid).cloned().unwrap_or_default();
        for (key, value) in &pod.labels {
            if let Some(names) = self.by_label.get(&(pod.namespace.clone(), key.clone(), value.clone())) {
                candidates.extend(names.iter().cloned());
            }
        }
        for name in candidates {
            let Some(entry) = self.services.get_mut(&name) else { continue };
            let new = pod.endpoint(&entry.spec);
            if entry.endpoints.get(&pod.uid) == new.as_ref() {
                continue;
            }
            let leaves = new.is_none();
            match new {
                Some(endpoint) => {
                    entry.endpoints.insert(pod.uid.clone(), endpoint);
                    self.members.entry(pod.uid.clone()).or_default().insert(name.clone());
                }
                None => {
                    entry.endpoints.remove(&pod.uid);
                    self.leave(&pod.uid, &name);
                }
            }
            self.touch(&name);
            if leaves {
                self.note_left([pod.uid.clone()].into(), now);
            }
        }
    }

    /// A pod is no more.
    pub fn remove_pod(&mut self, uid: &Uid, now: Millis) {
        for name in self.members.remove(uid).unwrap_or_default() {
            if let Some(entry) = self.services.get_mut(&name) {
                entry.endpoints.remove(uid);
                self.touch(&name);
                self.note_left([uid.clone()].into(), now);
            }
        }
    }

    /// When a pod left the last service that it left, and the version that says so; `None` if that is long ago, or never was.
    #[must_use]
    pub fn left(&self, uid: &str) -> Option<(u64, Millis)> {
        self.left.get(uid).copied()
    }

    /// Forgets who left before this time.
    pub fn forget_left(&mut self, before: Millis) {
        self.left.retain(|_, (_, at)| *at >= before);
    }

    /// New or changed services and removed ones since a version; `None` if that is too long ago.
    pub(crate) fn since(&self, base: u64) -> Option<(Vec<ServiceView>, Vec<ObjectName>)> {
        if base < self.floor || base > self.version {
            return None;
        }
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for name in self.changed.range(base + 1..).map(|(_, name)| name) {
            match self.view(name) {
                Some(view) => changed.push(view),
                None => removed.push(name.clone()),
            }
        }
        Some((changed, removed))
    }

    /// Takes a service out of everything but the list of changes; its endpoints.
    fn take(&mut self, name: &ObjectName) -> BTreeMap<Uid, Endpoint> {
        let Some(entry) = self.services.remove(name) else { return BTreeMap::new() };
        self.changed.remove(&entry.version);
        if let Some((key, value)) = entry.spec.selector.first_key_value() {
            let label = (name.namespace.clone(), key.clone(), value.clone());
            if let Some(names) = self.by_label.get_mut(&label) {
                names.remove(name);
                if names.is_empty() {
                    self.by_label.remove(&label);
                }
            }
        }
        for uid in entry.endpoints.keys() {
            self.leave(uid, name);
        }
        entry.endpoints
    }

    fn leave(&mut self, uid: &Uid, name: &ObjectName) {
        if let Some(names) = self.members.get_mut(uid) {
            names.remove(name);
            if names.is_empty() {
                self.members.remove(uid);
            }
        }
    }

    fn touch(&mut self, name: &ObjectName) {
        self.version += 1;
        if let Some(entry) = self.services.get_mut(name) {
            self.changed.remove(&entry.version);
            entry.version = self.version;
        }
        if let Some(version) = self.removed.remove(name) {
            self.changed.remove(&version);
        }
        self.changed.insert(self.version, name.clone());
    }

    fn note_left(&mut self, pods: Vec<Uid>, now: Millis) {
        let version = self.version;
        self.left.extend(pods.into_iter().map(|uid| (uid, (version, now))));
    }
}
