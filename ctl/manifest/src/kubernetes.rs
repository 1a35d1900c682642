//! Kubernetes documents: `v1` Pod, Service, ConfigMap, Secret, PersistentVolumeClaim, Namespace, ServiceAccount, List; `apps/v1` Deployment,
//! ReplicaSet, DaemonSet, StatefulSet; `batch/v1` Job, CronJob.
//!
//! The tables name every field of the kinds they cover (API reference of Kubernetes 1.34), so that "unknown" means misspelt.

mod claim;
pub(crate) mod container;
pub(crate) mod data;
mod env;
mod expand;
mod job;
mod kinds;
mod meta;
mod pod;
mod probe;
mod resources;
pub(crate) mod security;
mod selector;
mod service;
mod strategy;
mod volumes;
mod workload;

use strata_proto::types::{self, namespace_spec::Policy, object::Kind};

use crate::{
    Document,
    at::At,
    check,
    read::{self, fields},
    report::Report,
    suggest::did_you_mean,
    table::{
        Class::{NoEffect, Read},
        Table,
    },
    tree::{Node, Value},
};

/// Why fields that a Kubernetes server sets are accepted.
const SERVER: &str = "a Kubernetes server sets it";

const TOP: Table =
    &[("apiVersion", Read), ("kind", Read), ("metadata", Read), ("spec", Read), ("status", NoEffect(SERVER))];

const LIST: Table = &[("apiVersion", Read), ("kind", Read), ("items", Read), ("metadata", NoEffect(SERVER))];

/// The label of a namespace that says what its pods may ask for.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

const NAMESPACE_SPEC: Table = &[("finalizers", NoEffect(SERVER))];

/// Reads one document; a List gives many.
pub(crate) fn read(root: &Node, at: At<'_>, report: &mut Report, documents: &mut Vec<Document>) {
    let text = |name: &str, report: &mut Report| match root.get(name) {
        Some(node) => read::string(node, at.field(name), report).map(|text| (text, node.pos)),
        None => {
            report.error(root.pos, at, format!("`{name}` is missing"));
            None
        }
    };
    let (version, kind) = (text("apiVersion", report), text("kind", report));
    let (Some((version, version_pos)), Some((kind, kind_pos))) = (version, kind) else { return };
    let errors_before = report.errors_seen();
    let object = match (version.as_str(), kind.as_str()) {
        ("v1", "List") => return read_list(root, at, report, documents),
        ("v1", "ServiceAccount") => {
            report.warn(root.pos, at, "has no effect here: pods have no service account");
            return;
        }
        ("v1", "Namespace") => namespace(root, at, report),
        ("v1", "Pod") => workload::pod(root, at, report),
        ("v1", "Service") => service::read(root, at, report),
        ("v1", "ConfigMap") => data::config_map(root, at, report),
        ("v1", "Secret") => data::secret(root, at, report),
        ("v1", "PersistentVolumeClaim") => claim::read(root, at, report),
        ("apps/v1", "Deployment") => workload::deployment(root, at, report),
        ("apps/v1", "ReplicaSet") => workload::replica_set(root, at, report),
        ("apps/v1", "DaemonSet") => workload::daemon_set(root, at, report),
        ("apps/v1", "StatefulSet") => workload::stateful_set(root, at, report),
        ("batch/v1", "Job") => job::job(root, at, report),
        ("batch/v1", "CronJob") => job::cron_job(root, at, report),
        _ => {
            match kinds::lookup(&kind) {
                kinds::Lookup::NotYet => {
                    report.error(kind_pos, at.field("kind"), format!("{kind} is not supported yet"));
                }
                kinds::Lookup::OtherVersion(right) => {
                    let message =
                        format!("a {kind} has the apiVersion {right}, not {:?}", crate::scalar::cut(&version));
                    report.error(version_pos, at.field("apiVersion"), message);
                }
                kinds::Lookup::Unknown => {
                    let hint = did_you_mean(&kind, kinds::words());
                    let message = format!("no kind {:?} is known{hint}", crate::scalar::cut(&kind));
                    report.error(kind_pos, at.field("kind"), message);
                }
            }
            return;
        }
    };
    if let Some(object) = object
        && report.errors_seen() == errors_before
    {
        check::object(&object, root, at, check::kubernetes_path, report);
        documents.push(Document::new(object, root.pos));
    }
}

fn read_list(root: &Node, at: At<'_>, report: &mut Report, documents: &mut Vec<Document>) {
    let Some(list) = fields(root, at, LIST, report) else { return };
    list.list("items", report, |item, at, report| {
        // A list in a list is no deeper than the text's own bound on nesting.
        match &item.value {
            Value::Map(_) => crate::read_document(item, at, report, documents),
            _ => report.error(item.pos, at, format!("an object is expected, this is {}", item.what())),
        }
        Some(())
    });
}

fn namespace(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    let top = fields(root, at, TOP, report)?;
    let meta = meta::object(&top, false, report)?;
    if let Some(spec) = top.get("spec") {
        fields(spec, at.field("spec"), NAMESPACE_SPEC, report)?;
    }
    let policy = policy(&meta, &top, report);
    let kind = Kind::Namespace(types::Namespace { spec: Some(types::NamespaceSpec { policy: policy.into() }) });
    Some(types::Object { meta: Some(meta), kind: Some(kind) })
}

/// What the pods of a namespace may ask for: the label of Kubernetes' pod security standards says it. Without one it is Baseline.
fn policy(meta: &types::Meta, top: &read::Fields<'_, '_>, report: &mut Report) -> Policy {
    const LEVELS: [(&str, Policy); 3] =
        [("baseline", Policy::Baseline), ("restricted", Policy::Restricted), ("privileged", Policy::Privileged)];
    let Some(level) = meta.labels.get(ENFORCE) else { return Policy::default() };
    if let Some((_, policy)) = LEVELS.iter().find(|(word, _)| word == level) {
        return *policy;
    }
    let labels = top.get("metadata").and_then(|m| m.get("labels"));
    let pos = labels.and_then(|l| l.get(ENFORCE)).map_or(top.pos(), |n| n.pos);
    let hint = did_you_mean(level, LEVELS.map(|(word, _)| word));
    let message = format!("{:?} is not one of baseline, restricted, privileged{hint}", crate::scalar::cut(level));
    report.error(pos, top.at().field("metadata").field("labels").key(ENFORCE), message);
    Policy::default()
}
