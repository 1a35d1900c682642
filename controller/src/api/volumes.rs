//! Volumes: who uses them, and their end. A deleted volume stays on record until its node has removed the data, however long the node is away.

use super::{ApiState, Refusal, limits};
use crate::{
    edit::{Keep, edit},
    loops::{Batch, Feed, schedule::volume_names},
    objects::{is_ended, meta, node_key, node_status, pod_spec, pod_status, template_key, template_spec},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use strata_model::slot_volume;
use strata_proto::{
    node::RemoveVolumeRequest,
    timestamp_now,
    types::{Kind, Object, node_status::Phase as NodePhase, object, pod_status::Phase},
};
use strata_store::{Change, Condition, Key, Snapshot, StoreError};
use tracing::{info, warn};

/// How long a node may take to remove a volume's data before it is asked again.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(120);
/// The wait before a removal that failed is tried again.
const REMOVAL_RETRY: Duration = Duration::from_secs(5);
/// Users that a refusal names.
const NAMED: usize = 5;

/// The pods that use each volume, by the volume's key: those on a node that have not ended. `namespace` "" = of all.
pub(super) fn users(snapshot: &Snapshot, namespace: &str) -> HashMap<Key, Vec<String>> {
    let mut users: HashMap<Key, Vec<String>> = HashMap::new();
    let mut known: HashMap<String, Vec<String>> = HashMap::new();
    for pod in snapshot.list(Kind::Pod, Some(namespace).filter(|n| !n.is_empty())) {
        let (spec, status) = (pod_spec(&pod), pod_status(&pod));
        if spec.address_index == 0 || is_ended(status) || status.phase() == Phase::Lost {
            continue;
        }
        let volumes = known.entry(spec.template_revision.clone()).or_insert_with(|| {
            let template = snapshot.get(&template_key(&spec.template_revision));
            let pod = template.as_deref().and_then(template_spec).and_then(|t| t.pod.as_ref());
            pod.map(volume_names).unwrap_or_default()
        });
        for volume in volumes.iter() {
            let key = Key::new(Kind::Volume, meta(&pod).namespace.clone(), slot_volume(volume, spec.ordinal));
            users.entry(key).or_default().push(meta(&pod).name.clone());
        }
    }
    users
}

/// Marks a volume that no pod uses. Its record goes when its data is gone.
pub(super) async fn delete(state: &ApiState, object: &Object) -> Result<Object, Refusal> {
    let key = Key::of(object);
    unused(&state.store.snapshot(), &key)?;
    let mut marked = object.clone();
    marked.meta.get_or_insert_default().deleted = Some(timestamp_now());
    let condition = Condition::Revision(meta(object).revision);
    let commit = state.commit(vec![Change::put(marked, condition)]).await?;
    // A pod may have been placed just before; after the mark none is.
    if let Err(refusal) = unused(&state.store.snapshot(), &key) {
        state.commit(vec![Change::put(object.clone(), Condition::Revision(commit.revision))]).await?;
        return Err(refusal);
    }
    commit.objects.first().map(|o| Object::clone(o)).ok_or_else(|| Refusal::not_found(&key))
}

fn unused(snapshot: &Snapshot, key: &Key) -> Result<(), Refusal> {
    let users = users(snapshot, &key.namespace).remove(key).unwrap_or_default();
    if users.is_empty() {
        return Ok(());
    }
    let more = users.len().saturating_sub(NAMED);
    let named = users[..users.len().min(NAMED)].join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!("{key} is in use by the pods {named}{more}: delete them or their workload first");
    Err(Refusal::precondition("InUse", message))
}

/// Removes the data of deleted volumes on their nodes, then their records, until the store is closed.
///
/// # Errors
/// What the store says, other than a conflict.
pub async fn remove_deleted_volumes(state: Arc<ApiState>) -> Result<(), StoreError> {
    let mut feed = Feed::new(&state.store);
    let mut dirty: BTreeSet<Key> = BTreeSet::new();
    // Those that wait for their node, or for another try.
    let mut waiting: BTreeSet<Key> = BTreeSet::new();
    loop {
        tokio::select! {
            batch = feed.next() => match batch {
                None => return Ok(()),
                Some(Batch::Everything(snapshot)) => {
                    let deleted = snapshot.list(Kind::Volume, None).filter(|o| meta(o).deleted.is_some());
                    dirty.extend(deleted.map(|o| Key::of(&o)));
                }
                Some(Batch::Changes(events)) => {
                    for event in events {
                        match event.key.kind {
                            Kind::Volume if event.deleted || meta(&event.object).deleted.is_none() => {
                                waiting.remove(&event.key);
                            }
                            Kind::Volume if !waiting.contains(&event.key) => {
                                dirty.insert(event.key);
                            }
                            Kind::Node => dirty.append(&mut waiting),
                            _ => {}
                        }
                    }
                }
            },
            () = tokio::time::sleep(REMOVAL_RETRY), if !waiting.is_empty() => dirty.append(&mut waiting),
        }
        for key in std::mem::take(&mut dirty) {
            if !remove(&state, &key).await? {
                waiting.insert(key);
            }
        }
    }
}

/// One try. False: later again.
async fn remove(state: &ApiState, key: &Key) -> Result<bool, StoreError> {
    let snapshot = state.store.snapshot();
    let Some(object) = snapshot.get(key).filter(|o| meta(o).deleted.is_some()) else { return Ok(true) };
    let node = match &object.kind {
        Some(object::Kind::Volume(v)) => v.spec.as_ref().map(|s| s.node.clone()).unwrap_or_default(),
        _ => String::new(),
    };
    let present = snapshot.get(&node_key(&node)).filter(|_| !node.is_empty());
    if let Some(present) = present {
        let (reason, message) = match node_status(&present).phase() {
            NodePhase::Ready => match ask(state, &snapshot, &node, key).await {
                Ok(()) => (String::new(), String::new()),
                Err(why) => ("RemoveError".to_owned(), why),
            },
            _ => (
                "NodeNotReady".to_owned(),
                format!("its data is on node {node}, which is not ready: it goes when the node is back, or is deleted"),
            ),
        };
        if !reason.is_empty() {
            tell(state, key, &reason, &message).await?;
            return Ok(false);
        }
    }
    info!(%key, node, "the volume and its data are gone");
    let record = state.store.snapshot().get(key).map_or(0, |o| meta(&o).revision);
    match state.store.commit(vec![Change::delete(key.clone(), Condition::Revision(record))]).await {
        Ok(_) => Ok(true),
        Err(StoreError::Conflict { .. } | StoreError::DiskFull(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn ask(state: &ApiState, snapshot: &Snapshot, node: &str, key: &Key) -> Result<(), String> {
    let asked = async {
        let mut api = state.nodes.of(snapshot, node).await.map_err(|refusal| refusal.to_string())?;
        let request = RemoveVolumeRequest { namespace: key.namespace.clone(), name: key.name.clone() };
        let answer = api.client.remove_volume(request).await.map_err(|s| api.name_it(s));
        answer.map(drop).map_err(|status| status.message().to_owned())
    };
    let bound = REMOVAL_TIMEOUT.max(limits::NODE_ANSWER_TIMEOUT);
    let answer = tokio::time::timeout(bound, asked).await;
    answer.unwrap_or_else(|_| Err(format!("node {node} did not remove it within {} s", bound.as_secs())))
}

async fn tell(state: &ApiState, key: &Key, reason: &str, message: &str) -> Result<(), StoreError> {
    warn!(%key, reason, "a deleted volume stays for now: {message}");
    let told = edit(&state.store, key, Keep::Volatile, |object| match &mut object.kind {
        Some(object::Kind::Volume(volume)) => {
            let status = volume.status.get_or_insert_default();
            let news = status.reason != reason || status.message != message;
            reason.clone_into(&mut status.reason);
            message.clone_into(&mut status.message);
            news
        }
        _ => false,
    });
    match told.await {
        Err(StoreError::Conflict { .. } | StoreError::DiskFull(_)) => Ok(()),
        result => result,
    }
}
