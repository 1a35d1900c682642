//! Reaching into envelopes: the parts of an object that loops and sessions read and change.

use std::sync::LazyLock;
use strata_proto::{
    timestamp_now,
    types::{self, Kind, Meta, Object, object},
};
use strata_store::Key;

static NO_META: LazyLock<Meta> = LazyLock::new(Meta::default);
static NO_POD_SPEC: LazyLock<types::PodSpec> = LazyLock::new(types::PodSpec::default);
static NO_POD_STATUS: LazyLock<types::PodStatus> = LazyLock::new(types::PodStatus::default);
static NO_WORKLOAD_STATUS: LazyLock<types::WorkloadStatus> = LazyLock::new(types::WorkloadStatus::default);
static NO_NODE_SPEC: LazyLock<types::NodeSpec> = LazyLock::new(types::NodeSpec::default);
static NO_NODE_STATUS: LazyLock<types::NodeStatus> = LazyLock::new(types::NodeStatus::default);

/// The object's meta.
#[must_use]
pub fn meta(object: &Object) -> &Meta {
    object.meta.as_ref().unwrap_or(&NO_META)
}

/// The spec of a pod; empty for other kinds.
#[must_use]
pub fn pod_spec(object: &Object) -> &types::PodSpec {
    match &object.kind {
        Some(object::Kind::Pod(pod)) => pod.spec.as_ref().unwrap_or(&NO_POD_SPEC),
        _ => &NO_POD_SPEC,
    }
}

/// The status of a pod; empty for other kinds.
#[must_use]
pub fn pod_status(object: &Object) -> &types::PodStatus {
    match &object.kind {
        Some(object::Kind::Pod(pod)) => pod.status.as_ref().unwrap_or(&NO_POD_STATUS),
        _ => &NO_POD_STATUS,
    }
}

/// The spec of a pod, to be changed.
pub fn pod_spec_mut(object: &mut Object) -> Option<&mut types::PodSpec> {
    match &mut object.kind {
        Some(object::Kind::Pod(pod)) => Some(pod.spec.get_or_insert_default()),
        _ => None,
    }
}

/// The status of a pod, to be changed.
pub fn pod_status_mut(object: &mut Object) -> Option<&mut types::PodStatus> {
    match &mut object.kind {
        Some(object::Kind::Pod(pod)) => Some(pod.status.get_or_insert_default()),
        _ => None,
    }
}

/// The status of a workload; empty for other kinds.
#[must_use]
pub fn workload_status(object: &Object) -> &types::WorkloadStatus {
    match &object.kind {
        Some(object::Kind::Workload(w)) => w.status.as_ref().unwrap_or(&NO_WORKLOAD_STATUS),
        _ => &NO_WORKLOAD_STATUS,
    }
}

/// The status of a workload, to be changed.
pub fn workload_status_mut(object: &mut Object) -> Option<&mut types::WorkloadStatus> {
    match &mut object.kind {
        Some(object::Kind::Workload(w)) => Some(w.status.get_or_insert_default()),
        _ => None,
    }
}

/// The spec of a node; empty for other kinds.
#[must_use]
pub fn node_spec(object: &Object) -> &types::NodeSpec {
    match &object.kind {
        Some(object::Kind::Node(node)) => node.spec.as_ref().unwrap_or(&NO_NODE_SPEC),
        _ => &NO_NODE_SPEC,
    }
}

/// The status of a node; empty for other kinds.
#[must_use]
pub fn node_status(object: &Object) -> &types::NodeStatus {
    match &object.kind {
        Some(object::Kind::Node(node)) => node.status.as_ref().unwrap_or(&NO_NODE_STATUS),
        _ => &NO_NODE_STATUS,
    }
}

/// The status of a node, to be changed.
pub fn node_status_mut(object: &mut Object) -> Option<&mut types::NodeStatus> {
    match &mut object.kind {
        Some(object::Kind::Node(node)) => Some(node.status.get_or_insert_default()),
        _ => None,
    }
}

/// The content of a template.
#[must_use]
pub fn template_spec(object: &Object) -> Option<&types::TemplateSpec> {
    match &object.kind {
        Some(object::Kind::Template(t)) => t.spec.as_ref(),
        _ => None,
    }
}

/// The spec of a service.
#[must_use]
pub fn service_spec(object: &Object) -> Option<&types::ServiceSpec> {
    match &object.kind {
        Some(object::Kind::Service(service)) => service.spec.as_ref(),
        _ => None,
    }
}

/// The images that the template of a workload, or of a pod that was applied by hand, names.
pub fn template_images(object: &Object) -> impl Iterator<Item = &str> {
    let template = match &object.kind {
        Some(object::Kind::Workload(w)) => w.spec.as_ref().and_then(|s| s.template.as_ref()),
        Some(object::Kind::Pod(p)) => p.spec.as_ref().and_then(|s| s.template.as_ref()),
        _ => None,
    };
    template.into_iter().flat_map(|t| &t.containers).map(|c| c.image.as_str())
}

/// The content of an image.
#[must_use]
pub fn image_spec(object: &Object) -> Option<&types::ImageSpec> {
    match &object.kind {
        Some(object::Kind::Image(i)) => i.spec.as_ref(),
        _ => None,
    }
}

/// The key of a node.
#[must_use]
pub fn node_key(name: &str) -> Key {
    Key::new(Kind::Node, "", name)
}

/// The key of a template revision.
#[must_use]
pub fn template_key(revision: &str) -> Key {
    Key::new(Kind::Template, "", revision)
}

/// The meta of a new object: a uid, generation 1, the present time.
#[must_use]
pub fn new_meta(namespace: &str, name: &str) -> Meta {
    Meta {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: uuid::Uuid::now_v7().to_string(),
        generation: 1,
        created: Some(timestamp_now()),
        ..Meta::default()
    }
}

/// Whether the pod has ended for good (one that was stopped on request has not): nothing of it runs or will run.
#[must_use]
pub fn is_ended(status: &types::PodStatus) -> bool {
    let stopped = status.phase() == types::pod_status::Phase::Exited && status.reason == strata_model::REASON_STOPPED;
    strata_model::Phase::from(status.phase()).is_ended() && !stopped
}
