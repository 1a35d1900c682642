//! Whether nodes are alive: leases end, and with them what was said of the node's pods.

use super::{Batch, Feed};
use crate::{
    control::Control,
    edit::{Done, Keep, changed, commit_or_retry},
    objects::{is_ended, meta, node_key, node_status, pod_spec, pod_status_mut},
    sessions::events,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use strata_dispatcher::Verdict;
use strata_model::NodeName;
use strata_proto::types::{Kind, Object, event_spec::Severity, node_status::Phase as NodePhase, pod_status::Phase};
use strata_store::StoreError;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

/// Pods that become Lost in one commit.
pub const LOST_PER_COMMIT: usize = 500;

/// Begins the lease of every node that is not known to be lost: it has a whole lease to come back, and until then it is Unknown.
///
/// Nobody is lost or replaced on the word of an earlier life. It must have ended before the first agent is served: of one that has
/// said Hello already it would forget that, and take the node for unheard of until its next session.
///
/// # Errors
/// What the store says.
pub async fn begin(control: &Control) -> Result<(), StoreError> {
    let nodes: Vec<_> = control.store.snapshot().list(Kind::Node, None).collect();
    for object in nodes {
        if node_status(&object).phase() == NodePhase::Lost {
            continue;
        }
        let name = meta(&object).name.clone();
        control.leases().begin(&NodeName::from_trusted(name.clone()), control.now());
        let message = "the controller has started and has not heard of the node yet";
        crate::sessions::set_phase(
            &control.store,
            &name,
            NodePhase::Unknown,
            "ControllerStarted",
            message,
            Keep::Volatile,
        )
        .await?;
    }
    Ok(())
}

/// Runs the loop until the store is closed.
///
/// # Errors
/// What the store says, other than a conflict.
pub async fn run(control: Arc<Control>) -> Result<(), StoreError> {
    let mut feed = Feed::new(&control.store);
    // Lost nodes that may still have pods which do not know it.
    let mut lost: BTreeSet<String> = BTreeSet::new();
    // Verdicts that are not in the store yet.
    let mut untold: BTreeMap<String, Verdict> = BTreeMap::new();
    loop {
        let deadline = control.leases().next_deadline();
        let now = control.now();
        let wait = deadline.map_or(Duration::from_secs(3600), |at| Duration::from_millis(at.saturating_sub(now)));
        let wait = if lost.is_empty() && untold.is_empty() { wait } else { wait.min(super::RETRY) };
        tokio::select! {
            batch = feed.next() => match batch {
                None => return Ok(()),
                Some(Batch::Everything(snapshot)) => {
                    let nodes = snapshot.list(Kind::Node, None);
                    lost.extend(nodes.filter(|o| node_status(o).phase() == NodePhase::Lost).map(|o| meta(&o).name.clone()));
                }
                Some(Batch::Changes(events)) => {
                    for event in events {
                        match event.key.kind {
                            Kind::Node if event.deleted => control.leases().forget(&event.key.name),
                            Kind::Node => correct(&control, &event.key.name, &event.object).await?,
                            // A pod that was placed while its node was given up.
                            Kind::Pod if !event.deleted && !pod_spec(&event.object).node.is_empty() => {
                                let node = &pod_spec(&event.object).node;
                                if !is_ended(crate::objects::pod_status(&event.object)) && is_lost(&control, node) {
                                    lost.insert(node.clone());
                                }
                            }
                            _ => {}
                        }
                    }
                }
            },
            () = control.leases_changed.notified() => {}
            () = sleep_until(Instant::now() + wait) => {}
        }
        let verdicts = {
            let now = control.now();
            control.leases().expire(now)
        };
        untold.extend(verdicts.into_iter().map(|(node, verdict)| (node.to_string(), verdict)));
        for (node, verdict) in std::mem::take(&mut untold) {
            match tell(&control, &node, verdict).await {
                Ok(()) if verdict == Verdict::Lost => {
                    lost.insert(node);
                }
                Ok(()) => {}
                Err(StoreError::Conflict { .. } | StoreError::DiskFull(_)) => {
                    untold.insert(node, verdict);
                }
                Err(error) => return Err(error),
            }
        }
        for node in std::mem::take(&mut lost) {
            if !lose_pods(&control, &node).await? {
                lost.insert(node);
            }
        }
    }
}

/// A node that was heard of just when it was given a verdict: its lease is the truth, and the object follows.
async fn correct(control: &Control, node: &str, object: &Object) -> Result<(), StoreError> {
    if node_status(object).phase() == NodePhase::Ready || !control.leases().is_synced(node) {
        return Ok(());
    }
    match crate::sessions::set_phase(&control.store, node, NodePhase::Ready, "", "", Keep::Durable).await {
        // Whoever was faster has woken this loop again.
        Err(StoreError::Conflict { .. } | StoreError::DiskFull(_)) => Ok(()),
        result => result,
    }
}

fn is_lost(control: &Control, node: &str) -> bool {
    control.store.snapshot().get(&node_key(node)).is_some_and(|o| node_status(&o).phase() == NodePhase::Lost)
}

async fn tell(control: &Control, node: &str, verdict: Verdict) -> Result<(), StoreError> {
    let leases = control.settings.leases;
    let (phase, reason, message, keep) = match verdict {
        Verdict::Unknown => (
            NodePhase::Unknown,
            "HeartbeatMissed",
            format!("the node was not heard of for more than {} ms", leases.heartbeat_ms),
            Keep::Volatile,
        ),
        Verdict::Lost => (
            NodePhase::Lost,
            "LeaseEnded",
            format!("the node was not heard of for {} ms: its pods are given away", leases.lease_ms),
            Keep::Durable,
        ),
    };
    warn!(node, reason, "{message}");
    if verdict == Verdict::Lost {
        // Its session, if there still is one, has to begin anew.
        control.sessions.end(node);
    }
    crate::sessions::set_phase(&control.store, node, phase, reason, &message, keep).await?;
    if let Some(object) = control.store.snapshot().get(&node_key(node)) {
        events::about(control, &object, Severity::Warning, reason, &message).await;
    }
    Ok(())
}

/// Marks the pods of a lost node. False if something came between and it has to be done again.
async fn lose_pods(control: &Control, node: &str) -> Result<bool, StoreError> {
    if !is_lost(control, node) {
        return Ok(true);
    }
    let snapshot = control.store.snapshot();
    let pods: Vec<Arc<Object>> = snapshot
        .pods_of_node(node)
        .filter(|o| pod_spec(o).address_index > 0 && !is_ended(crate::objects::pod_status(o)))
        .collect();
    for part in pods.chunks(LOST_PER_COMMIT) {
        let changes = part.iter().map(|pod| {
            let mut object = Object::clone(pod);
            if let Some(status) = pod_status_mut(&mut object) {
                status.set_phase(Phase::Lost);
                status.ready = false;
                status.reason = "NodeLost".to_owned();
                status.message = format!("node {node} was lost");
            }
            changed(object, Keep::Durable)
        });
        match commit_or_retry(&control.store, changes.collect()).await? {
            Done::Committed(_) => info!(node, pods = part.len(), "pods lost with their node"),
            Done::Conflict(_) | Done::Full => return Ok(false),
        }
    }
    Ok(true)
}
