//! Nodes.

use super::BadObject;
use crate::types as wire;
use strata_model::{Layer, Node, NodeName, NodePhase, Subnet};
use wire::node_status;

impl From<node_status::Phase> for NodePhase {
    fn from(p: node_status::Phase) -> Self {
        match p {
            node_status::Phase::Unknown => Self::Unknown,
            node_status::Phase::Ready => Self::Ready,
            node_status::Phase::Lost => Self::Lost,
        }
    }
}

impl From<NodePhase> for node_status::Phase {
    fn from(p: NodePhase) -> Self {
        match p {
            NodePhase::Unknown => Self::Unknown,
            NodePhase::Ready => Self::Ready,
            NodePhase::Lost => Self::Lost,
        }
    }
}

/// A node from its envelope.
impl TryFrom<&wire::Object> for Node {
    type Error = BadObject;

    fn try_from(object: &wire::Object) -> Result<Self, BadObject> {
        let meta = object.meta.as_ref().ok_or_else(|| BadObject::new("meta", "is missing"))?;
        let Some(wire::object::Kind::Node(node)) = &object.kind else {
            return Err(BadObject::new("kind", "a Node is expected"));
        };
        meta.check(false)?;
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        let subnet: Subnet =
            spec.subnet.parse().map_err(|e: strata_model::Invalid| BadObject::new("spec.subnet", e.to_string()))?;
        Ok(Self {
            name: NodeName::from_trusted(meta.name.clone()),
            labels: meta.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            phase: status.phase().into(),
            unschedulable: spec.unschedulable,
            draining: spec.draining,
            capacity: status.capacity.unwrap_or_default().into(),
            layers: status.layers.iter().filter_map(|l| Layer::try_from(l).ok()).collect(),
            subnet,
        })
    }
}
