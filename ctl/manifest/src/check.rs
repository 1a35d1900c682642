//! What the model demands of an object, told at the place in the text where it comes from.

use std::collections::HashMap;

use strata_model::{PodTemplate, ServiceView, Workload};
use strata_proto::{
    BadObject,
    document::{is_namespaced, kind_word},
    types::{self, object::Kind, workload_spec::Mode},
};

use crate::{
    Document,
    at::At,
    report::Report,
    tree::{Node, Pos, Value},
};

/// Checks an object as the controller will, with "default" for a namespace that is still open. `path_of` turns a path of the object into one of
/// the text.
pub(crate) fn object(
    object: &types::Object,
    root: &Node,
    at: At<'_>,
    path_of: fn(&types::Object, &str) -> String,
    report: &mut Report,
) {
    if let Err(BadObject { path, why }) = verdict(object) {
        let path = path_of(object, &path);
        let parent = at.to_string();
        let full = if parent.is_empty() { path.clone() } else { format!("{parent}.{path}") };
        report.error_at_path(place_of(root, &path), full, why);
    }
}

/// Whether the model takes an object, with "default" for a namespace that is still open.
pub(crate) fn verdict(object: &types::Object) -> Result<(), BadObject> {
    let mut object = object.clone();
    let namespaced = is_namespaced(object.kind_of());
    let meta = object.meta.get_or_insert_default();
    if namespaced && meta.namespace.is_empty() {
        meta.namespace = "default".to_owned();
    }
    match &object.kind {
        Some(Kind::Workload(_)) => Workload::try_from(&object).map(|_| ()),
        Some(Kind::Service(_)) => ServiceView::try_from(&object).map(|_| ()),
        Some(Kind::Pod(pod)) => {
            object.meta.clone().unwrap_or_default().check(true)?;
            let template = pod.spec.as_ref().and_then(|s| s.template.as_ref());
            let template = template.ok_or_else(|| BadObject::new("spec.template", "is missing"))?;
            PodTemplate::try_from(template).map(|_| ()).map_err(|e| e.below("spec.template"))
        }
        kind => {
            object.meta.clone().unwrap_or_default().check(namespaced)?;
            match kind {
                Some(Kind::Config(types::Config { spec: Some(spec) })) => spec.check(),
                Some(Kind::Secret(types::Secret { spec: Some(spec), .. })) => spec.check(),
                _ => Ok(()),
            }
        }
    }
}

/// Paths of the object are those of the text.
pub(crate) fn same_path(_: &types::Object, path: &str) -> String {
    path.to_owned()
}

/// Names of fields that differ from the model's.
const RENAMED: [(&str, &str); 7] = [
    ("terminationGraceS", "terminationGracePeriodSeconds"),
    ("limits.memoryBytes", "resources.limits.memory"),
    (".mounts[", ".volumeMounts["),
    (".readiness", ".readinessProbe"),
    (".liveness", ".livenessProbe"),
    (".startup", ".startupProbe"),
    ("].scratch", "].emptyDir"),
];

/// Where a Kubernetes document has what an object has at `path`.
pub(crate) fn kubernetes_path(object: &types::Object, path: &str) -> String {
    if let Some(rest) = path.strip_prefix("meta.") {
        return format!("metadata.{rest}");
    }
    if matches!(object.kind, Some(Kind::Config(_) | Kind::Secret(_))) {
        return path.strip_prefix("spec.").unwrap_or(path).replace("binary[", "binaryData[");
    }
    let is_cron =
        matches!(&object.kind, Some(Kind::Workload(w)) if w.spec.as_ref().is_some_and(|s| s.mode() == Mode::Cron));
    if let Some(rest) = path.strip_prefix("spec.cron.") {
        return format!("spec.{rest}");
    }
    if let Some(rest) = path.strip_prefix("spec.job.") {
        return format!("{}.{rest}", if is_cron { "spec.jobTemplate.spec" } else { "spec" });
    }
    let Some(rest) = path.strip_prefix("spec.template.") else { return path.to_owned() };
    let is_pod = matches!(object.kind, Some(Kind::Pod(_)));
    let (meta, spec) = match (is_pod, is_cron) {
        (true, _) => ("metadata", "spec"),
        (_, true) => ("spec.jobTemplate.spec.template.metadata", "spec.jobTemplate.spec.template.spec"),
        _ => ("spec.template.metadata", "spec.template.spec"),
    };
    if rest.starts_with("labels") || rest.starts_with("annotations") {
        return format!("{meta}.{rest}");
    }
    let rest = RENAMED.iter().fold(rest.to_owned(), |path, (ours, theirs)| path.replace(ours, theirs));
    let rest = match rest.strip_suffix(".requests") {
        Some(container) => format!("{container}.resources.requests"),
        None => rest,
    };
    format!("{spec}.{rest}")
}

/// The place of the value at a path, or of what is there of the way to it.
fn place_of(root: &Node, path: &str) -> Pos {
    let mut node = root;
    let mut rest = path;
    while !rest.is_empty() {
        let (step, more) = if let Some(inner) = rest.strip_prefix('[') {
            let Some((inside, more)) = inner.split_once(']') else { break };
            (inside, more)
        } else {
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()))
        };
        let next = match &node.value {
            Value::List(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)),
            _ => node.get(step),
        };
        let Some(next) = next else { break };
        (node, rest) = (next, more);
    }
    node.pos
}

/// Applying both would leave only the later one.
pub(crate) fn same_object_twice(documents: &[Document], report: &mut Report) {
    let mut seen: HashMap<(&str, &str, &str), Pos> = HashMap::new();
    for Document { object, pos, .. } in documents {
        let Some(meta) = &object.meta else { continue };
        let kind = kind_word(object.kind_of());
        if let Some(first) = seen.insert((kind, &meta.namespace, &meta.name), *pos) {
            let message = format!(
                "{kind} {:?} is in this text twice (first in line {}): the later one wins",
                meta.name, first.line
            );
            report.warn(*pos, At::ROOT, message);
        }
    }
}
