//! Kubernetes documents: `v1` Pod, Namespace, List, ServiceAccount; `apps/v1` Deployment, DaemonSet.
//!
//! The tables name every field of the kinds they cover (API reference of Kubernetes 1.34), so that "unknown" means misspelt.

mod container;
mod expand;
mod kinds;
mod meta;
mod pod;
mod resources;
mod security;
mod workload;

use strata_proto::types::{self, object::Kind};

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
        ("apps/v1", "Deployment") => workload::deployment(root, at, report),
        ("apps/v1", "DaemonSet") => workload::daemon_set(root, at, report),
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
        documents.push(Document { object, pos: root.pos });
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
    let kind = Kind::Namespace(types::Namespace { spec: Some(types::NamespaceSpec::default()) });
    Some(types::Object { meta: Some(meta), kind: Some(kind) })
}
