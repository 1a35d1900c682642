//! The spec of a pod.

use strata_model::limits::TERMINATION_GRACE_MAX_S;
use strata_proto::types::{PodTemplate, pod_template::RestartPolicy};

use super::{container, container::Volumes, security, volumes};
use crate::{
    at::At,
    read::fields,
    report::Report,
    table::{
        Class::{NoEffect, NotYet, Only, Read},
        Table,
    },
    tree::{Node, Value},
};

/// Kubernetes' default.
const GRACE_DEFAULT_S: u32 = 30;
const NO_ACCOUNT: &str = "pods have no service account and get no token";

const POD: Table = &[
    ("containers", Read),
    ("restartPolicy", Read),
    ("terminationGracePeriodSeconds", Read),
    ("nodeSelector", Read),
    ("hostname", Read),
    ("securityContext", Read),
    ("volumes", Read),
    ("serviceAccountName", NoEffect(NO_ACCOUNT)),
    ("serviceAccount", NoEffect(NO_ACCOUNT)),
    ("automountServiceAccountToken", NoEffect(NO_ACCOUNT)),
    ("enableServiceLinks", NoEffect("no variables of services are set")),
    ("imagePullSecrets", NoEffect("nodes take registry credentials from the agent's `registry_auth_file`")),
    ("schedulerName", NoEffect("there is one scheduler")),
    ("preemptionPolicy", NoEffect("pods have no priority")),
    ("os", NoEffect("all nodes run Linux")),
    ("dnsPolicy", Only(&["ClusterFirst", "Default"])),
    ("activeDeadlineSeconds", NotYet),
    ("affinity", NotYet),
    ("dnsConfig", NotYet),
    ("ephemeralContainers", NotYet),
    ("hostAliases", NotYet),
    ("hostIPC", NotYet),
    ("hostNetwork", NotYet),
    ("hostPID", NotYet),
    ("hostUsers", NotYet),
    ("hostnameOverride", NotYet),
    ("initContainers", NotYet),
    ("nodeName", NotYet),
    ("overhead", NotYet),
    ("priority", NotYet),
    ("priorityClassName", NotYet),
    ("readinessGates", NotYet),
    ("resourceClaims", NotYet),
    ("resources", NotYet),
    ("runtimeClassName", NotYet),
    ("schedulingGates", NotYet),
    ("setHostnameAsFQDN", NotYet),
    ("shareProcessNamespace", NotYet),
    ("subdomain", NotYet),
    ("tolerations", NotYet),
    ("topologySpreadConstraints", NotYet),
    ("workloadRef", NotYet),
];

const RESTART: &[(&str, RestartPolicy)] =
    &[("Always", RestartPolicy::Always), ("OnFailure", RestartPolicy::OnFailure), ("Never", RestartPolicy::Never)];

/// A pod spec as a template that already has its labels and annotations. `claims` are the names of its workload's claim templates.
pub(crate) fn spec(
    node: &Node,
    at: At<'_>,
    mut template: PodTemplate,
    claims: &[String],
    report: &mut Report,
) -> Option<PodTemplate> {
    let pod = fields(node, at, POD, report)?;
    pod.require("containers", report)?;
    let own = pod.list("volumes", report, volumes::volume);
    // A volume that was refused is said once.
    let mut others = claims.to_vec();
    if let Some(Value::List(items)) = pod.get("volumes").map(|n| &n.value) {
        others.extend(items.iter().filter_map(|v| v.get("name")?.scalar()).map(str::to_owned));
    }
    let volumes = Volumes { own: &own, others: &others };
    template.containers =
        pod.list("containers", report, |node, at, report| container::read(node, at, &volumes, report));
    template.volumes = own.into_iter().map(|v| v.source).collect();
    template.restart_policy = pod.word("restartPolicy", RESTART, report).unwrap_or_default().into();
    let grace = pod.number("terminationGracePeriodSeconds", TERMINATION_GRACE_MAX_S, report);
    template.termination_grace_s = Some(grace.unwrap_or(GRACE_DEFAULT_S));
    template.node_selector = pod.strings("nodeSelector", report);
    template.hostname = pod.text("hostname", report).unwrap_or_default();
    if let Some(node) = pod.get("securityContext") {
        security::of_pod(node, at.field("securityContext"), &mut template, report);
    }
    Some(template)
}
