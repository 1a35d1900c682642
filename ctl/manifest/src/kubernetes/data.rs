//! `v1` ConfigMap and Secret. No message shows a value of a secret.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use strata_proto::types::{self, ConfigSpec, SecretSpec, object::Kind};

use super::{SERVER, meta};
use crate::{
    at::At,
    read::{Fields, fields},
    report::Report,
    scalar::{boolean, is_null, is_number},
    table::{
        Class::{NoEffect, Read},
        Table,
    },
    tree::{Node, Pos, Value},
};

const CONFIG_MAP: Table = &[
    ("apiVersion", Read),
    ("kind", Read),
    ("metadata", Read),
    ("data", Read),
    ("binaryData", Read),
    ("immutable", Read),
    ("status", NoEffect(SERVER)),
];
const SECRET: Table = &[
    ("apiVersion", Read),
    ("kind", Read),
    ("metadata", Read),
    ("type", Read),
    ("data", Read),
    ("stringData", Read),
    ("immutable", Read),
    ("status", NoEffect(SERVER)),
];

/// A `v1` ConfigMap.
pub(crate) fn config_map(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    let top = fields(root, at, CONFIG_MAP, report)?;
    let meta = meta::object(&top, true, report);
    let data = entries(&top, "data", report, text);
    let binary = entries(&top, "binaryData", report, base64_of);
    for (key, (_, pos)) in &binary {
        if data.contains_key(key) {
            report.error(*pos, at.field("binaryData").key(key), "the key is in `data` too");
        }
    }
    let spec = ConfigSpec {
        data: values(data),
        binary: values(binary),
        immutable: top.flag("immutable", report).unwrap_or_default(),
    };
    Some(types::Object { meta: Some(meta?), kind: Some(Kind::Config(types::Config { spec: Some(spec) })) })
}

/// A `v1` Secret.
pub(crate) fn secret(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    let top = fields(root, at, SECRET, report)?;
    let mut meta = meta::object(&top, true, report);
    let mut data = values(entries(&top, "data", report, base64_of));
    // As Kubernetes: `stringData` wins.
    data.extend(values(entries(&top, "stringData", report, text)).into_iter().map(|(k, v)| (k, v.into_bytes())));
    if let Some(meta) = &mut meta {
        // kubectl keeps what it applied here, the values among it.
        meta.annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    let spec = SecretSpec {
        r#type: top.text("type", report).unwrap_or_default(),
        data,
        sealed: Vec::new(),
        immutable: top.flag("immutable", report).unwrap_or_default(),
    };
    let kind = Kind::Secret(types::Secret { spec: Some(spec), status: None });
    Some(types::Object { meta: Some(meta?), kind: Some(kind) })
}

/// The entries of a map of data, with the places of their values.
fn entries<T>(
    top: &Fields<'_, '_>,
    name: &'static str,
    report: &mut Report,
    read: fn(&Node, At<'_>, &mut Report) -> Option<T>,
) -> HashMap<String, (T, Pos)> {
    let Some(node) = top.get(name) else { return HashMap::new() };
    map(node, top.at().field(name), report, |node, at, report| read(node, at, report).map(|value| (value, node.pos)))
}

/// A map of data. Messages show keys, no values.
pub(crate) fn map<T>(
    node: &Node,
    at: At<'_>,
    report: &mut Report,
    read: impl Fn(&Node, At<'_>, &mut Report) -> Option<T>,
) -> HashMap<String, T> {
    let Value::Map(entries) = &node.value else {
        report.error(node.pos, at, "a map is expected");
        return HashMap::new();
    };
    let mut found = HashMap::new();
    for e in entries {
        let here = at.key(&e.key);
        if !is_key(&e.key) {
            report.error(e.pos, here, "a key has at most 253 letters, digits, '-', '_' and '.', and is not . or ..");
        } else if let Some(value) = read(&e.node, here, report) {
            found.insert(e.key.clone(), value);
        }
    }
    found
}

fn values<T>(entries: HashMap<String, (T, Pos)>) -> HashMap<String, T> {
    entries.into_iter().map(|(key, (value, _))| (key, value)).collect()
}

/// Whether a key of a config or secret can be a file's name.
pub(crate) fn is_key(key: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=253).contains(&key.len()) && key.bytes().all(plain) && key != "." && !key.starts_with("..")
}

/// A string; the message does not show what else it is.
pub(crate) fn text(node: &Node, at: At<'_>, report: &mut Report) -> Option<String> {
    match &node.value {
        Value::Scalar { text, plain: false } => return Some(text.clone()),
        Value::Scalar { text, plain: true } if !is_null(text) && boolean(text).is_none() && !is_number(text) => {
            return Some(text.clone());
        }
        Value::Scalar { text, .. } if is_null(text) => {
            report.error(node.pos, at, "a string is expected, this is nothing: write \"\"")
        }
        Value::Scalar { .. } => {
            report.error(node.pos, at, "a string is expected, YAML reads this as something else: put it into quotes")
        }
        _ => report.error(node.pos, at, "a string is expected, this is a list or a map"),
    }
    None
}

/// Bytes from base64; blanks and ends of lines in it count for nothing.
pub(crate) fn base64_of(node: &Node, at: At<'_>, report: &mut Report) -> Option<Vec<u8>> {
    // A number such as 1234 is base64 too, and nothing is the base64 of nothing.
    let Some(text) = node.scalar() else {
        report.error(node.pos, at, "base64 is expected, this is a list or a map");
        return None;
    };
    let text = if node.is_null() { "" } else { text };
    let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = BASE64_STANDARD.decode(packed);
    if bytes.is_err() {
        report.error(
            node.pos,
            at,
            "is not base64 (plain text goes into `stringData` of a Secret, `data` of a ConfigMap)",
        );
    }
    bytes.ok()
}
