//! Compose files: services, volumes, configs and secrets of one project.
//! Source: the Compose specification (compose-spec/spec.md). The tables name every field it has, so that "unknown" means misspelt.
//!
//! Each service becomes a workload of its name and a service object of its name, so that the others find it; it has a virtual address if its
//! ports are known, else its name leads to the pods' own addresses. Volumes, configs and secrets are named `<project>-<name>`. Everything has
//! the label `com.docker.compose.project`.

mod build;
mod deploy;
mod dotenv;
mod environment;
mod health;
mod loose;
mod mounts;
mod names;
mod network;
mod ports;
mod project;
mod service;
mod stored;
mod variables;
mod words;

pub use build::Build;

use crate::{
    Document,
    around::Surroundings,
    at::At,
    read::{EXTENSION, fields},
    report::Report,
    table::{
        Class::{NoEffect, NotYet, Read},
        Table,
    },
    tree::{Node, Value},
};
use project::Project;

const TOP: Table = &[
    ("version", NoEffect("the Compose specification has one version")),
    ("name", Read),
    ("services", Read),
    ("volumes", Read),
    ("networks", Read),
    ("configs", Read),
    ("secrets", Read),
    ("include", NotYet),
    ("models", NotYet),
    (EXTENSION, Read),
];

/// Services of one file; with their aliases they make about twice as many objects.
const SERVICES_MAX: usize = 1_000;

/// Whether a document is a Compose file.
pub(crate) fn is_compose(root: &Node) -> bool {
    root.get("services").is_some() && ["kind", "apiVersion"].iter().all(|name| root.get(name).is_none())
}

/// Reads the file.
pub(crate) fn read(root: Node, around: &dyn Surroundings, report: &mut Report, documents: &mut Vec<Document>) {
    let errors_before = report.errors_seen();
    let Some(variables) = project::variables(&root, around, report) else { return };
    let root = variables.tree(without_extensions(root), At::ROOT, report);
    if report.errors_seen() > errors_before {
        return;
    }
    let Some(top) = fields(&root, At::ROOT, TOP, report) else { return };
    let Some(project) = Project::read(&top, around, variables, report) else { return };
    let mut found = Vec::new();
    project.stored(report, &mut found);
    let at = At::ROOT.field("services");
    let Some(Value::Map(services)) = top.get("services").map(|n| &n.value) else {
        report.error(root.pos, at, "`services` is a map of services");
        return;
    };
    if services.len() > SERVICES_MAX {
        report.error(root.pos, at, format!("there are {} services, at most {SERVICES_MAX} are read", services.len()));
        return;
    }
    let mut names = service::Taken::new();
    for entry in services {
        service::read(entry, at, &project, &mut names, report, &mut found);
    }
    if report.errors_seen() == errors_before {
        documents.extend(found);
    }
}

/// The file without its `x-` fields: nothing in them is replaced or read, but for what others took over by anchors.
fn without_extensions(mut root: Node) -> Node {
    if let Value::Map(entries) = &mut root.value {
        entries.retain(|e| !e.key.starts_with("x-"));
    }
    root
}
