//! The Node object: made at the first Hello, kept up to date by every later report.

use crate::{
    control::Control,
    edit::{Keep, changed, created, edit},
    objects::{new_meta, node_key, node_spec, node_status, node_status_mut},
};
use std::collections::HashSet;
use strata_model::Subnet;
use strata_proto::{
    dispatch::{Hello, StatusBatch},
    timestamp_now,
    types::{self, Kind, Object, node_status::Phase, object},
};
use strata_store::{Store, StoreError};

/// Layers that one node may report: what its status carries must fit into an object.
pub const NODE_LAYERS_MAX: usize = 8_000;

/// What a node is given.
pub(super) struct Admitted {
    pub index: u32,
    pub subnet: String,
}

/// Why a node is not taken in.
pub(super) enum NotAdmitted {
    Refused { reason: &'static str, message: String },
    Store(StoreError),
}

/// Makes or updates the Node object of a node that says Hello. Its phase stays as it is until its pods are known.
pub(super) async fn admit(control: &Control, node: &str, hello: &Hello) -> Result<Admitted, NotAdmitted> {
    let _turn = control.admission.lock().await;
    let refused = |reason, message: String| NotAdmitted::Refused { reason, message };
    for tries in 1.. {
        let snapshot = control.store.snapshot();
        let found = snapshot.get(&node_key(node));
        let mut object = match &found {
            Some(found) => Object::clone(found),
            None => {
                strata_model::check_name("node name", node).map_err(|e| refused("WrongName", e.to_string()))?;
                let used: HashSet<u32> = snapshot.list(Kind::Node, None).map(|o| node_spec(&o).index).collect();
                let index = (1..).find(|i| !used.contains(i)).unwrap_or(u32::MAX);
                let subnet = subnet(control, index).ok_or_else(|| {
                    let message = format!(
                        "{} is used up: no subnet of /{} is left for another node; delete nodes that are no more",
                        control.settings.cluster_cidr, control.settings.node_prefix_len
                    );
                    refused("NoSubnet", message)
                })?;
                let spec = types::NodeSpec { index, subnet: subnet.to_string(), unschedulable: false, draining: false };
                let node_object = types::Node { spec: Some(spec), status: None };
                Object { meta: Some(new_meta("", node)), kind: Some(object::Kind::Node(node_object)) }
            }
        };
        describe(&mut object, node, hello);
        let admitted = Admitted { index: node_spec(&object).index, subnet: node_spec(&object).subnet.clone() };
        let change = if found.is_some() { changed(object, Keep::Durable) } else { created(object) };
        match control.store.commit(vec![change]).await {
            Ok(_) => return Ok(admitted),
            Err(StoreError::Conflict { .. }) if tries < crate::edit::TRIES_MAX => {}
            Err(error) => return Err(NotAdmitted::Store(error)),
        }
    }
    Err(refused("Busy", "the node's record changes all the time: connect again".to_owned()))
}

fn subnet(control: &Control, index: u32) -> Option<Subnet> {
    control.settings.cluster_cidr.nth(index, control.settings.node_prefix_len)
}

/// Puts what Hello says into the object; what others wrote stays.
fn describe(object: &mut Object, node: &str, hello: &Hello) {
    let reported = hello.node.clone().unwrap_or_default();
    let labels = &mut object.meta.get_or_insert_default().labels;
    let standard = [
        ("kubernetes.io/hostname", node),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", reported.architecture.as_str()),
    ];
    for (key, value) in standard.into_iter().filter(|(_, value)| !value.is_empty()) {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels.extend(hello.labels.clone());
    if let Some(status) = node_status_mut(object) {
        let old = std::mem::take(status);
        *status = types::NodeStatus {
            phase: old.phase,
            reason: old.reason,
            message: old.message,
            allocated: old.allocated,
            pods: old.pods,
            address: hello.address.clone(),
            port: hello.port,
            capacity: hello.capacity,
            boot_id: hello.boot_id.clone(),
            last_seen: Some(timestamp_now()),
            ..reported
        };
        status.layers.truncate(NODE_LAYERS_MAX);
    }
}

/// The node is heard of and its pods are known.
pub(super) async fn set_ready(control: &Control, node: &str) -> Result<(), StoreError> {
    let was_lost =
        control.store.snapshot().get(&node_key(node)).is_some_and(|o| node_status(&o).phase() == Phase::Lost);
    // What a restart would make of it anyway needs no disk.
    let keep = if was_lost { Keep::Durable } else { Keep::Volatile };
    set_phase(&control.store, node, Phase::Ready, "", "", keep).await
}

/// Sets a node's phase and the words that explain it.
pub(crate) async fn set_phase(
    store: &Store,
    node: &str,
    phase: Phase,
    reason: &str,
    message: &str,
    keep: Keep,
) -> Result<(), StoreError> {
    edit(store, &node_key(node), keep, |object| {
        let Some(status) = node_status_mut(object) else { return false };
        if status.phase() == phase && status.reason == reason {
            return false;
        }
        status.set_phase(phase);
        status.reason = reason.to_owned();
        status.message = message.to_owned();
        if phase == Phase::Ready {
            status.last_seen = Some(timestamp_now());
        }
        true
    })
    .await
}

/// Takes in what a status batch says of the node itself.
pub(super) async fn apply_node(control: &Control, node: &str, batch: &StatusBatch) -> Result<(), StoreError> {
    let nothing = batch.layers_added.is_empty()
        && batch.layers_removed.is_empty()
        && batch.images_added.is_empty()
        && batch.images_removed.is_empty();
    if nothing {
        return Ok(());
    }
    edit(&control.store, &node_key(node), Keep::Volatile, |object| {
        let Some(status) = node_status_mut(object) else { return false };
        let before = (status.layers.clone(), status.images.clone());
        let dropped: HashSet<&str> = batch
            .layers_removed
            .iter()
            .chain(batch.layers_added.iter().map(|l| &l.diff_id))
            .map(String::as_str)
            .collect();
        status.layers.retain(|l| !dropped.contains(l.diff_id.as_str()));
        status.layers.extend(batch.layers_added.iter().cloned());
        status.layers.truncate(NODE_LAYERS_MAX);
        status.images.retain(|i| !batch.images_removed.contains(i) && !batch.images_added.contains(i));
        status.images.extend(batch.images_added.iter().cloned());
        status.last_seen = Some(timestamp_now());
        (&status.layers, &status.images) != (&before.0, &before.1)
    })
    .await?;
    Ok(())
}
