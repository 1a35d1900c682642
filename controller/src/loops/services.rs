//! Services as the dispatch loop tells them to nodes, and which pods must not be told to stop yet.
//!
//! It is a part of that loop, not a loop of its own: so a pod leaves its services in the same step in which the node is told to stop it,
//! and the one can wait for the other.

use super::dispatch::message;
use crate::{
    control::Control,
    objects::{meta, pod_spec, pod_status, template_key, template_spec},
    sessions::Link,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use strata_dispatcher::{Assignment, Catalog, PodFacts, ServiceFrame, ServiceSession, Serving};
use strata_model::{Desired, Millis, ObjectName, Protocol, ServiceSpec, ServiceView, Uid};
use strata_proto::{
    dispatch::{self as wire, controller_message},
    types::{Kind, Object, pod_spec::Desired as Wanted, pod_status::Phase, port},
};
use strata_store::{Event, Key, Snapshot};
use tracing::{debug, warn};

/// How long a pod's stop waits at the most for nodes to confirm that it is in no service any more, milliseconds.
pub const LEAVE_MS_MAX: u64 = 2_000;
/// How long it waits after they did, for what is under way to end, milliseconds.
pub const LINGER_MS: u64 = 200;

/// What the dispatch loop knows of services.
pub(super) struct Services {
    catalog: Catalog,
    sessions: HashMap<String, (u64, ServiceSession)>,
    held: BTreeMap<Uid, Held>,
    /// Every node has reported since the controller started, or is lost: what is known of pods is the truth. Until then nodes keep
    /// the services they have.
    settled: bool,
}

/// A pod that is to stop and whose node is not told yet.
struct Held {
    key: Key,
    version: u64,
    left: Millis,
    confirmed: Option<Millis>,
}

impl Services {
    pub fn new() -> Self {
        Self { catalog: Catalog::default(), sessions: HashMap::new(), held: BTreeMap::new(), settled: false }
    }

    /// Grows with every change of a service.
    pub fn version(&self) -> u64 {
        self.catalog.version()
    }

    pub fn see_everything(&mut self, snapshot: &Snapshot, now: Millis) {
        let mut present = BTreeSet::new();
        for object in snapshot.list(Kind::Service, None) {
            if let Some((name, spec)) = service(&object) {
                self.catalog.set_service(&name, spec, now, []);
                present.insert(name);
            }
        }
        let gone: Vec<ObjectName> = self.catalog.names().filter(|n| !present.contains(*n)).cloned().collect();
        gone.iter().for_each(|name| self.catalog.remove_service(name, now));
        let mut pods = BTreeSet::new();
        for object in snapshot.list(Kind::Pod, None) {
            let facts = facts(snapshot, &object);
            self.catalog.set_pod(&facts, now);
            pods.insert(facts.uid);
        }
        let gone: Vec<Uid> = self.catalog.members().filter(|uid| !pods.contains(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.catalog.remove_pod(uid, now));
    }

    pub fn see(&mut self, snapshot: &Snapshot, event: &Event, now: Millis) {
        match event.key.kind {
            Kind::Pod if event.deleted => {
                let uid = Uid::from_trusted(meta(&event.object).uid.clone());
                self.catalog.remove_pod(&uid, now);
                self.held.remove(&uid);
            }
            Kind::Pod => self.catalog.set_pod(&facts(snapshot, &event.object), now),
            Kind::Service if event.deleted => {
                let name = ObjectName::new(event.key.namespace.clone(), event.key.name.clone());
                self.catalog.remove_service(&name, now);
            }
            Kind::Service => {
                if let Some((name, spec)) = service(&event.object) {
                    let pods = snapshot.list(Kind::Pod, Some(&event.key.namespace)).map(|o| facts(snapshot, &o));
                    self.catalog.set_service(&name, spec, now, pods);
                }
            }
            _ => {}
        }
    }

    /// What a pod's node is told of it now: while its services are being left, what it was told before.
    pub fn gate(&mut self, key: &Key, new: Assignment, told: Option<&Assignment>, now: Millis) -> Assignment {
        let Some(told) = told.filter(|told| told.desired == Desired::Run && new.desired != Desired::Run) else {
            self.held.remove(&new.uid);
            return new;
        };
        let Some((version, left)) = self.catalog.left(new.uid.as_str()) else { return new };
        if now >= left + LEAVE_MS_MAX {
            return new;
        }
        let held = Held { key: key.clone(), version, left, confirmed: None };
        self.held.entry(new.uid).or_insert(held);
        told.clone()
    }

    /// Whether a pod waits for its services, or the nodes for their first frame.
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty() || !self.settled
    }

    /// Whether services are told to nodes already.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Takes in what a session has acknowledged.
    pub fn acknowledge(&mut self, link: &Link) {
        if let Some((_, session)) = self.sessions.get_mut(&link.node).filter(|(id, _)| *id == link.id) {
            session.acknowledge(link.services_in_effect());
        }
    }

    /// The pods whose nodes may be told now; each once.
    pub fn released(&mut self, control: &Control, now: Millis) -> Vec<Key> {
        self.catalog.forget_left(now.saturating_sub(2 * LEAVE_MS_MAX));
        if self.held.is_empty() {
            return Vec::new();
        }
        let confirmed = self.in_effect_everywhere(control);
        for held in self.held.values_mut().filter(|h| h.confirmed.is_none()) {
            if confirmed.is_none_or(|version| version >= held.version) {
                held.confirmed = Some(now);
            }
        }
        let is_free =
            |held: &Held| held.confirmed.is_some_and(|at| now >= at + LINGER_MS) || now >= held.left + LEAVE_MS_MAX;
        self.held.extract_if(.., |_, held| is_free(held)).map(|(_, held)| held.key).collect()
    }

    /// The newest version that every node has in effect which was heard of in time; `None` = there is no such node.
    fn in_effect_everywhere(&self, control: &Control) -> Option<u64> {
        let connected = control.sessions.connected();
        let leases = control.leases();
        let of = |node: &String| self.sessions.get(node).and_then(|(_, s)| s.in_effect()).unwrap_or(0);
        connected.iter().filter(|node| leases.is_synced(node)).map(of).min()
    }

    /// Whether frames may be sent; true once what is known of every node is the truth.
    pub fn settle(&mut self, control: &Control) -> bool {
        if !self.settled {
            let snapshot = control.store.snapshot();
            let leases = control.leases();
            self.settled = snapshot.list(Kind::Node, None).all(|o| leases.is_settled(&meta(&o).name));
        }
        self.settled
    }

    pub fn forget(&mut self, node: &str) {
        self.sessions.remove(node);
    }

    /// Tells a node what it lacks. False if it has no room for it now.
    pub fn send(&mut self, link: &Link) -> bool {
        let (_, session) = match self.sessions.remove(&link.node) {
            Some(open) if open.0 == link.id => self.sessions.entry(link.node.clone()).or_insert(open),
            _ => self.sessions.entry(link.node.clone()).or_insert((link.id, ServiceSession::new())),
        };
        session.acknowledge(link.services_in_effect());
        if !self.settled {
            return true;
        }
        let Some(room) = link.room() else { return false };
        let frame = match session.frame(&self.catalog) {
            ServiceFrame::Nothing => return true,
            ServiceFrame::Full { sequence, services } => {
                wire::Services { full: true, sequence, changed: services.iter().map(entry).collect(), removed: vec![] }
            }
            ServiceFrame::Delta { sequence, changed, removed } => wire::Services {
                full: false,
                sequence,
                changed: changed.iter().map(entry).collect(),
                removed: removed.iter().map(ToString::to_string).collect(),
            },
        };
        let (changed, removed) = (frame.changed.len(), frame.removed.len());
        debug!(node = link.node, full = frame.full, sequence = frame.sequence, changed, removed, "services");
        room.send(Ok(message(controller_message::Message::Services(frame))));
        true
    }
}

fn service(object: &Object) -> Option<(ObjectName, ServiceSpec)> {
    match ServiceView::try_from(object) {
        Ok(view) => Some((view.name, view.spec)),
        Err(error) => {
            warn!(name = meta(object).name, %error, "a service in the store is not valid");
            None
        }
    }
}

/// A pod as services see it.
pub(crate) fn facts(snapshot: &Snapshot, object: &Object) -> PodFacts {
    let (meta, spec, status) = (meta(object), pod_spec(object), pod_status(object));
    let stays = meta.deleted.is_none() && spec.desired() == Wanted::Run;
    let serving = match status.phase() {
        Phase::Running if stays && status.ready => Serving::Ready,
        Phase::Starting | Phase::Running if stays => Serving::Unready,
        _ => Serving::Not,
    };
    let template = snapshot.get(&template_key(&spec.template_revision));
    let template = template.as_deref().and_then(template_spec).and_then(|t| t.pod.as_ref()).or(spec.template.as_ref());
    let named = |p: &strata_proto::types::Port| {
        let protocol = match p.protocol() {
            port::Protocol::Tcp => Protocol::Tcp,
            port::Protocol::Udp => Protocol::Udp,
            port::Protocol::Sctp => Protocol::Sctp,
        };
        let number = u16::try_from(p.container_port).ok().filter(|_| !p.name.is_empty())?;
        Some((p.name.clone(), protocol, number))
    };
    let hostname = template.map(|t| t.hostname.as_str()).filter(|h| !h.is_empty()).unwrap_or(&meta.name);
    PodFacts {
        uid: Uid::from_trusted(meta.uid.clone()),
        namespace: meta.namespace.clone(),
        labels: meta.labels.clone().into_iter().collect(),
        address: status.address.parse().ok(),
        node: spec.node.clone(),
        hostname: if hostname.len() > 63 || hostname.contains('.') { String::new() } else { hostname.to_owned() },
        serving,
        ports: template.iter().flat_map(|t| &t.containers).flat_map(|c| &c.ports).filter_map(named).collect(),
    }
}

fn entry(view: &ServiceView) -> wire::ServiceEntry {
    wire::ServiceEntry {
        namespace: view.name.namespace.clone(),
        name: view.name.name.clone(),
        spec: Some((&view.spec).into()),
        endpoints: view.endpoints.iter().map(Into::into).collect(),
    }
}
