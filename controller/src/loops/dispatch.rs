//! Tells the nodes: keeps every node's assignment set up to date and sends frames to the sessions.

use super::{Batch, Feed};
use crate::{
    control::Control,
    objects::{meta, node_spec, node_status, pod_spec, pod_status, template_key, template_spec},
    secrets::Vault,
    sessions::Link,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use strata_dispatcher::{Assignment, AssignmentSet, Frame, Session};
use strata_model::{Desired, ObjectName, RevisionName, Uid};
use strata_proto::{
    dispatch::{self as wire, ControllerMessage, controller_message},
    types::{self, Kind, Object, pod_spec as pod_spec_words, pod_status::Phase},
};
use strata_store::{Event, Key, Snapshot, StoreError};
use tracing::{Span, debug, error, info_span};

/// How long changes are collected into one frame.
pub const COLLECT: Duration = Duration::from_millis(5);
/// When nodes that do not read fast enough are tried again.
pub const BLOCKED_RETRY: Duration = Duration::from_millis(50);

struct Dispatching {
    control: Arc<Control>,
    sets: HashMap<String, AssignmentSet>,
    sessions: HashMap<String, Open>,
    /// Nodes whose session may have to be sent something.
    due: BTreeSet<String>,
    services: super::services::Services,
    peers: BTreeMap<String, wire::Peer>,
    /// Grows when `peers` changes.
    peers_version: u64,
    /// The version of the services that every session was considered for.
    services_version: u64,
    revision: u64,
}

/// What one session was sent.
struct Open {
    link_id: u64,
    session: Session,
    peers_version: u64,
}

/// Runs the loop until the store is closed.
///
/// # Errors
/// None; the signature is that of all loops.
pub async fn run(control: Arc<Control>) -> Result<(), StoreError> {
    let mut feed = Feed::new(&control.store);
    let mut this = Dispatching {
        control: control.clone(),
        sets: HashMap::new(),
        sessions: HashMap::new(),
        due: BTreeSet::new(),
        services: super::services::Services::new(),
        peers: BTreeMap::new(),
        peers_version: 1,
        services_version: 0,
        revision: 0,
    };
    // The sets first, then sessions: a full frame from half a view would remove pods.
    loop {
        tokio::select! {
            biased;
            batch = feed.next() => match batch {
                None => return Ok(()),
                Some(Batch::Everything(snapshot)) => this.see_everything(&snapshot),
                Some(Batch::Changes(events)) => this.see(&events),
            },
            () = control.sessions.news() => {}
            () = tokio::time::sleep(BLOCKED_RETRY), if !this.due.is_empty() || this.services.is_waiting() => {}
        }
        tokio::time::sleep(COLLECT).await;
        this.due.extend(control.sessions.take_news());
        this.tend_services();
        for node in std::mem::take(&mut this.due) {
            if !this.send(&node) {
                this.due.insert(node);
            }
        }
    }
}

/// What the node is told of a pod; `None` if it is not, or no longer, its business.
fn assignment(object: &Object) -> Option<Assignment> {
    let (meta, spec) = (meta(object), pod_spec(object));
    if spec.node.is_empty() || spec.address_index == 0 || pod_status(object).phase() == Phase::Lost {
        return None;
    }
    Some(Assignment {
        uid: Uid::from_trusted(meta.uid.clone()),
        name: ObjectName::new(meta.namespace.clone(), meta.name.clone()),
        template: RevisionName::from_trusted(spec.template_revision.clone()),
        address_index: spec.address_index,
        desired: if meta.deleted.is_some() { Desired::Removed } else { spec.desired().into() },
        workload: spec.workload.clone(),
        ordinal: spec.ordinal,
        grace_s: spec.grace_s,
    })
}

impl Dispatching {
    fn see_everything(&mut self, snapshot: &Snapshot) {
        self.revision = snapshot.revision();
        let mut wanted: HashMap<String, Vec<Assignment>> = self.sets.keys().map(|n| (n.clone(), vec![])).collect();
        for object in snapshot.list(Kind::Node, None) {
            wanted.entry(meta(&object).name.clone()).or_default();
            self.see_node(&meta(&object).name, Some(&object));
        }
        self.services.see_everything(snapshot, self.control.now());
        for object in snapshot.list(Kind::Pod, None) {
            if let Some(assignment) = assignment(&object) {
                let assignment = self.gated(&object, assignment);
                wanted.entry(pod_spec(&object).node.clone()).or_default().push(assignment);
            }
        }
        for (node, pods) in wanted {
            self.set(&node).replace(snapshot.revision(), pods);
            self.due.insert(node);
        }
    }

    fn see(&mut self, events: &[Event]) {
        let mut changes: HashMap<String, BTreeMap<Uid, Option<Assignment>>> = HashMap::new();
        let (snapshot, now) = (self.control.store.snapshot(), self.control.now());
        for event in events {
            self.services.see(&snapshot, event, now);
            self.revision = self.revision.max(event.revision);
            match event.key.kind {
                Kind::Pod => {
                    let node = &pod_spec(&event.object).node;
                    if !node.is_empty() {
                        let assignment = if event.deleted { None } else { assignment(&event.object) };
                        let assignment = assignment.map(|a| self.gated(&event.object, a));
                        let uid = Uid::from_trusted(meta(&event.object).uid.clone());
                        changes.entry(node.clone()).or_default().insert(uid, assignment);
                    }
                }
                Kind::Node => self.see_node(&event.key.name, (!event.deleted).then_some(&event.object)),
                _ => {}
            }
        }
        let revision = self.revision;
        for (node, changes) in changes {
            if self.set(&node).change(revision, changes) {
                self.due.insert(node);
            }
        }
    }

    /// What the node may be told of the pod now.
    fn gated(&mut self, object: &Object, assignment: Assignment) -> Assignment {
        let told = self.sets.get(&pod_spec(object).node).and_then(|set| set.get(assignment.uid.as_str()));
        self.services.gate(&Key::of(object), assignment, told, self.control.now())
    }

    /// Stops what was waiting for nodes to take it out of their services, and has changed services sent.
    fn tend_services(&mut self) {
        let unsettled = !self.services.is_settled();
        let settled = self.services.settle(&self.control);
        for node in self.due.clone() {
            if let Some(link) = self.control.sessions.link(&node) {
                self.services.acknowledge(&link);
            }
        }
        let snapshot = self.control.store.snapshot();
        for key in self.services.released(&self.control, self.control.now()) {
            let Some(object) = snapshot.get(&key) else { continue };
            let Some(assignment) = assignment(&object) else { continue };
            let node = pod_spec(&object).node.clone();
            let revision = self.revision;
            if self.set(&node).change(revision, [(assignment.uid.clone(), Some(assignment))]) {
                self.due.insert(node);
            }
        }
        let version = self.services.version();
        if settled && (unsettled || version != self.services_version) {
            self.services_version = version;
            self.due.extend(self.control.sessions.connected());
        }
    }

    fn set(&mut self, node: &str) -> &mut AssignmentSet {
        let revision = self.revision;
        self.sets.entry(node.to_owned()).or_insert_with(|| AssignmentSet::new(revision))
    }

    fn see_node(&mut self, name: &str, object: Option<&Object>) {
        let peer = object.map(|object| wire::Peer {
            node: name.to_owned(),
            address: node_status(object).address.clone(),
            subnet: node_spec(object).subnet.clone(),
            port: node_status(object).port,
        });
        let peer = peer.filter(|p| !p.address.is_empty());
        if self.peers.get(name) == peer.as_ref() {
            return;
        }
        match peer {
            Some(peer) => self.peers.insert(name.to_owned(), peer),
            None => self.peers.remove(name),
        };
        self.peers_version += 1;
        self.due.extend(self.sessions.keys().cloned());
    }

    /// Sends a node what it lacks. False if it has no room for it now.
    fn send(&mut self, node: &str) -> bool {
        let Some(link) = self.control.sessions.link(node) else {
            self.sessions.remove(node);
            self.services.forget(node);
            return true;
        };
        self.set(node);
        let open = match self.sessions.remove(node) {
            Some(open) if open.link_id == link.id => open,
            _ => Open { link_id: link.id, session: Session::new(), peers_version: 0 },
        };
        let open = self.sessions.entry(node.to_owned()).or_insert(open);
        if open.peers_version != self.peers_version {
            let Some(room) = link.room() else { return false };
            let peers = self.peers.values().filter(|p| p.node != node).cloned().collect();
            room.send(Ok(message(controller_message::Message::Peers(wire::Peers { peers }))));
            open.peers_version = self.peers_version;
        }
        if !self.services.send(&link) {
            return false;
        }
        match self.sets.get(node) {
            Some(set) => send_frame(&self.control, &link, &mut open.session, set),
            None => true,
        }
    }
}

pub(super) fn message(message: controller_message::Message) -> ControllerMessage {
    ControllerMessage { message: Some(message) }
}

fn send_frame(control: &Control, link: &Link, session: &mut Session, set: &AssignmentSet) -> bool {
    let (snapshot, vault) = (&control.store.snapshot(), &control.vault);
    session.acknowledge(link.acknowledged());
    if link.take_resync() {
        session.resync();
    }
    let Some(room) = link.room() else { return false };
    let frame = match session.frame(set) {
        Frame::Nothing => return true,
        Frame::Full { generation, pods, templates } => wire::Assignments {
            full: true,
            base: 0,
            generation,
            pods: pods.iter().map(|a| assigned(snapshot, a)).collect(),
            removed: vec![],
            templates: wire_templates(snapshot, vault, &templates),
        },
        Frame::Delta { base, generation, pods, removed, templates } => wire::Assignments {
            full: false,
            base,
            generation,
            pods: pods.iter().map(|a| assigned(snapshot, a)).collect(),
            removed: removed.iter().map(ToString::to_string).collect(),
            templates: wire_templates(snapshot, vault, &templates),
        },
    };
    debug!(
        node = link.node,
        full = frame.full,
        generation = frame.generation,
        pods = frame.pods.len(),
        removed = frame.removed.len(),
        "assignments"
    );
    let meters = &control.meters;
    if frame.full {
        meters.frames_full.increment()
    } else {
        meters.frames_delta.increment()
    }
    let span = span(&link.node, &frame);
    span.in_scope(|| room.send(Ok(message(controller_message::Message::Assignments(frame)))));
    true
}

/// In the trace of the first pod that has one; none if no pod has.
fn span(node: &str, frame: &wire::Assignments) -> Span {
    let Some(trace) = frame.pods.iter().map(|p| p.trace_parent.as_str()).find(|t| !t.is_empty()) else {
        return Span::none();
    };
    let span = info_span!("assign", node, pods = frame.pods.len(), generation = frame.generation);
    strata_telemetry::continue_trace(&span, trace);
    span
}

fn assigned(snapshot: &Snapshot, a: &Assignment) -> wire::Assignment {
    let pod = snapshot.get(&Key::new(Kind::Pod, a.name.namespace.clone(), a.name.name.clone()));
    wire::Assignment {
        uid: a.uid.to_string(),
        namespace: a.name.namespace.clone(),
        name: a.name.name.clone(),
        template_revision: a.template.to_string(),
        address_index: a.address_index,
        desired: pod_spec_words::Desired::from(a.desired).into(),
        workload: a.workload.clone(),
        trace_parent: pod.map(|p| meta(&p).trace_parent.clone()).unwrap_or_default(),
        ordinal: a.ordinal,
        grace_s: a.grace_s,
    }
}

fn wire_templates(snapshot: &Snapshot, vault: &Vault, revisions: &[RevisionName]) -> Vec<wire::Template> {
    let one = |revision: &RevisionName| {
        let found: Option<types::TemplateSpec> =
            snapshot.get(&template_key(revision.as_str())).and_then(|o| template_spec(&o).cloned());
        if found.is_none() {
            error!(%revision, "a pod names a template that is not in the store");
        }
        found.map(|mut spec| {
            let secrets = open_secrets(vault, revision, &mut spec);
            wire::Template { revision: revision.to_string(), spec: Some(spec), secrets }
        })
    };
    revisions.iter().filter_map(one).collect()
}

/// The secrets of a template in clear, taken out of its materials: only a node that runs a pod of it gets here.
fn open_secrets(vault: &Vault, revision: &RevisionName, spec: &mut types::TemplateSpec) -> Vec<wire::SecretContent> {
    let mut secrets = Vec::new();
    for material in spec.materials.iter_mut().filter(|m| !m.sealed.is_empty()) {
        match vault.content(material) {
            Ok(content) => secrets.push(content),
            Err(error) => error!(%revision, secret = material.name, %error, "a secret of a template does not open"),
        }
        material.sealed.clear();
    }
    secrets
}
