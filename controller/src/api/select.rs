//! Finding the node, pod and container that a relayed call is about.

use super::{Refusal, node_clients, validate};
use crate::objects::is_ended;
use std::sync::Arc;
use strata_model::Phase;
use strata_proto::types::{Kind, Object, Pod, PodTemplate, node_status, object};
use strata_store::{Key, Snapshot};

/// A container of a pod on a node.
#[derive(Debug)]
pub(super) struct Target {
    pub node: String,
    pub pod_uid: String,
    pub container: String,
    pub phase: Phase,
    stopped: bool,
    key: Key,
}

impl Target {
    /// Refuses a pod in which nothing runs.
    pub fn must_run(&self) -> Result<(), Refusal> {
        match self.phase {
            Phase::Starting | Phase::Running | Phase::Stopping => Ok(()),
            _ if self.stopped => Err(Refusal::precondition(
                "PodStopped",
                format!("{} is stopped: nothing runs in it (`ctl start` runs it again)", self.key),
            )),
            phase if phase.is_ended() => Err(Refusal::precondition(
                "PodEnded",
                format!("{} has ended ({}): nothing runs in it", self.key, phase.word()),
            )),
            phase => Err(Refusal::precondition(
                "PodNotRunning",
                format!("{} is {} on node {}: wait until it is Running", self.key, phase.word(), self.node),
            )),
        }
    }
}

/// Finds a pod that is on a node; no container is chosen.
pub(super) fn pod(snapshot: &Snapshot, namespace: &str, pod: &str) -> Result<Target, Refusal> {
    placed(snapshot, &validate::key(Kind::Pod.into(), namespace, pod)?).map(|(_, target)| target)
}

fn placed(snapshot: &Snapshot, key: &Key) -> Result<(Arc<Object>, Target), Refusal> {
    let object = snapshot.get(key).ok_or_else(|| Refusal::not_found(key))?;
    let Some(object::Kind::Pod(pod)) = &object.kind else { return Err(Refusal::not_found(key)) };
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let phase = Phase::from(status.phase());
    if spec.node.is_empty() {
        let mut why = format!("{key} is not on a node yet ({}", phase.word());
        for part in [&status.reason, &status.message] {
            if !part.is_empty() {
                why = format!("{why}: {part}");
            }
        }
        return Err(Refusal::precondition("PodNotAssigned", format!("{why}): wait until it is Running")));
    }
    let pod_uid = object.meta.as_ref().map(|m| m.uid.clone()).unwrap_or_default();
    let stopped = phase.is_ended() && !is_ended(&status);
    let target = Target { node: spec.node, pod_uid, container: String::new(), phase, stopped, key: key.clone() };
    Ok((object, target))
}

/// Finds a container; "" is the only one.
pub(super) fn container(snapshot: &Snapshot, namespace: &str, pod: &str, container: &str) -> Result<Target, Refusal> {
    let key = validate::key(Kind::Pod.into(), namespace, pod)?;
    let (object, target) = placed(snapshot, &key)?;
    let Some(object::Kind::Pod(pod)) = &object.kind else { return Err(Refusal::not_found(&key)) };
    let names = container_names(snapshot, pod);
    let choices = || names.join(", ");
    let container = match (container, names.as_slice()) {
        ("", [only]) => only.clone(),
        // Not even its template is known here; the node knows whether it has only one.
        (name, []) => name.to_owned(),
        ("", _) => {
            return Err(Refusal::new(
                tonic::Code::InvalidArgument,
                "ContainerAmbiguous",
                format!("{key} has several containers, choose one with -c: {}", choices()),
            ));
        }
        (name, _) if names.iter().any(|n| n == name) => name.to_owned(),
        (name, _) => {
            return Err(Refusal::new(
                tonic::Code::NotFound,
                "ContainerNotFound",
                format!("{key} has no container {name}, but: {}", choices()),
            ));
        }
    };
    Ok(Target { container, ..target })
}

/// The names of a pod's containers: from its template, else from its status.
fn container_names(snapshot: &Snapshot, pod: &Pod) -> Vec<String> {
    let names = |template: &PodTemplate| template.containers.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    let spec = pod.spec.as_ref();
    if let Some(template) = spec.and_then(|s| s.template.as_ref()) {
        return names(template);
    }
    let revision = spec.map(|s| s.template_revision.clone()).unwrap_or_default();
    let object = snapshot.get(&Key::new(Kind::Template, "", revision));
    if let Some(object::Kind::Template(template)) = object.as_ref().and_then(|o| o.kind.as_ref())
        && let Some(template) = template.spec.as_ref().and_then(|s| s.pod.as_ref())
    {
        return names(template);
    }
    pod.status.iter().flat_map(|s| &s.containers).map(|c| c.name.clone()).collect()
}

/// The names of the nodes that are alive, those with the fewest pods first.
pub(super) fn ready_nodes(snapshot: &Snapshot) -> Vec<String> {
    let mut nodes: Vec<(usize, String)> = snapshot
        .list(Kind::Node, None)
        .filter(|o| is_ready(o))
        .map(|o: Arc<Object>| {
            let name = o.meta.as_ref().map(|m| m.name.clone()).unwrap_or_default();
            (snapshot.pods_of_node(&name).count(), name)
        })
        .collect();
    nodes.sort();
    nodes.into_iter().map(|(_, name)| name).collect()
}

fn is_ready(object: &Object) -> bool {
    node_clients::status(object)
        .is_some_and(|s| s.phase() == node_status::Phase::Ready && node_clients::address_of(s).is_some())
}

/// The refusal when no node is alive.
pub(super) fn no_node(what: &str) -> Refusal {
    Refusal::new(tonic::Code::Unavailable, "NoReadyNode", format!("no node is ready to {what}: see `ctl get nodes`"))
}
