//! Workloads to pods: plans every workload that something has happened to, and commits the plan.

pub mod cron;
mod status;

use super::{Batch, Feed, RETRY, RETRY_FULL};
use crate::{
    api::desired_pod,
    control::Control,
    edit::{Done, Keep, changed, commit_or_retry, created},
    objects::{
        is_ended, meta, new_meta, pod_spec, pod_spec_mut, pod_status, template_key, template_spec, workload_status,
        workload_status_mut,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use strata_model::{Mode, Node, NodePhase, Pod, RevisionName, Uid, Workload};
use strata_orchestrator::{Action, CREATES_MAX, Input, Plan, plan};
use strata_proto::{
    timestamp_ms, timestamp_now,
    types::{self, Kind, Meta, Object, object, pod_spec::Desired, pod_status::Phase},
};
use strata_store::{Change, Condition, Event, Key, Snapshot, StoreError};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument as _, Span, info, info_span, warn};

/// When a slot whose name is another pod's is tried again.
const SLOT_TAKEN_RETRY: Duration = Duration::from_secs(5);

/// When to look at what: for each key the earliest time that was asked for.
#[derive(Debug, Default)]
struct Wakes {
    by_time: BTreeSet<(Instant, Key)>,
    by_key: HashMap<Key, Instant>,
}

impl Wakes {
    fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    fn add(&mut self, at: Instant, key: &Key) {
        match self.by_key.get(key) {
            Some(known) if *known <= at => return,
            Some(later) => {
                self.by_time.remove(&(*later, key.clone()));
            }
            None => {}
        }
        self.by_key.insert(key.clone(), at);
        self.by_time.insert((at, key.clone()));
    }

    fn due(&mut self, now: Instant) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some((at, key)) = self.by_time.first().cloned().filter(|(at, _)| *at <= now) {
            self.by_time.remove(&(at, key.clone()));
            self.by_key.remove(&key);
            due.push(key);
        }
        due
    }
}

struct Orchestrate {
    control: Arc<Control>,
    nodes: BTreeMap<String, Node>,
    dirty: BTreeSet<Key>,
    /// When to look at a workload although nothing has happened.
    wakes: Wakes,
    /// Ordinals that turned out to be taken by pods of the same name that are not the workload's.
    taken: HashMap<Key, u64>,
}

/// Runs the loop until the store is closed.
///
/// # Errors
/// What the store says, other than a conflict.
pub async fn run(control: Arc<Control>) -> Result<(), StoreError> {
    let mut feed = Feed::new(&control.store);
    let mut this = Orchestrate {
        control,
        nodes: BTreeMap::new(),
        dirty: BTreeSet::new(),
        wakes: Wakes::default(),
        taken: HashMap::new(),
    };
    loop {
        let wake = this.wakes.next().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            batch = feed.next() => match batch {
                None => return Ok(()),
                Some(Batch::Everything(snapshot)) => this.see_everything(&snapshot),
                Some(Batch::Changes(events)) => this.see(&events),
            },
            () = sleep_until(wake) => {}
        }
        this.dirty.extend(this.wakes.due(Instant::now()));
        for key in std::mem::take(&mut this.dirty) {
            this.work(&key).await?;
        }
    }
}

fn owner(pod: &Object) -> Option<Key> {
    let workload = &pod_spec(pod).workload;
    (!workload.is_empty()).then(|| Key::new(Kind::Workload, meta(pod).namespace.clone(), workload.clone()))
}

impl Orchestrate {
    fn see_everything(&mut self, snapshot: &Snapshot) {
        self.nodes = snapshot
            .list(Kind::Node, None)
            .filter_map(|o| Some((meta(&o).name.clone(), Node::try_from(&*o).ok()?)))
            .collect();
        self.dirty.extend(snapshot.list(Kind::Workload, None).map(|o| Key::of(&o)));
        self.dirty.extend(snapshot.list(Kind::Pod, None).filter_map(|o| owner(&o)));
    }

    fn see(&mut self, events: &[Event]) {
        for event in events {
            match event.key.kind {
                Kind::Workload => {
                    self.dirty.insert(event.key.clone());
                    let owner = &meta(&event.object).owner;
                    if !owner.is_empty() {
                        self.dirty.insert(Key::new(Kind::Workload, event.key.namespace.clone(), owner.clone()));
                    }
                }
                Kind::Pod => self.dirty.extend(owner(&event.object)),
                Kind::Node => self.see_node(event),
                _ => {}
            }
        }
    }

    /// A node matters here only by its phase, labels and whether it is closed.
    fn see_node(&mut self, event: &Event) {
        let new = if event.deleted { None } else { Node::try_from(&*event.object).ok() };
        let what = |n: &Node| (n.phase, n.unschedulable, n.draining, n.labels.clone());
        let old = self.nodes.get(&event.key.name);
        if old.map(what) == new.as_ref().map(what) {
            return;
        }
        match new {
            Some(node) => self.nodes.insert(event.key.name.clone(), node),
            None => self.nodes.remove(&event.key.name),
        };
        let snapshot = self.control.store.snapshot();
        self.dirty.extend(snapshot.pods_of_node(&event.key.name).filter_map(|o| owner(&o)));
        let global = snapshot.list(Kind::Workload, None).filter(|o| match &o.kind {
            Some(object::Kind::Workload(w)) => {
                w.spec.as_ref().is_some_and(|s| s.mode() == types::workload_spec::Mode::Global || s.ordered)
            }
            _ => false,
        });
        self.dirty.extend(global.map(|o| Key::of(&o)));
    }

    async fn work(&mut self, key: &Key) -> Result<(), StoreError> {
        let snapshot = self.control.store.snapshot();
        let pods: Vec<Arc<Object>> = snapshot.pods_of_workload(&key.namespace, &key.name).collect();
        let Some(object) = snapshot.get(key) else {
            self.taken.remove(key);
            return self.remove_orphans(&pods).await;
        };
        let mut workload = match Workload::try_from(&*object) {
            Ok(workload) => status::as_it_runs(&snapshot, workload),
            Err(error) => {
                warn!(%key, %error, "a workload in the store is not valid");
                return Ok(());
            }
        };
        workload.next_ordinal = workload.next_ordinal.max(self.taken.get(key).copied().unwrap_or(0));
        let models: Vec<Pod> = pods.iter().filter_map(|o| Pod::try_from(&**o).ok()).collect();
        let replaced: BTreeSet<Uid> =
            pods.iter().map(|o| Uid::from_trusted(pod_spec(o).predecessor.clone())).filter(|u| !u.is_empty()).collect();
        let now = timestamp_ms(Some(&timestamp_now()));
        if workload.mode == Mode::Cron {
            return self.work_cron(key, &snapshot, &object, &workload, now).await;
        }
        let nodes = self.nodes_for(&workload, &models);
        let plan = plan(Input { workload: &workload, pods: &models, replaced: &replaced, nodes: &nodes, now });
        if let Some(at) = plan.wake {
            self.look_again(key, Duration::from_millis(at.saturating_sub(now)));
        }
        let mut changes = changes(&snapshot, &object, &workload, &pods, &plan);
        if !plan.actions.is_empty() {
            info!(workload = %workload.name, actions = plan.actions.len(), "planned");
        }
        let span = if plan.actions.is_empty() {
            Span::none()
        } else {
            info_span!("plan", workload = %workload.name, actions = plan.actions.len())
        };
        strata_telemetry::continue_trace(&span, &meta(&object).trace_parent);
        crate::trace::hand_on(&span, &mut changes);
        match commit_or_retry(&self.control.store, changes).instrument(span).await? {
            Done::Committed(_) => {
                status::tell(&self.control, &object, &plan).await;
                if plan.more {
                    self.look_again(key, Duration::ZERO);
                }
            }
            Done::Conflict(at) => {
                // A pod of that name which is not ours: go past it.
                if at.kind == Kind::Pod
                    && let Some(other) = self.control.store.snapshot().get(&at)
                    && pod_spec(&other).workload != key.name
                {
                    let ordinal = at.name.rsplit('-').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
                    self.taken.insert(key.clone(), workload.next_ordinal.max(ordinal + 1));
                    if matches!(workload.mode, Mode::Ordered(_)) {
                        // A slot has one name only: it has to be given back first.
                        warn!(%key, pod = %at, "a pod that is not the workload's has the name of one of its slots");
                        self.look_again(key, SLOT_TAKEN_RETRY);
                        return Ok(());
                    }
                }
                self.look_again(key, RETRY);
            }
            Done::Full => self.look_again(key, RETRY_FULL),
        }
        Ok(())
    }

    async fn work_cron(
        &mut self,
        key: &Key,
        snapshot: &Snapshot,
        object: &Object,
        workload: &Workload,
        now: u64,
    ) -> Result<(), StoreError> {
        let mut done = cron::plan(snapshot, object, workload, now);
        if let Some(at) = done.wake {
            self.look_again(key, Duration::from_millis(at.saturating_sub(now)));
        }
        match commit_or_retry(&self.control.store, std::mem::take(&mut done.changes)).await? {
            Done::Committed(_) => cron::tell(&self.control, object, &done).await,
            Done::Conflict(_) => self.look_again(key, RETRY),
            Done::Full => self.look_again(key, RETRY_FULL),
        }
        Ok(())
    }

    fn look_again(&mut self, key: &Key, after: Duration) {
        self.wakes.add(Instant::now() + after, key);
    }

    /// The nodes a plan needs: all for a global workload, else those of its pods.
    fn nodes_for(&self, workload: &Workload, pods: &[Pod]) -> Vec<Node> {
        let settled = |mut node: Node| {
            // The lease is the truth; the object follows it.
            if !self.control.leases().is_settled(node.name.as_str()) {
                node.phase = NodePhase::Unknown;
            }
            node
        };
        match workload.mode {
            Mode::Global | Mode::Ordered(_) => self.nodes.values().cloned().map(settled).collect(),
            Mode::Replicated(_) | Mode::Job(_) | Mode::Cron => {
                let names: BTreeSet<&str> = pods.iter().map(|p| p.node.as_str()).collect();
                names.iter().filter_map(|n| self.nodes.get(*n)).cloned().map(settled).collect()
            }
        }
    }

    async fn remove_orphans(&mut self, pods: &[Arc<Object>]) -> Result<(), StoreError> {
        let orphans = pods.iter().filter(|p| meta(p).deleted.is_none()).map(|p| removed(p)).collect();
        if let Done::Conflict(_) | Done::Full = commit_or_retry(&self.control.store, orphans).await? {
            pods.first().and_then(|p| owner(p)).into_iter().for_each(|key| self.look_again(&key, RETRY));
        }
        Ok(())
    }
}

/// The change that marks a pod for removal.
fn removed(pod: &Object) -> Change {
    let mut object = pod.clone();
    object.meta.get_or_insert_default().deleted = Some(timestamp_now());
    changed(object, Keep::Durable)
}

fn changes(
    snapshot: &Snapshot,
    object: &Object,
    workload: &Workload,
    pods: &[Arc<Object>],
    plan: &Plan,
) -> Vec<Change> {
    if plan.gone {
        return vec![Change::delete(Key::of(object), Condition::Revision(meta(object).revision))];
    }
    if plan.job.as_ref().is_some_and(|j| j.expired) {
        return vec![cron::deleted(object)];
    }
    let by_uid: HashMap<&str, &Arc<Object>> = pods.iter().map(|o| (meta(o).uid.as_str(), o)).collect();
    let mut changes: Vec<Change> = plan
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Create { ordinal, node, predecessor, revision } => {
                let template = snapshot.get(&template_key(revision.as_str()));
                let node = node.as_ref().map_or("", |n| n.as_str());
                let predecessor = predecessor.as_ref().map_or("", Uid::as_str);
                let mut pod = new_pod(workload, revision, template.as_deref(), *ordinal, node, predecessor);
                if let Some(spec) = pod_spec_mut(&mut pod).filter(|_| is_stopped(object)) {
                    spec.desired = Desired::Stopped.into();
                }
                meta(object).trace_parent.clone_into(&mut pod.meta.get_or_insert_default().trace_parent);
                Some(created(pod))
            }
            Action::Remove { uid } => by_uid.get(uid.as_str()).map(|pod| removed(pod)),
        })
        .collect();
    changes.extend(status::volumes(snapshot, object, workload, plan));
    if is_stopped(object) {
        let runs = |p: &&Arc<Object>| meta(p).deleted.is_none() && !is_ended(pod_status(p));
        let live = pods.iter().filter(runs).filter(|p| !changes.iter().any(|c| c.key == Key::of(p)));
        // What is left comes with the next plan, which this commit wakes.
        let stops = live.filter_map(|p| desired_pod(p, Desired::Stopped, pod_spec(p).grace_s)).take(CREATES_MAX);
        let stops: Vec<Change> = stops.collect();
        changes.extend(stops);
    }
    let mut updated = object.clone();
    if let Some(status) = workload_status_mut(&mut updated) {
        status.desired = plan.counts.desired;
        status.replicas = plan.counts.replicas;
        status.ready = plan.counts.ready;
        status.updated = plan.counts.updated;
        status.next_ordinal = plan.next_ordinal;
        status.available = plan.counts.available;
        status::note(status, workload, plan, || trouble(pods));
    }
    if workload_status(&updated) != workload_status(object) {
        let keep = if status::is_lasting(workload_status(&updated), workload_status(object)) {
            Keep::Durable
        } else {
            Keep::Volatile
        };
        changes.push(changed(updated, keep));
    }
    changes
}

fn is_stopped(workload: &Object) -> bool {
    matches!(&workload.kind, Some(object::Kind::Workload(w)) if w.spec.as_ref().is_some_and(|s| s.stopped))
}

/// What keeps the workload from being well: the first pod's trouble that is not on its way out.
fn trouble(pods: &[Arc<Object>]) -> (String, String) {
    pods.iter()
        .filter(|p| meta(p).deleted.is_none() && !pod_status(p).ready && pod_status(p).phase() != Phase::Lost)
        .find(|p| !pod_status(p).reason.is_empty())
        .map(|p| (pod_status(p).reason.clone(), format!("{}: {}", meta(p).name, pod_status(p).message)))
        .unwrap_or_default()
}

fn new_pod(
    workload: &Workload,
    revision: &RevisionName,
    template: Option<&Object>,
    ordinal: u64,
    node: &str,
    predecessor: &str,
) -> Object {
    let pod = template.and_then(template_spec).and_then(|t| t.pod.clone()).unwrap_or_default();
    let name = format!("{}-{ordinal}", workload.name.name);
    let spec = types::PodSpec {
        template_revision: revision.to_string(),
        revision_number: workload.rollout.record(revision).map_or(0, |r| r.number),
        workload: workload.name.name.clone(),
        ordinal,
        node: node.to_owned(),
        predecessor: predecessor.to_owned(),
        ..types::PodSpec::default()
    };
    let meta = Meta { labels: pod.labels, annotations: pod.annotations, ..new_meta(&workload.name.namespace, &name) };
    let pod = types::Pod { spec: Some(spec), status: Some(types::PodStatus::default()) };
    Object { meta: Some(meta), kind: Some(object::Kind::Pod(pod)) }
}
