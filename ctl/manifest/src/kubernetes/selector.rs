//! `selector` of workloads.

use std::collections::HashMap;

use crate::{
    at::At,
    read::fields,
    report::Report,
    table::{Class::Read, Table},
    tree::{Node, Pos, Value},
};

const SELECTOR: Table = &[("matchLabels", Read), ("matchExpressions", Read)];
const EXPRESSION: Table = &[("key", Read), ("operator", Read), ("values", Read)];

/// The selector has no effect of its own (a workload's pods carry its name), but it must be true of the template, as Kubernetes demands.
pub(crate) fn check(node: &Node, at: At<'_>, labels: &HashMap<String, String>, report: &mut Report) {
    let Some(selector) = fields(node, at, SELECTOR, report) else { return };
    if node.is_default() {
        report.error(
            node.pos,
            at,
            "an empty selector would match every pod: name the template's labels in `matchLabels`",
        );
        return;
    }
    for (key, value) in selector.strings("matchLabels", report) {
        if labels.get(&key) != Some(&value) && !report.is_full() {
            let (pos, map) = match node.get("matchLabels") {
                Some(map) => (place_of(map, &key), at.field("matchLabels")),
                None => (node.pos, at),
            };
            let message = format!("the pod template has no label {key}: {value} (template.metadata.labels)");
            report.error(pos, map.key(&key), message);
        }
    }
    selector.list("matchExpressions", report, |node, at, report| {
        let expression = fields(node, at, EXPRESSION, report)?;
        let key = expression.text("key", report)?;
        let values = expression.texts("values", report);
        let label = labels.get(&key);
        let is_in = label.is_some_and(|l| values.contains(l));
        let words = [("In", is_in), ("NotIn", !is_in), ("Exists", label.is_some()), ("DoesNotExist", label.is_none())];
        if !expression.word("operator", &words, report)? {
            report.error(node.pos, at, "is not true of the pod template's labels");
        }
        Some(())
    });
}

fn place_of(map: &Node, key: &str) -> Pos {
    match &map.value {
        Value::Map(entries) => entries.iter().find(|e| e.key == key).map_or(map.pos, |e| e.pos),
        _ => map.pos,
    }
}
