pub mod pod;

use super::apply;
use crate::{
    diff::unified,
    exit::{Exit, Failure},
    kind::namespace_for,
    manifests,
    output::{self, name_line},
    session::{Global, Session},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, path::PathBuf};
use strata_client::{ApplyMode, ErrorKind};
use strata_proto::types::{Kind, Object};

/// Show what an apply would change, or what a container has changed of its image.
///
/// With a POD the files are listed that its container Added (A), Changed (C) or Deleted (D).
///
/// With -f, of each object in the files the document that is there and the one that would be there are compared, with the server's defaults; the
/// difference is in unified form. Values of secrets are never shown, only that their content differs.
///
/// Exit codes: 0 nothing would change, 1 something would; a failure has the usual codes, and 2 where that would be 1.
///
/// Examples:
///   ctl diff -f hello.yaml
///   ctl diff -f compose.yaml --profile debug
///   ctl diff web-3
///   ctl diff workload/web -c main -o json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A file, a directory (every *.yaml, *.yml and *.json in it, by name) or - for stdin; may be repeated
    #[arg(
        short,
        long = "filename",
        required_unless_present = "pod",
        conflicts_with = "pod",
        value_name = "FILE|DIR|-"
    )]
    pub filename: Vec<PathBuf>,
    /// A pod, or workload/NAME for any running one of its pods
    #[arg(value_name = "POD")]
    pub pod: Option<String>,
    /// The container, if the pod has several
    #[arg(short, long, default_value = "", hide_default_value = true, requires = "pod", value_name = "NAME")]
    pub container: String,
    /// How to show the files of a pod
    #[arg(short, long, value_enum, default_value_t, requires = "pod", value_name = "FORMAT")]
    pub output: pod::Format,
    /// The set that the objects belong to
    #[arg(long, value_name = "NAME")]
    pub set: Option<String>,
    /// Compose files: also the services of this profile (* for all); may be repeated
    #[arg(long, value_name = "NAME")]
    pub profile: Vec<String>,
}

/// What the controller writes into `meta`: no part of what people want.
const CONTROLLERS: [&str; 7] = ["uid", "generation", "revision", "created", "deleted", "owner", "traceParent"];
/// The controller's note of what was applied.
const APPLIED: &str = "strata.dev/applied";

pub async fn perform(args: &Args, global: &Global) -> Result<u8, Failure> {
    if let Some(name) = &args.pod {
        let session = Session::open(global).await?;
        return pod::perform(name, &args.container, args.output, &session).await.map(|()| 0);
    }
    match compare(args, global).await {
        // Here 1 means that something differs.
        Err(Failure { exit: Exit::Failed, message }) => Err(Failure { exit: Exit::Usage, message }),
        other => other,
    }
}

async fn compare(args: &Args, global: &Global) -> Result<u8, Failure> {
    let set = args.set.as_deref().map(manifests::parse_name).transpose()?;
    let namespace = global.namespace.as_deref().unwrap_or_default();
    let mut all = apply::read(&args.filename, &args.profile, set.as_deref(), namespace, global)?;
    let session = Session::open(global).await?;
    apply::fill_namespaces(&mut all, &session.namespace);
    // Namespaces that the files make: what is in them cannot be there yet.
    let mut made: BTreeSet<String> = BTreeSet::new();
    let mut differs = false;
    for manifest in all {
        let wanted = manifest.object;
        let meta = wanted.meta.clone().unwrap_or_default();
        let kind = wanted.kind_of();
        let present = match session.client.get(kind, namespace_for(kind, &meta.namespace), &meta.name).await {
            Ok(object) => Some(object),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if kind == Kind::Namespace && present.is_none() {
            made.insert(meta.name.clone());
        }
        let name = name_line(&wanted);
        let becomes = if made.contains(&meta.namespace) {
            wanted
        } else {
            let answer = session.client.apply(wanted, ApplyMode::DryRun).await?;
            answer.warnings.iter().for_each(|warning| output::talk(&format!("warning: {name}: {warning}")));
            answer.object
        };
        let old = present.as_ref().map(text).transpose()?.unwrap_or_default();
        let (old_name, new_name) = (format!("{name} (present)"), format!("{name} (after apply)"));
        let shown = unified(&old_name, &new_name, &old, &text(&becomes)?);
        differs |= !shown.is_empty();
        output::print(&shown)?;
    }
    Ok(u8::from(differs))
}

/// The part of an object's document that people write, as YAML.
fn text(object: &Object) -> Result<String, Failure> {
    let mut document = output::document(object)?;
    let status = document.as_object_mut().and_then(|d| d.remove("status")).unwrap_or_default();
    if let Some(meta) = document.get_mut("meta").and_then(Value::as_object_mut) {
        CONTROLLERS.iter().for_each(|name| drop(meta.remove(*name)));
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(APPLIED);
        }
    }
    if let (Kind::Secret, Some(spec)) = (object.kind_of(), document.get_mut("spec").and_then(Value::as_object_mut)) {
        hide(spec, &status);
    }
    output::yaml(&document)
}

/// Of a secret's content: its keys, and a word that differs when the content does.
fn hide(spec: &mut Map<String, Value>, status: &Value) {
    spec.remove("sealed");
    let given = spec.remove("data").and_then(|data| data.as_object().map(|d| d.keys().cloned().collect::<Vec<_>>()));
    let keys = status.get("keys").and_then(Value::as_array).filter(|keys| !keys.is_empty()).cloned();
    let keys = keys.unwrap_or_else(|| given.unwrap_or_default().into_iter().map(Value::String).collect());
    let data: Map<String, Value> =
        keys.iter().filter_map(Value::as_str).map(|key| (key.to_owned(), json!("(not shown)"))).collect();
    spec.insert("data".to_owned(), Value::Object(data));
    let hash = status.get("sha256").and_then(Value::as_str).unwrap_or_default();
    spec.insert("contentHash".to_owned(), json!(hash));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_proto::types::{Meta, Secret, SecretSpec, SecretStatus, object};

    #[test]
    fn a_secret_shows_its_keys_and_never_a_value() {
        let spec = SecretSpec {
            data: [("password".to_owned(), b"hunter2".to_vec())].into(),
            sealed: b"hunter2".to_vec(),
            ..Default::default()
        };
        let mut secret = Secret { spec: Some(spec), status: None };
        let object = |secret: &Secret| Object {
            meta: Some(Meta { name: "s".into(), uid: "u".into(), revision: 7, ..Default::default() }),
            kind: Some(object::Kind::Secret(secret.clone())),
        };
        let local = text(&object(&secret)).unwrap();
        assert!(local.contains("password: (not shown)") && !local.contains("uid"), "{local}");
        secret.status = Some(SecretStatus { keys: vec!["a".into(), "b".into()], sha256: "abc".into() });
        secret.spec.as_mut().unwrap().data.clear();
        let stored = text(&object(&secret)).unwrap();
        assert!(stored.contains("b: (not shown)") && stored.contains("contentHash: abc"), "{stored}");
        for shown in [local, stored] {
            assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
        }
    }
}
