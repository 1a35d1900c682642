//! Kinds that Kubernetes has and that are not read yet.

const NOT_YET: &[&str] = &[
    "Binding",
    "CSIDriver",
    "CSINode",
    "ClusterRole",
    "ClusterRoleBinding",
    "ControllerRevision",
    "CustomResourceDefinition",
    "EndpointSlice",
    "Endpoints",
    "Event",
    "GRPCRoute",
    "Gateway",
    "GatewayClass",
    "HTTPRoute",
    "HorizontalPodAutoscaler",
    "Ingress",
    "IngressClass",
    "Lease",
    "LimitRange",
    "MutatingWebhookConfiguration",
    "NetworkPolicy",
    "Node",
    "PersistentVolume",
    "PodDisruptionBudget",
    "PodTemplate",
    "PriorityClass",
    "ReplicationController",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "StorageClass",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];

/// Kinds that are read, with their one apiVersion.
const READ: &[(&str, &str)] = &[
    ("v1", "Pod"),
    ("v1", "Namespace"),
    ("v1", "ServiceAccount"),
    ("v1", "List"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "PersistentVolumeClaim"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
];

/// What is known of a kind that is not read.
pub(crate) enum Lookup {
    /// Kubernetes has it.
    NotYet,
    /// The kind exists under this apiVersion.
    OtherVersion(&'static str),
    /// Nobody has it.
    Unknown,
}

/// Looks a kind up that is not read under the apiVersion it came with.
pub(crate) fn lookup(kind: &str) -> Lookup {
    if let Some((right, _)) = READ.iter().find(|(_, k)| *k == kind) {
        return Lookup::OtherVersion(right);
    }
    // Whatever its apiVersion: with the right one it would not be read either.
    if NOT_YET.contains(&kind) { Lookup::NotYet } else { Lookup::Unknown }
}

/// All words that may stand behind `kind:`.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    READ.iter().map(|(_, k)| *k).chain(NOT_YET.iter().copied())
}
