//! `resources` of a container.

use strata_proto::types::{Container, Resources};

use crate::{
    at::At,
    read::{fields, quantity},
    report::Report,
    suggest::did_you_mean,
    table::{
        Class::{NotYet, Read},
        Table,
    },
    tree::{Node, Value},
};

const RESOURCES: Table = &[("requests", Read), ("limits", Read), ("claims", NotYet)];

/// Reads requests and limits into the container.
pub(crate) fn read(node: &Node, at: At<'_>, container: &mut Container, report: &mut Report) {
    let Some(resources) = fields(node, at, RESOURCES, report) else { return };
    if let Some(node) = resources.get("requests") {
        container.requests = amounts(node, at.field("requests"), report);
    }
    if let Some(node) = resources.get("limits") {
        container.limits = amounts(node, at.field("limits"), report);
    }
}

fn amounts(node: &Node, at: At<'_>, report: &mut Report) -> Option<Resources> {
    let Value::Map(entries) = &node.value else {
        report.error(node.pos, at, format!("a map is expected, this is {}", node.what()));
        return None;
    };
    let mut amounts = Resources::default();
    for entry in entries {
        let here = at.field(&entry.key);
        match entry.key.as_str() {
            "cpu" => amounts.cpu_millis = quantity(&entry.node, here, report).map_or(0, |q| q.thousandths),
            "memory" => {
                amounts.memory_bytes = quantity(&entry.node, here, report).map_or(0, strata_model::Quantity::units)
            }
            known if known == "ephemeral-storage" || known.starts_with("hugepages-") || known.contains('/') => {
                report.error(entry.pos, here, "not supported yet: it is refused rather than ignored");
            }
            unknown => {
                let hint = did_you_mean(unknown, ["cpu", "memory", "ephemeral-storage"]);
                report.error(entry.pos, here, format!("unknown resource{hint}"));
            }
        }
    }
    Some(amounts)
}
