//! What an Apply may ask of volumes, configs and secrets, beyond their form.

use super::{Refusal, namespaces};
use strata_proto::types::{Object, PodTemplate, VolumeSpec, namespace_spec::Policy, object, volume_source::Source};
use strata_store::Snapshot;

/// Whether the namespace's policy allows what a template asks of the node.
pub(super) fn allowed(snapshot: &Snapshot, wanted: &Object) -> Result<(), Refusal> {
    let template = match &wanted.kind {
        Some(object::Kind::Workload(w)) => w.spec.as_ref().and_then(|s| s.template.as_ref()),
        Some(object::Kind::Pod(p)) => p.spec.as_ref().and_then(|s| s.template.as_ref()),
        _ => None,
    };
    let Some(index) = template.and_then(host_path) else { return Ok(()) };
    let namespace = &crate::objects::meta(wanted).namespace;
    let policy = match snapshot.get(&namespaces::key(namespace)).as_deref().and_then(|o| o.kind.as_ref()) {
        Some(object::Kind::Namespace(n)) => n.spec.as_ref().map_or(Policy::Baseline, |s| s.policy()),
        _ => Policy::Baseline,
    };
    if policy == Policy::Privileged {
        return Ok(());
    }
    Err(Refusal::precondition(
        "PolicyForbids",
        format!(
            "spec.template.volumes[{index}]: a host path needs a namespace whose spec.policy is Privileged, {namespace}'s is {}: apply the namespace with `spec.policy: Privileged` (in Kubernetes documents: label pod-security.kubernetes.io/enforce=privileged)",
            policy.as_str_name()
        ),
    ))
}

fn host_path(template: &PodTemplate) -> Option<usize> {
    template.volumes.iter().position(|v| matches!(v.source, Some(Source::HostPath(_))))
}

/// What is immutable stays as it is.
pub(super) fn same_if_immutable(immutable: bool, same: bool) -> Result<(), Refusal> {
    if !immutable || same {
        return Ok(());
    }
    Err(Refusal::precondition("Immutable", "it is immutable: make another one, or delete it and apply it again"))
}

/// A volume stays where it is.
pub(super) fn changed_volume(new: VolumeSpec, old: VolumeSpec) -> Result<VolumeSpec, Refusal> {
    if new.node.is_empty() || old.node.is_empty() || new.node == old.node {
        let node = if new.node.is_empty() { old.node } else { new.node };
        return Ok(VolumeSpec { node, ..new });
    }
    let message = format!("spec.node: the volume is on node {} for life: leave it out", old.node);
    Err(Refusal::precondition("Immutable", message))
}
