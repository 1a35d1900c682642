//! Pods to nodes: gives every pod that has a template and no place a node and an address there, in one conditional commit.

mod volumes;

use super::{Batch, Feed, RETRY, RETRY_FULL};
use crate::{
    control::Control,
    edit::{Done, Keep, changed, commit_or_retry, edit},
    objects::{
        is_ended, meta, node_key, node_spec, node_status, node_status_mut, pod_spec, pod_spec_mut, pod_status,
        pod_status_mut, template_key, template_spec,
    },
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use strata_model::{Node, NodeName, ObjectName, Resources, Subnet, Uid, limits::BUILD_ADDRESSES, slot_volume};
use strata_proto::{
    timestamp_ms, timestamp_now,
    types::{Kind, Object, pod_status::Phase},
};
use strata_scheduler::{Occupant, Placement, Request, Scheduler, Shape};
use strata_store::{Event, Key, Snapshot, StoreError};
use tracing::{Instrument as _, Span, info, info_span, warn};
use volumes::PodVolumes;

pub use volumes::names as volume_names;

/// Pods that are placed with one commit.
pub const PLACE_MAX: usize = 500;
/// Volumes that are named in one commit.
pub const VOLUMES_PER_COMMIT: usize = 200;

struct Schedule {
    control: Arc<Control>,
    scheduler: Scheduler,
    /// What a template asks of a node, and the volumes it names. Templates never change.
    templates: HashMap<String, Arc<(Shape, Vec<String>)>>,
    /// Pods that wait and have not been looked at since something changed for them.
    due: BTreeSet<Key>,
    /// Pods that fit nowhere; looked at again when something is freed.
    waiting: BTreeSet<Key>,
    /// Nodes whose account has changed.
    accounts: BTreeSet<String>,
}

/// Runs the loop until the store is closed.
///
/// # Errors
/// What the store says, other than a conflict.
pub async fn run(control: Arc<Control>) -> Result<(), StoreError> {
    let mut feed = Feed::new(&control.store);
    let mut this = Schedule {
        control,
        scheduler: Scheduler::new(),
        templates: HashMap::new(),
        due: BTreeSet::new(),
        waiting: BTreeSet::new(),
        accounts: BTreeSet::new(),
    };
    let mut again = None;
    loop {
        let rest = again.take();
        tokio::select! {
            batch = feed.next() => match batch {
                None => return Ok(()),
                Some(Batch::Everything(snapshot)) => this.see_everything(&snapshot),
                Some(Batch::Changes(events)) => this.see(&events),
            },
            () = tokio::time::sleep(rest.unwrap_or_default()), if rest.is_some() => {}
        }
        again = this.place().await?;
        this.control.meters.unschedulable.store(this.waiting.len() as u64, Relaxed);
        this.tell_accounts().await?;
    }
}

impl Schedule {
    fn see_everything(&mut self, snapshot: &Snapshot) {
        self.scheduler = Scheduler::new();
        self.templates.clear();
        self.due.clear();
        self.waiting.clear();
        for object in snapshot.list(Kind::Node, None) {
            self.see_node(&object);
            self.accounts.insert(meta(&object).name.clone());
        }
        for object in snapshot.list(Kind::Pod, None) {
            self.see_pod(snapshot, &object, false);
        }
    }

    fn see(&mut self, events: &[Event]) {
        let snapshot = self.control.store.snapshot();
        let mut freed = false;
        for event in events {
            freed |= match event.key.kind {
                Kind::Node if event.deleted => {
                    self.scheduler.remove_node(&event.key.name);
                    false
                }
                Kind::Node => self.see_node(&event.object),
                Kind::Pod => self.see_pod(&snapshot, &event.object, event.deleted),
                Kind::Template if event.deleted => {
                    self.templates.remove(&event.key.name);
                    false
                }
                // One that is new, or has a place now: pods may wait for it.
                Kind::Volume => !event.deleted && meta(&event.object).deleted.is_none(),
                _ => false,
            };
        }
        if freed {
            self.due.append(&mut self.waiting);
        }
    }

    fn see_node(&mut self, object: &Object) -> bool {
        Node::try_from(object).is_ok_and(|node| self.scheduler.set_node(&node))
    }

    fn see_pod(&mut self, snapshot: &Snapshot, object: &Object, deleted: bool) -> bool {
        let (key, spec, uid) = (Key::of(object), pod_spec(object), Uid::from_trusted(meta(object).uid.clone()));
        if deleted || meta(object).deleted.is_some() {
            self.due.remove(&key);
            self.waiting.remove(&key);
        }
        if deleted {
            self.accounts.insert(spec.node.clone());
            return self.scheduler.remove_pod(&uid);
        }
        if spec.address_index == 0 {
            let ready = !spec.template_revision.is_empty() && !is_ended(pod_status(object));
            // A pod that is known to fit nowhere waits until something is freed: its own status is no news.
            if ready && meta(object).deleted.is_none() && !self.waiting.contains(&key) {
                self.due.insert(key);
            }
            return false;
        }
        self.due.remove(&key);
        self.waiting.remove(&key);
        self.accounts.insert(spec.node.clone());
        let node = NodeName::from_trusted(spec.node.clone());
        let shape = self.shape(snapshot, object);
        let occupant = if is_ended(pod_status(object)) {
            Occupant { node, resources: Resources::default(), workload: None }
        } else {
            let resources = shape.as_ref().map(Shape::resources).unwrap_or_default();
            Occupant { node, resources, workload: shape.and_then(|s| s.workload) }
        };
        self.scheduler.add_pod(&uid, occupant)
    }

    /// What decides where the pod may go; `None` while its template is not there.
    fn shape(&mut self, snapshot: &Snapshot, object: &Object) -> Option<Shape> {
        let spec = pod_spec(object);
        if !self.templates.contains_key(&spec.template_revision) {
            let found = snapshot.get(&template_key(&spec.template_revision))?;
            let template = match template_spec(&found)?.template(&spec.template_revision) {
                Ok(template) => template,
                Err(error) => {
                    warn!(revision = spec.template_revision, %error, "a template in the store is not valid");
                    return None;
                }
            };
            let shape = Shape { selector: template.pod.node_selector.clone(), ..Shape::default() }
                .with_resources(template.pod.requests())
                .with_layers(template.images.iter().flat_map(|i| &i.layers));
            let volumes = template_spec(&found)?.pod.as_ref().map(volumes::names).unwrap_or_default();
            self.templates.insert(spec.template_revision.clone(), Arc::new((shape, volumes)));
        }
        let shape = self.templates.get(&spec.template_revision)?.0.clone();
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Some(Shape {
            workload: named(&spec.workload).map(|w| ObjectName::new(meta(object).namespace.clone(), w)),
            node: named(&spec.node).map(NodeName::from_trusted),
            ..shape
        })
    }

    /// The volumes of a pod whose shape is known.
    fn volumes(&self, snapshot: &Snapshot, object: &Object) -> Result<PodVolumes, String> {
        let known = self.templates.get(&pod_spec(object).template_revision);
        let ordinal = pod_spec(object).ordinal;
        let names: Vec<String> = known.iter().flat_map(|k| &k.1).map(|name| slot_volume(name, ordinal)).collect();
        PodVolumes::look(snapshot, &meta(object).namespace, &names)
    }

    /// Places what is due. Answers when to try again what could not be committed.
    async fn place(&mut self) -> Result<Option<Duration>, StoreError> {
        while !self.due.is_empty() {
            let snapshot = self.control.store.snapshot();
            let keys: Vec<Key> = self.due.iter().take(PLACE_MAX).cloned().collect();
            let mut pods: Vec<(Arc<Object>, Request)> = Vec::new();
            let mut pods_volumes: Vec<PodVolumes> = Vec::new();
            let mut changes = Vec::new();
            // Volumes that get their place in this round: whoever shares one comes after.
            let mut new_volumes: BTreeSet<Key> = BTreeSet::new();
            let mut later: BTreeSet<Key> = BTreeSet::new();
            for key in &keys {
                let Some(object) = snapshot.get(key) else { continue };
                if pod_spec(&object).address_index > 0 || meta(&object).deleted.is_some() {
                    continue;
                }
                if let Some(shape) = self.shape(&snapshot, &object) {
                    let volumes = match self.volumes(&snapshot, &object) {
                        Ok(volumes) => volumes,
                        Err(why) => {
                            self.waiting.insert(key.clone());
                            changes.extend(waits(&object, "VolumeNotFound", why));
                            continue;
                        }
                    };
                    let unbound: Vec<Key> = volumes.unbound().collect();
                    let full = !new_volumes.is_empty() && new_volumes.len() + unbound.len() > VOLUMES_PER_COMMIT;
                    if full || unbound.iter().any(|v| new_volumes.contains(v)) {
                        later.insert(key.clone());
                        continue;
                    }
                    new_volumes.extend(unbound);
                    let uid = Uid::from_trusted(meta(&object).uid.clone());
                    pods.push((object, Request { uid, shape: Shape { volumes: volumes.bound(), ..shape } }));
                    pods_volumes.push(volumes);
                }
            }
            let requests: Vec<Request> = pods.iter().map(|(_, r)| r.clone()).collect();
            let placements = self.scheduler.place(&requests);
            let mut placed = BTreeSet::new();
            let mut seen = BTreeSet::new();
            let mut free = Addresses { control: &self.control, snapshot: &snapshot, nodes: HashMap::new() };
            for (((object, request), placement), volumes) in pods.iter().zip(placements).zip(&pods_volumes) {
                let bound = match &placement {
                    Placement::Node(node) => free.bind(object, node.as_str()),
                    Placement::Nowhere(_) => None,
                };
                match (bound, placement) {
                    (Some(bound), _) => {
                        changes.extend(volumes.changes(&pod_spec(&bound).node, &mut seen));
                        changes.push(changed(bound, Keep::Durable));
                        placed.insert(request.uid.clone());
                    }
                    (None, placement) => {
                        let why = match placement {
                            Placement::Nowhere(why) => why.to_string(),
                            Placement::Node(node) => {
                                self.scheduler.remove_pod(&request.uid);
                                format!("no address is left on node {node}")
                            }
                        };
                        self.waiting.insert(Key::of(object));
                        changes.extend(waits(object, "Unschedulable", why));
                    }
                }
            }
            let count = placed.len();
            let span = span(&pods, count);
            crate::trace::hand_on(&span, &mut changes);
            let retry = match commit_or_retry(&self.control.store, changes).instrument(span).await? {
                Done::Committed(_) => None,
                Done::Conflict(_) => Some(RETRY),
                Done::Full => Some(RETRY_FULL),
            };
            if retry.is_some() {
                for uid in &placed {
                    self.scheduler.remove_pod(uid);
                }
                for key in &keys {
                    self.waiting.remove(key);
                }
                return Ok(retry);
            }
            if count > 0 {
                info!(pods = count, "placed");
                self.control.meters.placed.add(count as u64);
                self.note_times(&pods, &placed);
            }
            for key in keys.iter().filter(|k| !later.contains(k)) {
                self.due.remove(key);
            }
        }
        Ok(None)
    }

    fn note_times(&self, pods: &[(Arc<Object>, Request)], placed: &BTreeSet<Uid>) {
        let now = timestamp_ms(Some(&timestamp_now()));
        for (object, _) in pods.iter().filter(|(_, r)| placed.contains(&r.uid)) {
            let waited = now.saturating_sub(timestamp_ms(meta(object).created.as_ref()));
            self.control.meters.schedule_seconds.record(Duration::from_millis(waited));
        }
    }

    /// Writes what pods have set aside into the status of the nodes where that changed.
    async fn tell_accounts(&mut self) -> Result<(), StoreError> {
        for node in std::mem::take(&mut self.accounts) {
            let (allocated, pods) = self.scheduler.allocated(&node);
            let key = node_key(&node);
            let told = edit(&self.control.store, &key, Keep::Volatile, |object| {
                let wanted = Some(allocated.into());
                let now = node_status(object);
                if now.allocated == wanted && now.pods == pods {
                    return false;
                }
                if let Some(status) = node_status_mut(object) {
                    status.allocated = wanted;
                    status.pods = pods;
                }
                true
            });
            match told.await {
                Ok(()) => {}
                Err(StoreError::Conflict { .. } | StoreError::DiskFull(_)) => {
                    self.accounts.insert(node);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// One span for all that are placed together, in the trace of the first that has one.
fn span(pods: &[(Arc<Object>, Request)], placed: usize) -> Span {
    if placed == 0 {
        return Span::none();
    }
    let span = info_span!("place", pods = placed);
    let trace = pods.iter().map(|(object, _)| meta(object).trace_parent.as_str()).find(|t| !t.is_empty());
    strata_telemetry::continue_trace(&span, trace.unwrap_or_default());
    span
}

/// The pod with the words that say why it waits, if they are new.
fn waits(object: &Object, reason: &str, why: String) -> Option<strata_store::Change> {
    let old = pod_status(object);
    if old.reason == reason && old.message == why {
        return None;
    }
    let mut object = object.clone();
    let status = pod_status_mut(&mut object)?;
    reason.clone_into(&mut status.reason);
    status.message = why;
    Some(changed(object, Keep::Volatile))
}

/// Which addresses are taken on the nodes that are given pods now.
struct Addresses<'a> {
    control: &'a Control,
    snapshot: &'a Snapshot,
    nodes: HashMap<String, (Subnet, BTreeSet<u32>)>,
}

impl Addresses<'_> {
    /// The pod bound to the node with the lowest free address; `None` if there is none. An address is free when no record has it:
    /// a record goes only when nothing of its pod is left; and when the node has no pod with it that has no record.
    fn bind(&mut self, object: &Object, node: &str) -> Option<Object> {
        if !self.nodes.contains_key(node) {
            let subnet: Subnet = node_spec(&*self.snapshot.get(&node_key(node))?).subnet.parse().ok()?;
            let mut taken: BTreeSet<u32> =
                self.snapshot.pods_of_node(node).map(|o| pod_spec(&o).address_index).filter(|i| *i > 0).collect();
            taken.extend(self.control.sessions.strangers(node));
            self.nodes.insert(node.to_owned(), (subnet, taken));
        }
        let (subnet, taken) = self.nodes.get_mut(node)?;
        let last = subnet.last_index().saturating_sub(BUILD_ADDRESSES);
        let index = (2..=last).find(|i| !taken.contains(i))?;
        let address = subnet.address(index)?.to_string();
        taken.insert(index);
        let mut object = object.clone();
        let spec = pod_spec_mut(&mut object)?;
        spec.node = node.to_owned();
        spec.address_index = index;
        let status = pod_status_mut(&mut object)?;
        status.set_phase(Phase::Assigned);
        status.node = node.to_owned();
        status.addresses = vec![address.clone()];
        status.address = address;
        status.reason.clear();
        status.message.clear();
        Some(object)
    }
}
