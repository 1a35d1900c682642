//! Strata's own documents, read by the descriptors of the wire types: a field that is added to a proto file is known here at once.

mod schema;

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value as Json};
use strata_model::Quantity;
use strata_proto::document;

use crate::{
    Document,
    at::At,
    check,
    kubernetes::data,
    read::{boolean, quantity, string, whole},
    report::Report,
    scalar,
    suggest::did_you_mean,
    tree::{Entry, Node, Value},
};
use schema::{Field, FieldType, Schema};

const TOP: &[&str] = &["kind", "meta", "spec", "status"];
/// What `ctl get -o yaml` prints and the controller alone writes.
const CONTROLLERS: &[&str] = &["uid", "generation", "created", "deleted", "owner"];
const RESOURCES: &str = ".strata.types.v1.Resources";
const SECRET: &str = ".strata.types.v1.SecretSpec";
/// Beside a secret's `data`: the same as plain text.
const STRING_DATA: &str = "stringData";

/// Reads one document.
pub(crate) fn read(root: &Node, at: At<'_>, report: &mut Report, documents: &mut Vec<Document>) {
    let Value::Map(entries) = &root.value else { return };
    let Some(schema) = Schema::get() else {
        report.error(root.pos, at, "the built-in schema cannot be read: this build is broken");
        return;
    };
    let Some(kind_node) = root.get("kind") else {
        report.error(root.pos, at, "`kind` is missing");
        return;
    };
    let Some(kind) = string(kind_node, at.field("kind"), report) else { return };
    if !schema.kinds().any(|k| k == kind) {
        let hint = did_you_mean(&kind, schema.kinds());
        let message =
            format!("no kind {:?} is known{hint}; a Kubernetes document needs `apiVersion`", scalar::cut(&kind));
        report.error(kind_node.pos, at.field("kind"), message);
        return;
    }
    let errors_before = report.errors_seen();
    let mut json = Map::new();
    json.insert("kind".to_owned(), Json::String(kind.clone()));
    for Entry { key, pos, node } in entries {
        let here = at.field(key);
        match key.as_str() {
            "kind" => {}
            "meta" => {
                json.insert(key.clone(), meta(schema, node, here, report));
            }
            "spec" => {
                let message = format!(".strata.types.v1.{kind}Spec");
                json.insert(key.clone(), object(schema, &message, node, here, report));
            }
            "status" if node.is_default() => {}
            "status" => report.warn(*pos, here, "has no effect: the controller and the nodes write it"),
            _ => {
                let hint = did_you_mean(key, TOP.iter().copied());
                report.error(*pos, here, format!("unknown field{hint}"));
            }
        }
    }
    if root.get("meta").and_then(|m| m.get("name")).is_none_or(Node::is_null) {
        report.error(root.get("meta").map_or(root.pos, |m| m.pos), at.field("meta"), "`name` is missing");
    }
    if report.errors_seen() > errors_before {
        return;
    }
    match document::from_json(Json::Object(json)) {
        Ok(object) => {
            check::object(&object, root, at, check::same_path, report);
            documents.push(Document::new(object, root.pos));
        }
        Err(error) => report.error(root.pos, at, error.to_string()),
    }
}

/// `meta` without what the controller writes.
fn meta(schema: &Schema, node: &Node, at: At<'_>, report: &mut Report) -> Json {
    let mut json = object(schema, ".strata.types.v1.Meta", node, at, report);
    if let (Json::Object(map), Value::Map(entries)) = (&mut json, &node.value) {
        for Entry { key, pos, node } in entries.iter().filter(|e| CONTROLLERS.contains(&e.key.as_str())) {
            map.remove(key);
            if !node.is_default() {
                report.warn(*pos, at.field(key), "has no effect: the controller writes it");
            }
        }
    }
    json
}

/// A message, as its proto-JSON.
fn object(schema: &Schema, message: &str, node: &Node, at: At<'_>, report: &mut Report) -> Json {
    let mut json = Map::new();
    if node.is_null() {
        return Json::Object(json);
    }
    let Value::Map(entries) = &node.value else {
        report.error(node.pos, at, format!("a map is expected, this is {}", node.what()));
        return Json::Null;
    };
    let mut chosen: HashMap<i32, &str> = HashMap::new();
    for Entry { key, pos, node } in entries.iter().filter(|e| !e.node.is_null()) {
        let here = at.field(key);
        if message == RESOURCES && amount(&mut json, key, node, here, report) {
            continue;
        }
        if message == SECRET && key == STRING_DATA {
            continue;
        }
        let Some(field) = schema.field(message, key) else {
            let also = match message {
                RESOURCES => &["cpu", "memory"][..],
                SECRET => &[STRING_DATA],
                _ => &[],
            };
            let hint = did_you_mean(key, schema.names(message).chain(also.iter().copied()));
            report.error(*pos, here, format!("unknown field{hint}"));
            continue;
        };
        if matches!(field.kind, FieldType::Bytes) && !field.is_map && node.is_default() {
            continue;
        }
        if let Some(other) = field.oneof.and_then(|oneof| chosen.insert(oneof, key)) {
            report.error(*pos, here, format!("`{other}` and `{key}` are both given: leave one of them out"));
        }
        let value = value(schema, field, node, here, report);
        if json.insert(key.clone(), value).is_some() {
            report.error(*pos, here, "the amount is given twice, by two names");
        }
    }
    if message == SECRET
        && let Some(node) = node.get(STRING_DATA).filter(|n| !n.is_null())
    {
        let texts = data::map(node, at.field(STRING_DATA), report, |node, at, report| {
            data::text(node, at, report).map(|text| Json::String(BASE64_STANDARD.encode(text)))
        });
        if let Json::Object(all) = json.entry("data").or_insert_with(|| Json::Object(Map::new())) {
            all.extend(texts);
        }
    }
    Json::Object(json)
}

/// `cpu` and `memory` as quantities beside `cpuMillis` and `memoryBytes`.
fn amount(json: &mut Map<String, Json>, key: &str, node: &Node, at: At<'_>, report: &mut Report) -> bool {
    let (name, of): (_, fn(Quantity) -> u64) = match key {
        "cpu" => ("cpuMillis", |q| q.thousandths),
        "memory" => ("memoryBytes", Quantity::units),
        _ => return false,
    };
    let amount = quantity(node, at, report).map_or(0, of);
    if json.insert(name.to_owned(), Json::String(amount.to_string())).is_some() {
        report.error(node.pos, at, "the amount is given twice, by two names");
    }
    true
}

fn value(schema: &Schema, field: &Field, node: &Node, at: At<'_>, report: &mut Report) -> Json {
    if field.is_map && matches!(field.kind, FieldType::Bytes) {
        let bytes = data::map(node, at, report, |node, at, report| {
            data::base64_of(node, at, report).map(|bytes| Json::String(BASE64_STANDARD.encode(bytes)))
        });
        return Json::Object(bytes.into_iter().collect());
    }
    if field.is_map {
        let strings = crate::read::strings(node, at, report);
        return Json::Object(strings.into_iter().map(|(k, v)| (k, Json::String(v))).collect());
    }
    if !field.is_list {
        return one(schema, field, node, at, report);
    }
    let Value::List(items) = &node.value else {
        report.error(node.pos, at, format!("a list is expected, this is {}", node.what()));
        return Json::Null;
    };
    items.iter().enumerate().map(|(i, item)| one(schema, field, item, at.item(i), report)).collect()
}

fn one(schema: &Schema, field: &Field, node: &Node, at: At<'_>, report: &mut Report) -> Json {
    match &field.kind {
        FieldType::Text => string(node, at, report).map_or(Json::Null, Json::String),
        FieldType::Flag => boolean(node, at, report).map_or(Json::Null, Json::Bool),
        FieldType::Number { max } => {
            // proto-JSON prints 64-bit integers as strings, so both are read back.
            let unquoted = match &node.value {
                Value::Scalar { text, plain: false } if *max > u64::from(u32::MAX) => {
                    let value = Value::Scalar { text: text.clone(), plain: true };
                    &Node { value, ..node.clone() }
                }
                _ => node,
            };
            whole(unquoted, at, *max, report).map_or(Json::Null, Json::from)
        }
        FieldType::Word(words) => {
            let Some(text) = string(node, at, report) else { return Json::Null };
            if !words.contains(&text) {
                let hint = did_you_mean(&text, words.iter().map(String::as_str));
                let message = format!("{:?} is not one of {}{hint}", scalar::cut(&text), words.join(", "));
                report.error(node.pos, at, message);
            }
            Json::String(text)
        }
        FieldType::Message(name) if name == ".google.protobuf.Timestamp" => {
            string(node, at, report).map_or(Json::Null, Json::String)
        }
        FieldType::Message(name) => object(schema, name, node, at, report),
        FieldType::Bytes | FieldType::Other => {
            report.error(node.pos, at, "cannot be written in a manifest");
            Json::Null
        }
    }
}
