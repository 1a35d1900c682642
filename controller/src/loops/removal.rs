//! Records of pods that are to be removed and of which nothing is left: never bound, lost, or on a node that is no more.
//! The others go when their node reports them gone (see `sessions`).

use super::{Batch, Feed, RETRY};
use crate::{
    control::Control,
    edit::{Done, commit_or_retry},
    objects::{meta, node_key, node_status, pod_spec, pod_status},
};
use std::{collections::BTreeSet, sync::Arc};
use strata_proto::types::{Kind, Object, node_status::Phase as NodePhase, pod_status::Phase};
use strata_store::{Change, Condition, Key, Snapshot, StoreError};

/// Records removed with one commit.
pub const REMOVED_PER_COMMIT: usize = 500;

/// Runs the loop until the store is closed.
///
/// # Errors
/// What the store says, other than a conflict.
pub async fn run(control: Arc<Control>) -> Result<(), StoreError> {
    let mut feed = Feed::new(&control.store);
    let mut dirty: BTreeSet<Key> = BTreeSet::new();
    loop {
        tokio::select! {
            batch = feed.next() => match batch {
                None => return Ok(()),
                Some(Batch::Everything(snapshot)) => dirty.extend(snapshot.list(Kind::Pod, None).map(|o| Key::of(&o))),
                Some(Batch::Changes(events)) => {
                    let snapshot = control.store.snapshot();
                    for event in events {
                        match event.key.kind {
                            Kind::Pod if !event.deleted && meta(&event.object).deleted.is_some() => {
                                dirty.insert(event.key);
                            }
                            Kind::Node if event.deleted || node_status(&event.object).phase() == NodePhase::Lost => {
                                dirty.extend(snapshot.pods_of_node(&event.key.name).map(|o| Key::of(&o)));
                            }
                            _ => {}
                        }
                    }
                }
            },
            () = tokio::time::sleep(RETRY), if !dirty.is_empty() => {}
        }
        let snapshot = control.store.snapshot();
        let gone: Vec<Arc<Object>> =
            dirty.iter().filter_map(|key| snapshot.get(key)).filter(|o| is_gone(&snapshot, o)).collect();
        dirty.clear();
        for part in gone.chunks(REMOVED_PER_COMMIT) {
            let delete = |o: &Arc<Object>| Change::delete(Key::of(o), Condition::Revision(meta(o).revision));
            match commit_or_retry(&control.store, part.iter().map(delete).collect()).await? {
                Done::Committed(_) => {}
                Done::Conflict(_) | Done::Full => dirty.extend(part.iter().map(|o| Key::of(o))),
            }
        }
    }
}

/// Whether the pod is to be removed and no node has anything of it, or will ever say so.
fn is_gone(snapshot: &Snapshot, pod: &Object) -> bool {
    if meta(pod).deleted.is_none() {
        return false;
    }
    let spec = pod_spec(pod);
    if spec.address_index == 0 || pod_status(pod).phase() == Phase::Lost {
        return true;
    }
    snapshot.get(&node_key(&spec.node)).is_none_or(|node| node_status(&node).phase() == NodePhase::Lost)
}
