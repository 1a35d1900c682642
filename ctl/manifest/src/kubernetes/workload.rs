//! Pod, Deployment, ReplicaSet, DaemonSet, StatefulSet.

use strata_model::limits::REPLICAS_MAX;
use strata_proto::types::{
    self, PodTemplate, WorkloadSpec, object::Kind, pod_template::RestartPolicy, workload_spec::Mode,
};

use super::{TOP, claim, meta, pod, selector, strategy};
use crate::{
    at::At,
    read::{Fields, fields},
    report::Report,
    table::{
        Class::{NoEffect, NotYet, Only, Read},
        Table,
    },
    tree::Node,
};

const HISTORY: &str = "the controller keeps the last 10 template revisions";
/// Of seconds that a rollout may take; Kubernetes' own bound is 2^31.
const SECONDS_MAX: u32 = 86_400 * 365;

const DEPLOYMENT: Table = &[
    ("replicas", Read),
    ("selector", Read),
    ("template", Read),
    ("strategy", Read),
    ("minReadySeconds", Read),
    ("paused", Read),
    ("progressDeadlineSeconds", Read),
    ("revisionHistoryLimit", NoEffect(HISTORY)),
];

const REPLICA_SET: Table = &[("replicas", Read), ("selector", Read), ("template", Read), ("minReadySeconds", Read)];

const DAEMON_SET: Table = &[
    ("selector", Read),
    ("template", Read),
    ("updateStrategy", Read),
    ("minReadySeconds", Read),
    ("revisionHistoryLimit", NoEffect(HISTORY)),
];

const STATEFUL_SET: Table = &[
    ("replicas", Read),
    ("selector", Read),
    ("template", Read),
    ("serviceName", Read),
    ("volumeClaimTemplates", Read),
    ("updateStrategy", Read),
    ("minReadySeconds", Read),
    ("podManagementPolicy", Read),
    ("persistentVolumeClaimRetentionPolicy", Read),
    ("revisionHistoryLimit", NoEffect(HISTORY)),
    ("ordinals", NotYet),
];
const RETENTION: Table = &[("whenDeleted", Only(&["Retain"])), ("whenScaled", Only(&["Retain"]))];

const TEMPLATE: Table = &[("metadata", Read), ("spec", Read)];

/// A `v1` Pod.
pub(crate) fn pod(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    let top = fields(root, at, TOP, report)?;
    let meta = meta::object(&top, true, report);
    let own = types::PodTemplate {
        labels: meta.as_ref().map(|m| m.labels.clone()).unwrap_or_default(),
        annotations: meta.as_ref().map(|m| m.annotations.clone()).unwrap_or_default(),
        ..Default::default()
    };
    let spec = top.require("spec", report)?;
    let template = pod::spec(spec, at.field("spec"), own, &[], report)?;
    let spec = types::PodSpec { template: Some(template), ..Default::default() };
    Some(types::Object { meta: Some(meta?), kind: Some(Kind::Pod(types::Pod { spec: Some(spec), status: None })) })
}

/// An `apps/v1` Deployment.
pub(crate) fn deployment(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    workload(root, at, DEPLOYMENT, report, |spec, report| {
        let replicas = spec.number("replicas", REPLICAS_MAX, report);
        let mut update = strategy::deployment(spec, replicas, report)?;
        update.progress_deadline_s = spec.number("progressDeadlineSeconds", SECONDS_MAX, report).unwrap_or_default();
        update.min_ready_s = min_ready(spec, report);
        let paused = spec.flag("paused", report).unwrap_or_default();
        Some(WorkloadSpec { replicas, update: Some(update), paused, ..of_mode(Mode::Replicated) })
    })
}

/// An `apps/v1` ReplicaSet: here a workload like any other, which rolls when its template changes.
pub(crate) fn replica_set(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    workload(root, at, REPLICA_SET, report, |spec, report| {
        let replicas = spec.number("replicas", REPLICAS_MAX, report);
        let update = types::UpdatePolicy { max_surge: 1, min_ready_s: min_ready(spec, report), ..Default::default() };
        Some(WorkloadSpec { replicas, update: Some(update), ..of_mode(Mode::Replicated) })
    })
}

/// An `apps/v1` DaemonSet: one pod on every node that matches.
pub(crate) fn daemon_set(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    workload(root, at, DAEMON_SET, report, |spec, report| {
        let mut update = strategy::one_at_a_time(spec, "an unknown number of nodes", report)?;
        update.min_ready_s = min_ready(spec, report);
        Some(WorkloadSpec { update: Some(update), ..of_mode(Mode::Global) })
    })
}

/// An `apps/v1` StatefulSet: pods are slots that come and go in order and keep their volumes.
pub(crate) fn stateful_set(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    workload(root, at, STATEFUL_SET, report, |spec, report| {
        let volume_templates = spec.list("volumeClaimTemplates", report, claim::template);
        let mut update = strategy::one_at_a_time(spec, "a number of pods that may change", report)?;
        update.min_ready_s = min_ready(spec, report);
        if let Some(node) = spec.get("podManagementPolicy")
            && spec.word("podManagementPolicy", &[("OrderedReady", false), ("Parallel", true)], report) == Some(true)
        {
            let message = "Parallel has no effect here: pods come and go one after another";
            report.warn(node.pos, spec.at().field("podManagementPolicy"), message);
        }
        if let Some(node) = spec.get("persistentVolumeClaimRetentionPolicy") {
            fields(node, spec.at().field("persistentVolumeClaimRetentionPolicy"), RETENTION, report)?;
        }
        Some(WorkloadSpec {
            // A slot per replica: the number is the manifest's, 1 if it says none, as in Kubernetes.
            replicas: spec.number("replicas", REPLICAS_MAX, report),
            update: Some(update),
            ordered: true,
            volume_templates,
            service: spec.text("serviceName", report).unwrap_or_default(),
            ..of_mode(Mode::Replicated)
        })
    })
}

/// A spec of this mode and nothing else.
pub(crate) fn of_mode(mode: Mode) -> WorkloadSpec {
    WorkloadSpec { mode: mode.into(), ..Default::default() }
}

fn min_ready(spec: &Fields<'_, '_>, report: &mut Report) -> u32 {
    spec.number("minReadySeconds", SECONDS_MAX, report).unwrap_or_default()
}

/// What all of them have in common; `own` reads the rest of the spec.
fn workload(
    root: &Node,
    at: At<'_>,
    table: Table,
    report: &mut Report,
    own: impl FnOnce(&Fields<'_, '_>, &mut Report) -> Option<WorkloadSpec>,
) -> Option<types::Object> {
    let top = fields(root, at, TOP, report)?;
    let meta = meta::object(&top, true, report);
    let here = at.field("spec");
    let spec = fields(top.require("spec", report)?, here, table, report)?;
    let result = own(&spec, report);
    let claims: Vec<String> =
        result.iter().flat_map(|spec| &spec.volume_templates).map(|template| template.name.clone()).collect();
    let template = spec.require("template", report);
    let template = template.and_then(|node| template_of(node, here.field("template"), &claims, report));
    if let (Some(selector), Some((_, template))) = (spec.require("selector", report), &template) {
        selector::check(selector, here.field("selector"), &template.labels, report);
    }
    let (restart, template) = template?;
    if template.restart_policy() != RestartPolicy::Always {
        let at = here.field("template");
        report.error(
            restart,
            at.field("spec").field("restartPolicy"),
            "the pods of a workload that keeps them running restart Always",
        );
    }
    let spec = WorkloadSpec { template: Some(template), ..result? };
    let kind = Kind::Workload(types::Workload { spec: Some(spec), status: None });
    Some(types::Object { meta: Some(meta?), kind: Some(kind) })
}

/// A pod template, and the place of its restart policy.
pub(crate) fn template_of(
    node: &Node,
    at: At<'_>,
    claims: &[String],
    report: &mut Report,
) -> Option<(crate::tree::Pos, PodTemplate)> {
    let template = fields(node, at, TEMPLATE, report)?;
    let own = meta::template(&template, report);
    let spec = template.require("spec", report)?;
    let result = pod::spec(spec, at.field("spec"), own, claims, report)?;
    Some((spec.get("restartPolicy").map_or(spec.pos, |n| n.pos), result))
}
