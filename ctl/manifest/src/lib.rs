//! Manifests to objects: text (YAML of one or more documents, or JSON) in, wire objects with their places in the text out.
//!
//! Three dialects: Strata's own documents (`{kind, meta, spec}`, field names as `ctl get -o yaml` prints them), Kubernetes
//! documents (those with an `apiVersion`) and Compose files (those with `services` and no `kind`).
//!
//! The rule for fields: a misspelt or unknown one is an error; a known Kubernetes or Compose field that means nothing here is named in a
//! warning; a known one whose effect is not built yet is an error that says so. Nothing is dropped in silence. Each error and warning has
//! file, line, column and the path of the field.
//!
//! Invariants: no input panics, and what an input can cost is bounded: bytes, depth of nesting, nodes after aliases are
//! followed, reported errors.
//!
//! Not here: reading files and variables (callers lend them as [`Surroundings`]), the network, the namespace that `-n` names (a document
//! without one has "" in its object), builds (a document says which image its service wants built).

mod around;
mod at;
mod check;
mod compose;
mod kubernetes;
mod load;
mod read;
mod report;
mod scalar;
mod strata;
mod suggest;
mod table;
mod tree;

use strata_proto::types;

pub use around::{Nowhere, Surroundings};
pub use compose::Build;
pub use report::{ManifestError, Warning};
pub use tree::Pos;

use at::At;
use report::Report;
use tree::{Node, Value};

/// What a manifest holds.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The objects, in the order of the text.
    pub documents: Vec<Document>,
    /// What was accepted and has no effect, or not the one it seems to have.
    pub warnings: Vec<Warning>,
}

/// One object of a manifest.
#[derive(Debug, Clone)]
pub struct Document {
    /// The object. Its namespace is "" when the text names none.
    pub object: types::Object,
    /// Where its text begins.
    pub pos: Pos,
    /// The image that has to be built for it, of a service in a Compose file.
    pub build: Option<Build>,
}

impl Document {
    pub(crate) fn new(object: types::Object, pos: Pos) -> Self {
        Self { object, pos, build: None }
    }
}

/// Parses a manifest. `source_name` is what errors call it, such as the file's name.
///
/// # Errors
/// All that is wrong with it, up to a bound, in the order of the text. A text without any document is no error.
pub fn parse(source_name: &str, text: &str) -> Result<Parsed, Vec<ManifestError>> {
    parse_bytes(source_name, text.as_bytes())
}

/// As [`parse`], for bytes that need not be UTF-8.
///
/// # Errors
/// As [`parse`].
pub fn parse_bytes(source_name: &str, bytes: &[u8]) -> Result<Parsed, Vec<ManifestError>> {
    parse_in(source_name, bytes, &Nowhere)
}

/// As [`parse_bytes`], with the variables and files that a Compose file refers to.
///
/// # Errors
/// As [`parse`].
pub fn parse_in(source_name: &str, bytes: &[u8], around: &dyn Surroundings) -> Result<Parsed, Vec<ManifestError>> {
    let mut report = Report::new(source_name);
    let mut documents = Vec::new();
    for root in load::load(bytes, &mut report) {
        if compose::is_compose(&root) {
            compose::read(root, around, &mut report, &mut documents);
        } else {
            read_document(&root, At::ROOT, &mut report, &mut documents);
        }
    }
    check::same_object_twice(&documents, &mut report);
    report.finish().map(|warnings| Parsed { documents, warnings })
}

/// Reads one document with a kind.
fn read_document(root: &Node, at: At<'_>, report: &mut Report, documents: &mut Vec<Document>) {
    let Value::Map(entries) = &root.value else {
        report.error(root.pos, at, "a document is a map with `kind`, but this is not a map");
        return;
    };
    let has = |name: &str| entries.iter().any(|e| e.key == name);
    if has("apiVersion") {
        kubernetes::read(root, at, report, documents);
    } else if has("services") && !has("kind") {
        report.error(root.pos, at, "this looks like a Compose file, which is a document of its own");
    } else if has("metadata") && !has("meta") {
        report.error(
            root.pos,
            at,
            "`apiVersion` is missing: Kubernetes documents need it (`v1` for a Pod, `apps/v1` for a Deployment); Strata's own have `meta`, not `metadata`",
        );
    } else {
        strata::read(root, at, report, documents);
    }
}
