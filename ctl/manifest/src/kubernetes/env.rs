//! `env` and `envFrom` of a container.

use strata_proto::types::{EnvFrom, EnvVar, KeyRef, env_from::From as Whole, env_var::From};

use crate::{
    at::At,
    read::{Fields, fields},
    report::Report,
    scalar::cut,
    suggest::did_you_mean,
    table::{
        Class::{NotYet, Only, Read},
        Table,
    },
    tree::Node,
};

const ENV: Table = &[("name", Read), ("value", Read), ("valueFrom", Read)];
const SOURCE: Table = &[
    ("configMapKeyRef", Read),
    ("secretKeyRef", Read),
    ("fieldRef", Read),
    ("resourceFieldRef", NotYet),
    ("fileKeyRef", NotYet),
];
const KEY: Table = &[("name", Read), ("key", Read), ("optional", Read)];
const FIELD: Table = &[("apiVersion", Only(&["v1"])), ("fieldPath", Read)];
const ENV_FROM: Table = &[("prefix", Read), ("configMapRef", Read), ("secretRef", Read)];
const OBJECT: Table = &[("name", Read), ("optional", Read)];

/// What a variable can be filled with from the pod's own record.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "status.podIP",
    "status.hostIP",
    "metadata.labels['KEY']",
    "metadata.annotations['KEY']",
];
/// Fields that Kubernetes has besides.
const FIELDS_NOT_YET: &[&str] = &["spec.serviceAccountName", "status.podIPs", "status.hostIPs"];

/// One item of `env`.
pub(crate) fn variable(node: &Node, at: At<'_>, report: &mut Report) -> Option<EnvVar> {
    let e = fields(node, at, ENV, report)?;
    e.require("name", report)?;
    let (name, value) = (e.text("name", report)?, e.text("value", report).unwrap_or_default());
    let Some(source) = e.get("valueFrom") else { return Some(EnvVar { name, value, from: None }) };
    let here = at.field("valueFrom");
    if !value.is_empty() {
        report.error(source.pos, here, "`value` and `valueFrom` are both given: leave one of them out");
        return None;
    }
    let source_fields = fields(source, here, SOURCE, report)?;
    let mut found = Vec::new();
    if let Some(node) = source_fields.get("configMapKeyRef") {
        found.push(From::Config(key(node, here.field("configMapKeyRef"), report)?));
    }
    if let Some(node) = source_fields.get("secretKeyRef") {
        found.push(From::Secret(key(node, here.field("secretKeyRef"), report)?));
    }
    if let Some(node) = source_fields.get("fieldRef") {
        found.push(From::Field(field(node, here.field("fieldRef"), report)?));
    }
    if found.len() != 1 {
        // A source that is not built yet has been refused already.
        if !["resourceFieldRef", "fileKeyRef"].iter().any(|name| source.get(name).is_some()) {
            report.error(source.pos, here, "one of configMapKeyRef, secretKeyRef and fieldRef is expected");
        }
        return None;
    }
    Some(EnvVar { name, value: String::new(), from: found.pop() })
}

fn key(node: &Node, at: At<'_>, report: &mut Report) -> Option<KeyRef> {
    let r = fields(node, at, KEY, report)?;
    let there = (r.require("name", report).is_some(), r.require("key", report).is_some());
    let (name, key) = (r.text("name", report), r.text("key", report));
    let optional = r.flag("optional", report).unwrap_or_default();
    if there != (true, true) {
        return None;
    }
    Some(KeyRef { name: name?, key: key?, optional })
}

fn field(node: &Node, at: At<'_>, report: &mut Report) -> Option<String> {
    let r = fields(node, at, FIELD, report)?;
    let place = r.require("fieldPath", report)?;
    let path = r.text("fieldPath", report)?;
    let keyed = |prefix: &str| {
        let key = path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']"));
        key.is_some_and(|key| !key.is_empty() && !key.contains('\''))
    };
    if FIELDS.iter().any(|f| *f == path && !f.ends_with(']'))
        || keyed("metadata.labels['")
        || keyed("metadata.annotations['")
    {
        return Some(path);
    }
    let here = at.field("fieldPath");
    if FIELDS_NOT_YET.contains(&path.as_str()) {
        report.error(place.pos, here, format!("{path} is not supported yet: it is refused rather than ignored"));
    } else {
        let hint = did_you_mean(&path, FIELDS.iter().copied());
        report.error(
            place.pos,
            here,
            format!("{:?} is no field of a pod{hint}; there are {}", cut(&path), FIELDS.join(", ")),
        );
    }
    None
}

/// One item of `envFrom`.
pub(crate) fn whole(node: &Node, at: At<'_>, report: &mut Report) -> Option<EnvFrom> {
    let e = fields(node, at, ENV_FROM, report)?;
    let prefix = e.text("prefix", report).unwrap_or_default();
    let mut one = |e: &Fields<'_, '_>, name: &'static str| -> Option<(String, bool)> {
        let r = fields(e.get(name)?, at.field(name), OBJECT, report)?;
        r.require("name", report)?;
        Some((r.text("name", report)?, r.flag("optional", report).unwrap_or_default()))
    };
    let (config, secret) = (one(&e, "configMapRef"), one(&e, "secretRef"));
    let (from, optional) = match (config, secret) {
        (Some((name, optional)), None) => (Whole::Config(name), optional),
        (None, Some((name, optional))) => (Whole::Secret(name), optional),
        _ => {
            report.error(node.pos, at, "one of configMapRef and secretRef, with a name, is expected");
            return None;
        }
    };
    Some(EnvFrom { prefix, from: Some(from), optional })
}
