//! `volumes` of a pod and `volumeMounts` of its containers.

use strata_proto::types::{
    FileItem, Files, HostPath, Scratch, VolumeMount, VolumeSource, host_path::Type, volume_source::Source,
};

use crate::{
    at::At,
    read::{Fields, bytes, fields, mode},
    report::Report,
    scalar::cut,
    suggest::did_you_mean,
    table::{
        Class::{NoEffect, NotYet, Only, Read},
        Table,
    },
    tree::Node,
};

const VOLUME: Table = &[
    ("name", Read),
    ("configMap", Read),
    ("secret", Read),
    ("emptyDir", Read),
    ("hostPath", Read),
    ("persistentVolumeClaim", Read),
    ("projected", Read),
    ("awsElasticBlockStore", NotYet),
    ("azureDisk", NotYet),
    ("azureFile", NotYet),
    ("cephfs", NotYet),
    ("cinder", NotYet),
    ("csi", NotYet),
    ("downwardAPI", NotYet),
    ("ephemeral", NotYet),
    ("fc", NotYet),
    ("flexVolume", NotYet),
    ("flocker", NotYet),
    ("gcePersistentDisk", NotYet),
    ("gitRepo", NotYet),
    ("glusterfs", NotYet),
    ("image", NotYet),
    ("iscsi", NotYet),
    ("nfs", NotYet),
    ("photonPersistentDisk", NotYet),
    ("portworxVolume", NotYet),
    ("quobyte", NotYet),
    ("rbd", NotYet),
    ("scaleIO", NotYet),
    ("storageos", NotYet),
    ("vsphereVolume", NotYet),
];
/// The sources that are built.
const SOURCES: [&str; 6] = ["configMap", "secret", "emptyDir", "hostPath", "persistentVolumeClaim", "projected"];

const CONFIG: Table = &[("name", Read), ("items", Read), ("defaultMode", Read), ("optional", Read)];
const SECRET: Table = &[("secretName", Read), ("items", Read), ("defaultMode", Read), ("optional", Read)];
const ITEM: Table = &[("key", Read), ("path", Read), ("mode", Read)];
const EMPTY: Table = &[("medium", Read), ("sizeLimit", Read)];
const HOST: Table = &[("path", Read), ("type", Read)];
const CLAIM: Table = &[("claimName", Read), ("readOnly", Read)];
const PROJECTED: Table = &[("sources", Read), ("defaultMode", Read)];
const PROJECTION: Table = &[
    ("configMap", Read),
    ("secret", Read),
    ("serviceAccountToken", NotYet),
    ("downwardAPI", NotYet),
    ("clusterTrustBundle", NotYet),
    ("podCertificate", NotYet),
];
const PROJECTED_OBJECT: Table = &[("name", Read), ("items", Read), ("optional", Read)];

const MOUNT: Table = &[
    ("name", Read),
    ("mountPath", Read),
    ("subPath", Read),
    ("readOnly", Read),
    ("mountPropagation", Only(&["None"])),
    ("recursiveReadOnly", NoEffect("a volume has no mounts below it: read-only is all of it")),
    ("subPathExpr", NotYet),
];

const HOST_TYPES: &[(&str, Type)] = &[
    ("", Type::Any),
    ("Directory", Type::Directory),
    ("DirectoryOrCreate", Type::DirectoryOrCreate),
    ("File", Type::File),
    ("FileOrCreate", Type::FileOrCreate),
];
const HOST_TYPES_NOT_YET: [&str; 3] = ["Socket", "CharDevice", "BlockDevice"];

/// A volume, and whether every mount of it is read-only (`persistentVolumeClaim.readOnly`).
pub(crate) struct Volume {
    pub(crate) source: VolumeSource,
    pub(crate) read_only: bool,
}

/// One item of `volumes`.
pub(crate) fn volume(node: &Node, at: At<'_>, report: &mut Report) -> Option<Volume> {
    let errors_before = report.errors_seen();
    let v = fields(node, at, VOLUME, report)?;
    v.require("name", report)?;
    let name = v.text("name", report)?;
    let given: Vec<&str> = SOURCES.into_iter().filter(|source| v.get(source).is_some()).collect();
    let mut read_only = false;
    let source = match given.as_slice() {
        // As Kubernetes: a volume without a source is an empty directory. One whose source is not built has been refused.
        [] if report.errors_seen() == errors_before => Source::Scratch(Scratch::default()),
        [] => return None,
        &[kind] => {
            let (inner, here) = (v.get(kind)?, at.field(kind));
            match kind {
                "configMap" => Source::Config(files(&fields(inner, here, CONFIG, report)?, "name", report)?),
                "secret" => Source::Secret(files(&fields(inner, here, SECRET, report)?, "secretName", report)?),
                "emptyDir" => Source::Scratch(scratch(&fields(inner, here, EMPTY, report)?, report)),
                "hostPath" => Source::HostPath(host_path(&fields(inner, here, HOST, report)?, report)?),
                "projected" => projected(&fields(inner, here, PROJECTED, report)?, report)?,
                _ => {
                    let claim = fields(inner, here, CLAIM, report)?;
                    claim.require("claimName", report)?;
                    read_only = claim.flag("readOnly", report).unwrap_or_default();
                    Source::Volume(claim.text("claimName", report)?)
                }
            }
        }
        several => {
            report.error(node.pos, at, format!("a volume has one source, this one has {}", several.join(" and ")));
            return None;
        }
    };
    Some(Volume { source: VolumeSource { name, source: Some(source) }, read_only })
}

fn files(f: &Fields<'_, '_>, name: &'static str, report: &mut Report) -> Option<Files> {
    f.require(name, report)?;
    let mut files = projection(f, name, report)?;
    files.mode = default_mode(f, report);
    Some(files)
}

fn projection(f: &Fields<'_, '_>, name: &'static str, report: &mut Report) -> Option<Files> {
    f.require(name, report)?;
    let items = f.list("items", report, |node, at, report| {
        let item = fields(node, at, ITEM, report)?;
        let there = (item.require("key", report).is_some(), item.require("path", report).is_some());
        let (key, path) = (item.text("key", report)?, item.text("path", report)?);
        let mode = item.get("mode").and_then(|node| mode(node, at.field("mode"), report)).unwrap_or_default();
        (there == (true, true)).then_some(FileItem { key, path, mode })
    });
    let optional = f.flag("optional", report).unwrap_or_default();
    Some(Files { name: f.text(name, report)?, items, mode: 0, optional })
}

fn default_mode(f: &Fields<'_, '_>, report: &mut Report) -> u32 {
    f.get("defaultMode").and_then(|node| mode(node, f.at().field("defaultMode"), report)).unwrap_or_default()
}

fn scratch(e: &Fields<'_, '_>, report: &mut Report) -> Scratch {
    let memory = e.word("medium", &[("", false), ("Memory", true)], report).unwrap_or_default();
    let size = e.get("sizeLimit").and_then(|node| bytes(node, e.at().field("sizeLimit"), report));
    Scratch { memory, size_bytes: size.unwrap_or_default() }
}

fn host_path(h: &Fields<'_, '_>, report: &mut Report) -> Option<HostPath> {
    h.require("path", report)?;
    let path = h.text("path", report)?;
    if let Some(kind) = h.get("type").filter(|n| n.scalar().is_some_and(|t| HOST_TYPES_NOT_YET.contains(&t))) {
        let message = "only Directory, DirectoryOrCreate, File, FileOrCreate and \"\" are supported yet";
        report.error(kind.pos, h.at().field("type"), message);
        return None;
    }
    Some(HostPath { path, r#type: h.word("type", HOST_TYPES, report).unwrap_or_default().into() })
}

/// Of projected volumes those that a plain volume can say too.
fn projected(p: &Fields<'_, '_>, report: &mut Report) -> Option<Source> {
    let errors_before = report.errors_seen();
    let sources_node = p.require("sources", report)?;
    let sources = p.list("sources", report, |node, at, report| {
        let source = fields(node, at, PROJECTION, report)?;
        let mut read = |name: &'static str| {
            let inner = fields(source.get(name)?, at.field(name), PROJECTED_OBJECT, report)?;
            projection(&inner, "name", report)
        };
        Some((read("configMap"), read("secret")))
    });
    if report.errors_seen() > errors_before {
        return None;
    }
    let mode = default_mode(p, report);
    match sources.as_slice() {
        [(Some(config), None)] => Some(Source::Config(Files { mode, ..config.clone() })),
        [(None, Some(secret))] => Some(Source::Secret(Files { mode, ..secret.clone() })),
        _ => {
            let message = "only one configMap or one secret in a projected volume is supported yet: give each a volume of its own";
            report.error(sources_node.pos, p.at().field("sources"), message);
            None
        }
    }
}

/// The mounts of a container.
pub(crate) fn mounts(
    c: &Fields<'_, '_>,
    volumes: &[Volume],
    others: &[String],
    report: &mut Report,
) -> Vec<VolumeMount> {
    c.list("volumeMounts", report, |node, at, report| {
        let m = fields(node, at, MOUNT, report)?;
        let (name_node, path_node) = (m.require("name", report), m.require("mountPath", report));
        let (volume, path) = (m.text("name", report)?, m.text("mountPath", report)?);
        let (name_node, path_node) = (name_node?, path_node?);
        let known = volumes.iter().find(|v| v.source.name == volume);
        if known.is_none() && !others.contains(&volume) {
            if report.is_full() {
                report.error(name_node.pos, at, "no such volume");
                return None;
            }
            let names = volumes.iter().map(|v| v.source.name.as_str()).chain(others.iter().map(String::as_str));
            let hint = did_you_mean(&volume, names);
            report.error(name_node.pos, at.field("name"), format!("the pod has no volume {:?}{hint}", cut(&volume)));
            return None;
        }
        if !path.starts_with('/') {
            report.error(path_node.pos, at.field("mountPath"), format!("{:?} is not absolute", cut(&path)));
            return None;
        }
        let sub_path = m.text("subPath", report).unwrap_or_default();
        if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
            report.error(node.pos, at.field("subPath"), "is relative and has no `..`");
            return None;
        }
        let read_only = m.flag("readOnly", report).unwrap_or_default() || known.is_some_and(|v| v.read_only);
        Some(VolumeMount { volume, path, sub_path, read_only })
    })
}
