//! `volumes`, `configs` and `secrets` at the top of a file.

use std::collections::HashMap;

use strata_proto::types::{self, ConfigSpec, SecretSpec, VolumeSpec, object::Kind};

use super::{loose, names, project::Project};
use crate::{
    Document,
    at::At,
    kubernetes::data::is_key,
    read::{EXTENSION, Fields, fields},
    report::Report,
    scalar::cut,
    table::{
        Class::{NotYet, Only, Read},
        Table,
    },
    tree::{Entry, Node, Pos, Value},
};

const VOLUME: Table = &[
    ("name", Read),
    ("external", Read),
    ("labels", Read),
    ("driver", Only(&["local"])),
    ("driver_opts", NotYet),
    (EXTENSION, Read),
];

const CONFIG: Table = &[
    ("name", Read),
    ("external", Read),
    ("file", Read),
    ("environment", Read),
    ("content", Read),
    ("labels", Read),
    ("driver", NotYet),
    ("driver_opts", NotYet),
    ("template_driver", NotYet),
    (EXTENSION, Read),
];

/// Bytes of one config or secret; an object has at most 1 MiB in all.
const CONTENT_MAX: usize = 900 << 10;

/// An object that services refer to.
pub(crate) struct Stored {
    /// Its name in the cluster.
    pub(crate) object: String,
    /// Of a config or secret: the key that holds its content.
    pub(crate) key: String,
    /// What has to be applied; `None` for an external one.
    pub(crate) document: Option<Document>,
}

/// The top-level map of this name, item by item.
fn items<'n>(
    top: &Fields<'n, '_>,
    name: &'static str,
    report: &mut Report,
    mut read: impl FnMut(&'n Entry, At<'_>, &mut Report) -> Option<Stored>,
) -> HashMap<&'n str, Stored> {
    let Some(node) = top.get(name) else { return HashMap::new() };
    let at = top.at().field(name);
    let Value::Map(entries) = &node.value else {
        report.error(node.pos, at, format!("a map is expected, this is {}", node.what()));
        return HashMap::new();
    };
    let mut found = HashMap::new();
    for entry in entries.iter().filter(|e| !e.key.starts_with("x-")) {
        let here = at.field(&entry.key);
        if !names::is_name(&entry.key) {
            report.error(entry.pos, here, "a name has at most 63 letters, digits, '-', '_' and '.'");
        } else if let Some(stored) = read(entry, here, report) {
            found.insert(entry.key.as_str(), stored);
        }
    }
    found
}

/// What all three have: the name in the cluster, and whether the object is somebody else's.
fn identity(
    entry: &Entry,
    f: Option<&Fields<'_, '_>>,
    project: &Project<'_, '_>,
    report: &mut Report,
) -> (String, bool) {
    let external = f.is_some_and(|f| match f.get("external").map(|n| (&n.value, n.get("name").is_some())) {
        // The old form `external: {name: x}`.
        Some((Value::Map(_), true)) => true,
        Some(_) => f.flag("external", report).unwrap_or_default(),
        None => false,
    });
    let old_name = f.and_then(|f| f.get("external")).and_then(|n| n.get("name")).and_then(Node::scalar);
    let name = f.and_then(|f| loose::field(f, "name", report)).or_else(|| old_name.map(str::to_owned));
    let object = match name {
        Some(name) => names::dns(&name),
        None if external => names::dns(&entry.key),
        None => project.object_name(&entry.key),
    };
    (object, external)
}

fn meta(object: &str, f: Option<&Fields<'_, '_>>, project: &Project<'_, '_>, report: &mut Report) -> types::Meta {
    let annotations = f.map(|f| loose::pairs(f, "labels", report)).unwrap_or_default();
    types::Meta {
        name: object.to_owned(),
        labels: project.labels(),
        annotations: annotations.into_iter().map(|(k, v, _)| (k, v.unwrap_or_default())).collect(),
        ..Default::default()
    }
}

/// The volumes of the file.
pub(crate) fn volumes<'n>(
    top: &Fields<'n, '_>,
    project: &Project<'_, '_>,
    report: &mut Report,
) -> HashMap<&'n str, Stored> {
    items(top, "volumes", report, |entry, at, report| {
        let f = match entry.node.is_null() {
            true => None,
            false => Some(fields(&entry.node, at, VOLUME, report)?),
        };
        let (object, external) = identity(entry, f.as_ref(), project, report);
        let kind = Kind::Volume(types::Volume { spec: Some(VolumeSpec::default()), status: None });
        let meta = meta(&object, f.as_ref(), project, report);
        let document = (!external).then(|| document(meta, kind, entry.pos));
        Some(Stored { object, key: String::new(), document })
    })
}

/// The configs of the file.
pub(crate) fn configs<'n>(
    top: &Fields<'n, '_>,
    project: &Project<'_, '_>,
    report: &mut Report,
) -> HashMap<&'n str, Stored> {
    items(top, "configs", report, |entry, at, report| {
        content(entry, at, project, report, |key, bytes| {
            let mut spec = ConfigSpec::default();
            match String::from_utf8(bytes) {
                Ok(text) => spec.data.insert(key, text).map(|_| ()),
                Err(error) => spec.binary.insert(key, error.into_bytes()).map(|_| ()),
            };
            Kind::Config(types::Config { spec: Some(spec) })
        })
    })
}

/// The secrets of the file.
pub(crate) fn secrets<'n>(
    top: &Fields<'n, '_>,
    project: &Project<'_, '_>,
    report: &mut Report,
) -> HashMap<&'n str, Stored> {
    items(top, "secrets", report, |entry, at, report| {
        content(entry, at, project, report, |key, bytes| {
            let spec = SecretSpec { data: [(key, bytes)].into(), ..Default::default() };
            Kind::Secret(types::Secret { spec: Some(spec), status: None })
        })
    })
}

fn content(
    entry: &Entry,
    at: At<'_>,
    project: &Project<'_, '_>,
    report: &mut Report,
    kind: impl FnOnce(String, Vec<u8>) -> Kind,
) -> Option<Stored> {
    let f = fields(&entry.node, at, CONFIG, report)?;
    let (object, external) = identity(entry, Some(&f), project, report);
    // An external one has its content under its own name; what the file makes, under the name in the file.
    let key = if external { object.clone() } else { entry.key.clone() };
    if !is_key(&key) {
        report.error(entry.pos, at, "is no name of a file: it must not begin with `..`");
        return None;
    }
    let sources: Vec<&str> =
        ["file", "environment", "content"].into_iter().filter(|name| f.get(name).is_some()).collect();
    if external {
        if !sources.is_empty() {
            report.error(entry.pos, at, format!("is external, so that {} has no meaning", sources.join(" and ")));
        }
        return Some(Stored { object, key, document: None });
    }
    let &[source] = sources.as_slice() else {
        report.error(entry.pos, at, "one of file, environment and content is expected, or `external: true`");
        return None;
    };
    let pos = f.get(source).map_or(entry.pos, |n| n.pos);
    let here = at.field(source);
    let value = loose::field(&f, source, report)?;
    let bytes = match source {
        "content" => value.into_bytes(),
        "environment" => match project.variables.get(&value) {
            Some(value) => value.into_bytes(),
            None => {
                report.error(pos, here, format!("the variable {} is not set", cut(&value)));
                return None;
            }
        },
        _ => match project.around.read(&value) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                report.error(pos, here, format!("there is no file {:?}", cut(&value)));
                return None;
            }
            Err(why) => {
                report.error(pos, here, format!("cannot read {:?}: {why}", cut(&value)));
                return None;
            }
        },
    };
    if bytes.len() > CONTENT_MAX {
        report.error(pos, here, format!("has {} bytes, at most {CONTENT_MAX} fit", bytes.len()));
        return None;
    }
    let meta = meta(&object, Some(&f), project, report);
    let document = document(meta, kind(key.clone(), bytes), entry.pos);
    Some(Stored { object, key, document: Some(document) })
}

fn document(meta: types::Meta, kind: Kind, pos: Pos) -> Document {
    Document::new(types::Object { meta: Some(meta), kind: Some(kind) }, pos)
}
