//! `metadata`.

use strata_proto::types;

use super::SERVER;
use crate::{
    read::{Fields, fields},
    report::Report,
    table::{
        Class::{NoEffect, NotYet, Read},
        Table,
    },
};

const META: Table = &[
    ("name", Read),
    ("namespace", Read),
    ("labels", Read),
    ("annotations", Read),
    ("generateName", NotYet),
    ("finalizers", NotYet),
    ("ownerReferences", NoEffect(SERVER)),
    ("creationTimestamp", NoEffect(SERVER)),
    ("deletionTimestamp", NoEffect(SERVER)),
    ("deletionGracePeriodSeconds", NoEffect(SERVER)),
    ("generation", NoEffect(SERVER)),
    ("managedFields", NoEffect(SERVER)),
    ("resourceVersion", NoEffect(SERVER)),
    ("selfLink", NoEffect(SERVER)),
    ("uid", NoEffect(SERVER)),
];

const TEMPLATE_META: Table = &[
    ("labels", Read),
    ("annotations", Read),
    ("name", NoEffect("pods are named after their workload")),
    ("generateName", NoEffect("pods are named after their workload")),
    ("namespace", NoEffect("pods are in their workload's namespace")),
    ("creationTimestamp", NoEffect(SERVER)),
    ("finalizers", NotYet),
];

/// An object's own metadata; it must have a name.
pub(crate) fn object(top: &Fields<'_, '_>, namespaced: bool, report: &mut Report) -> Option<types::Meta> {
    let node = top.require("metadata", report)?;
    let meta = fields(node, top.at().field("metadata"), META, report)?;
    meta.require("name", report)?;
    let name = meta.text("name", report)?;
    let namespace = meta.text("namespace", report).unwrap_or_default();
    if !namespaced && !namespace.is_empty() {
        report.error(node.pos, meta.at().field("namespace"), "this kind has no namespace");
    }
    let (labels, annotations) = (meta.strings("labels", report), meta.strings("annotations", report));
    Some(types::Meta { name, namespace, labels, annotations, ..Default::default() })
}

/// Labels and annotations of a pod template.
pub(crate) fn template(template: &Fields<'_, '_>, report: &mut Report) -> types::PodTemplate {
    let node = template.get("metadata");
    let meta = node.and_then(|node| fields(node, template.at().field("metadata"), TEMPLATE_META, report));
    let Some(meta) = meta else { return types::PodTemplate::default() };
    let (labels, annotations) = (meta.strings("labels", report), meta.strings("annotations", report));
    types::PodTemplate { labels, annotations, ..Default::default() }
}
