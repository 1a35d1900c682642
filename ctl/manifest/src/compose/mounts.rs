//! `volumes`, `tmpfs`, `configs` and `secrets` of a service.

use std::collections::HashMap;

use strata_proto::types::{
    FileItem, Files, HostPath, Scratch, VolumeMount, VolumeSource, host_path::Type, volume_source::Source,
};

use super::{loose, project::Project, stored::Stored, words};
use crate::{
    at::At,
    read::{EXTENSION, Fields, fields, mode},
    report::Report,
    scalar::cut,
    suggest::did_you_mean,
    table::{
        Class::{NoEffect, NotYet, Read},
        Table,
    },
    tree::{Node, Pos, Value},
};

const LONG: Table = &[
    ("type", Read),
    ("source", Read),
    ("target", Read),
    ("read_only", Read),
    ("bind", Read),
    ("volume", Read),
    ("tmpfs", Read),
    ("consistency", NoEffect("all writes are seen at once")),
    ("image", NotYet),
    (EXTENSION, Read),
];
const BIND: Table = &[
    ("create_host_path", Read),
    ("propagation", NotYet),
    ("selinux", NoEffect("containers have no SELinux labels")),
    ("recursive", NotYet),
];
const VOLUME: Table = &[("nocopy", Read), ("subpath", Read), ("labels", NoEffect("the volume itself has labels"))];
const TMPFS: Table = &[("size", Read), ("mode", NoEffect("anyone in the pod may write there"))];
const FILE: Table =
    &[("source", Read), ("target", Read), ("uid", Read), ("gid", Read), ("mode", Read), (EXTENSION, Read)];

/// Permissions of configs and secrets, as Docker's.
const FILE_MODE: u32 = 0o444;

/// What a service mounts.
#[derive(Default)]
pub(crate) struct Mounts {
    pub(crate) sources: Vec<VolumeSource>,
    pub(crate) mounts: Vec<VolumeMount>,
    /// Whether something is written to that outlives the pod.
    pub(crate) lasting: bool,
}

impl Mounts {
    /// Mounts a source; the same source again is not listed again.
    fn add(&mut self, source: Source, path: String, sub_path: String, read_only: bool) {
        let known = self.sources.iter().find(|s| s.source.as_ref() == Some(&source));
        let volume = match known {
            Some(known) => known.name.clone(),
            None => {
                let name = format!("v{}", self.sources.len());
                self.sources.push(VolumeSource { name: name.clone(), source: Some(source) });
                name
            }
        };
        self.mounts.push(VolumeMount { volume, path, sub_path, read_only });
    }

    /// A scratch area is never shared.
    fn add_scratch(&mut self, scratch: Scratch, path: String, read_only: bool) {
        let name = format!("v{}", self.sources.len());
        self.sources.push(VolumeSource { name: name.clone(), source: Some(Source::Scratch(scratch)) });
        self.mounts.push(VolumeMount { volume: name, path, sub_path: String::new(), read_only });
    }
}

/// Reads all that a service mounts.
pub(crate) fn read(of: &Fields<'_, '_>, project: &Project<'_, '_>, report: &mut Report) -> Mounts {
    let mut mounts = Mounts::default();
    if let Some(node) = of.get("volumes") {
        let here = of.at().field("volumes");
        if let Value::List(items) = &node.value {
            for (i, item) in items.iter().enumerate() {
                let here = here.item(i);
                if matches!(item.value, Value::Map(_)) {
                    long(item, here, project, &mut mounts, report);
                } else if let Some(text) = loose::text(item, here, report) {
                    short(&text, item.pos, here, project, &mut mounts, report);
                }
            }
        } else {
            report.error(node.pos, here, format!("a list is expected, this is {}", node.what()));
        }
    }
    for (text, pos) in loose::texts(of, "tmpfs", report) {
        tmpfs(&text, pos, of.at().field("tmpfs"), &mut mounts, report);
    }
    files(of, "configs", &project.configs, &mut mounts, report);
    files(of, "secrets", &project.secrets, &mut mounts, report);
    mounts
}

/// `TARGET` or `SOURCE:TARGET[:OPTIONS]`.
fn short(text: &str, pos: Pos, at: At<'_>, project: &Project<'_, '_>, mounts: &mut Mounts, report: &mut Report) {
    let mut parts = text.splitn(3, ':');
    let (first, second, options) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let mut read_only = false;
    for option in options.unwrap_or_default().split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "nocopy" | "volume-nocopy" => {}
            _ => {
                let message = format!("the option {:?} is not supported: ro or rw is", cut(option));
                report.error(pos, at, message);
                return;
            }
        }
    }
    match second {
        None => anonymous(first, pos, at, mounts, report),
        Some(target) if first.starts_with(['.', '/', '~']) => {
            let Some(path) = host_path(first, pos, at, project, report) else { return };
            bind(path, Type::Any, target, read_only, pos, at, mounts, report);
        }
        Some(target) => named(first, target, "", read_only, pos, at, project, mounts, report),
    }
}

fn long(node: &Node, at: At<'_>, project: &Project<'_, '_>, mounts: &mut Mounts, report: &mut Report) -> Option<()> {
    let v = fields(node, at, LONG, report)?;
    v.require("type", report)?;
    v.require("target", report)?;
    let (kind, target) = (loose::field(&v, "type", report)?, loose::field(&v, "target", report)?);
    let source = loose::field(&v, "source", report).unwrap_or_default();
    let read_only = v.flag("read_only", report).unwrap_or_default();
    let inner = |name: &'static str, table, report: &mut Report| {
        v.get(name).map(|node| fields(node, at.field(name), table, report))
    };
    match kind.as_str() {
        "volume" => {
            let options = inner("volume", VOLUME, report).flatten();
            let sub_path = options.and_then(|o| loose::field(&o, "subpath", report)).unwrap_or_default();
            if source.is_empty() {
                anonymous(&target, node.pos, at, mounts, report);
            } else {
                named(&source, &target, &sub_path, read_only, node.pos, at, project, mounts, report);
            }
        }
        "bind" => {
            let options = inner("bind", BIND, report).flatten();
            let create = options.and_then(|o| o.flag("create_host_path", report));
            let path = host_path(&source, node.pos, at.field("source"), project, report)?;
            let kind = if create == Some(true) { Type::DirectoryOrCreate } else { Type::Any };
            bind(path, kind, &target, read_only, node.pos, at, mounts, report);
        }
        "tmpfs" => {
            let options = inner("tmpfs", TMPFS, report).flatten();
            let size = options.and_then(|o| loose::size(&o, "size", report)).unwrap_or_default();
            let path = target_path(&target, node.pos, at.field("target"), report)?;
            mounts.add_scratch(Scratch { memory: true, size_bytes: size }, path, read_only);
        }
        "npipe" | "cluster" | "image" => {
            report.error(node.pos, at.field("type"), format!("{kind} is not supported: volume, bind and tmpfs are"));
        }
        other => {
            let hint = did_you_mean(other, ["volume", "bind", "tmpfs"]);
            report.error(
                node.pos,
                at.field("type"),
                format!("{:?} is not one of volume, bind, tmpfs{hint}", cut(other)),
            );
        }
    }
    Some(())
}

fn anonymous(target: &str, pos: Pos, at: At<'_>, mounts: &mut Mounts, report: &mut Report) {
    let Some(path) = target_path(target, pos, at, report) else { return };
    report.warn(
        pos,
        at,
        "a volume without a name is empty at first and goes with the pod: what the image has there is hidden",
    );
    mounts.add_scratch(Scratch::default(), path, false);
}

#[allow(clippy::too_many_arguments)] // What a mount is, and where it stands.
fn bind(
    path: String,
    kind: Type,
    target: &str,
    read_only: bool,
    pos: Pos,
    at: At<'_>,
    mounts: &mut Mounts,
    report: &mut Report,
) {
    let Some(target) = target_path(target, pos, at, report) else { return };
    let message = format!(
        "{} is taken from whichever node the pod is placed on, and only if the namespace's policy is Privileged",
        cut(&path)
    );
    report.warn(pos, at, message);
    mounts.lasting |= !read_only;
    mounts.add(Source::HostPath(HostPath { path, r#type: kind.into() }), target, String::new(), read_only);
}

#[allow(clippy::too_many_arguments)] // What a mount is, and where it stands.
fn named(
    name: &str,
    target: &str,
    sub_path: &str,
    read_only: bool,
    pos: Pos,
    at: At<'_>,
    project: &Project<'_, '_>,
    mounts: &mut Mounts,
    report: &mut Report,
) {
    let Some(volume) = project.volumes.get(name) else {
        let hint = did_you_mean(name, project.volumes.keys().copied());
        report.error(pos, at, format!("the file has no volume {:?} (`volumes` at its top){hint}", cut(name)));
        return;
    };
    let Some(target) = target_path(target, pos, at, report) else { return };
    mounts.lasting |= !read_only;
    mounts.add(Source::Volume(volume.object.clone()), target, sub_path.to_owned(), read_only);
}

/// An absolute path in the container, without a `/` at its end.
fn target_path(path: &str, pos: Pos, at: At<'_>, report: &mut Report) -> Option<String> {
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        report.error(pos, at, format!("{:?} is not an absolute path in the container", cut(path)));
        return None;
    }
    let trimmed = path.trim_end_matches('/');
    Some(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// The absolute path of a bind mount's source, made from the file's directory.
fn host_path(source: &str, pos: Pos, at: At<'_>, project: &Project<'_, '_>, report: &mut Report) -> Option<String> {
    let joined = if source.starts_with('/') {
        source.to_owned()
    } else if let Some(rest) = source.strip_prefix('~') {
        let Some(home) = project.variables.get("HOME").filter(|_| rest.is_empty() || rest.starts_with('/')) else {
            report.error(
                pos,
                at,
                format!("{:?}: the variable HOME is not set, or this is another's home", cut(source)),
            );
            return None;
        };
        format!("{home}{rest}")
    } else {
        let Some(directory) = project.around.directory() else {
            let message =
                format!("{:?} is relative, but the text comes from no file: write an absolute path", cut(source));
            report.error(pos, at, message);
            return None;
        };
        format!("{directory}/{source}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// `PATH[:OPTIONS]`.
fn tmpfs(text: &str, pos: Pos, at: At<'_>, mounts: &mut Mounts, report: &mut Report) {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut scratch = Scratch { memory: true, size_bytes: 0 };
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "size" => match words::size(value) {
                Some(size) => scratch.size_bytes = size,
                None => report.error(pos, at, format!("{:?} is no size such as 64m", cut(value))),
            },
            "rw" | "nosuid" | "nodev" => {}
            "mode" | "uid" | "gid" | "noexec" | "exec" => {
                report.warn(
                    pos,
                    at,
                    format!("the option {name} has no effect here: anyone in the pod may write there"),
                );
            }
            _ => report.error(pos, at, format!("the option {:?} is not supported: size is", cut(name))),
        }
    }
    if let Some(path) = target_path(path, pos, at, report) {
        mounts.add_scratch(scratch, path, false);
    }
}

/// `configs` or `secrets`: each a file of its own.
fn files(
    of: &Fields<'_, '_>,
    name: &'static str,
    known: &HashMap<&str, Stored>,
    mounts: &mut Mounts,
    report: &mut Report,
) {
    let is_secret = name == "secrets";
    of.list(name, report, |node, at, report| {
        let long = match &node.value {
            Value::Map(_) => Some(fields(node, at, FILE, report)?),
            _ => None,
        };
        let source = match &long {
            Some(f) => {
                f.require("source", report)?;
                loose::field(f, "source", report)?
            }
            None => loose::text(node, at, report)?,
        };
        let Some(stored) = known.get(source.as_str()) else {
            let hint = did_you_mean(&source, known.keys().copied());
            report.error(
                node.pos,
                at,
                format!("the file has no {} {:?} (`{name}` at its top){hint}", &name[..name.len() - 1], cut(&source)),
            );
            return None;
        };
        let target = long.and_then(|f| loose::field(&f, "target", report)).filter(|t| !t.is_empty());
        let path = match target {
            Some(target) if target.starts_with('/') => target,
            Some(target) if is_secret => format!("/run/secrets/{target}"),
            Some(target) => format!("/{target}"),
            None if is_secret => format!("/run/secrets/{source}"),
            None => format!("/{source}"),
        };
        let path = target_path(&path, node.pos, at, report)?;
        for field in ["uid", "gid"] {
            if let Some(pos) = long.and_then(|f| f.get(field)).filter(|n| n.scalar() != Some("0")).map(|n| n.pos) {
                report.error(
                    pos,
                    at.field(field),
                    "only 0 is supported yet: the file belongs to root and all may read it",
                );
            }
        }
        let mode = long.and_then(|f| f.get("mode")).and_then(|node| file_mode(node, at.field("mode"), report));
        let item = FileItem { key: stored.key.clone(), path: stored.key.clone(), mode: 0 };
        let files =
            Files { name: stored.object.clone(), items: vec![item], mode: mode.unwrap_or(FILE_MODE), optional: false };
        let source = if is_secret { Source::Secret(files) } else { Source::Config(files) };
        mounts.add(source, path, stored.key.clone(), true);
        Some(())
    });
}

/// Also in quotes, as the specification's own examples have it.
fn file_mode(node: &Node, at: At<'_>, report: &mut Report) -> Option<u32> {
    match node.scalar() {
        Some(text) => {
            let value = Value::Scalar { text: text.to_owned(), plain: true };
            mode(&Node { value, ..node.clone() }, at, report)
        }
        None => mode(node, at, report),
    }
}
