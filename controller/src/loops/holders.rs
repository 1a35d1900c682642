//! Which nodes have all of an image: kept in the status of the Image objects.

use super::{Batch, Feed};
use crate::{
    control::Control,
    edit::{Keep, edit},
    objects::{image_spec, meta, node_status},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use strata_proto::types::{Kind, Object, object};
use strata_store::{Snapshot, StoreError};

/// Runs the loop until the store is closed.
///
/// # Errors
/// What the store says, other than a conflict.
pub async fn run(control: Arc<Control>) -> Result<(), StoreError> {
    let mut feed = Feed::new(&control.store);
    // Digests by node, as last seen.
    let mut nodes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    loop {
        let mut dirty: Option<BTreeSet<String>> = Some(BTreeSet::new());
        match feed.next().await {
            None => return Ok(()),
            Some(Batch::Everything(snapshot)) => {
                let listed = snapshot.list(Kind::Node, None);
                nodes = listed.map(|o| (meta(&o).name.clone(), digests(&o))).collect();
                dirty = None;
            }
            Some(Batch::Changes(events)) => {
                let dirty = dirty.get_or_insert_default();
                for event in &events {
                    match event.key.kind {
                        Kind::Node => {
                            let new = if event.deleted { BTreeSet::new() } else { digests(&event.object) };
                            let old = nodes.insert(event.key.name.clone(), new.clone()).unwrap_or_default();
                            dirty.extend(old.symmetric_difference(&new).cloned());
                            if event.deleted {
                                nodes.remove(&event.key.name);
                            }
                        }
                        Kind::Image if !event.deleted => {
                            dirty.extend(image_spec(&event.object).map(|s| s.digest.clone()));
                        }
                        _ => {}
                    }
                }
            }
        }
        if dirty.as_ref().is_none_or(|d| !d.is_empty()) {
            update(&control, &control.store.snapshot(), &nodes, dirty.as_ref()).await?;
        }
    }
}

fn digests(node: &Object) -> BTreeSet<String> {
    node_status(node).images.iter().cloned().collect()
}

/// Brings the status of these images (`None`: of all) up to date.
async fn update(
    control: &Control,
    snapshot: &Snapshot,
    nodes: &BTreeMap<String, BTreeSet<String>>,
    dirty: Option<&BTreeSet<String>>,
) -> Result<(), StoreError> {
    for image in snapshot.list(Kind::Image, None) {
        let Some(digest) = image_spec(&image).map(|s| &s.digest) else { continue };
        if dirty.is_some_and(|d| !d.contains(digest)) {
            continue;
        }
        let holders: Vec<String> = nodes.iter().filter(|(_, d)| d.contains(digest)).map(|(n, _)| n.clone()).collect();
        let key = strata_store::Key::of(&image);
        let told = edit(&control.store, &key, Keep::Volatile, |object| match &mut object.kind {
            Some(object::Kind::Image(image)) => {
                let status = image.status.get_or_insert_default();
                let news = status.nodes != holders;
                status.nodes.clone_from(&holders);
                news
            }
            _ => false,
        });
        match told.await {
            // Whoever was faster has woken this loop again.
            Ok(()) | Err(StoreError::Conflict { .. } | StoreError::DiskFull(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
