//! `v1` PersistentVolumeClaim, and the claim templates of a StatefulSet.

use strata_proto::types::{self, VolumeSpec, VolumeTemplate, object::Kind};

use super::{TOP, meta};
use crate::{
    at::At,
    read::{Fields, bytes, fields},
    report::Report,
    suggest::did_you_mean,
    table::{
        Class::{NoEffect, NotYet, Only, Read},
        Table,
    },
    tree::{Node, Value},
};

const SPEC: Table = &[
    ("accessModes", Read),
    ("resources", Read),
    ("storageClassName", NoEffect("there is one class: a directory of the node that the first pod is placed on")),
    ("volumeMode", Only(&["Filesystem"])),
    ("volumeAttributesClassName", NoEffect("volumes are directories of a node")),
    ("volumeName", NotYet),
    ("selector", NotYet),
    ("dataSource", NotYet),
    ("dataSourceRef", NotYet),
];
const RESOURCES: Table = &[("requests", Read), ("limits", Read)];
const AMOUNTS: &str = "storage";

/// The access modes, and whether pods of several nodes are to share the volume.
const MODES: &[(&str, bool)] =
    &[("ReadWriteOnce", false), ("ReadWriteOncePod", false), ("ReadOnlyMany", true), ("ReadWriteMany", true)];

/// A `v1` PersistentVolumeClaim.
pub(crate) fn read(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    let top = fields(root, at, TOP, report)?;
    let meta = meta::object(&top, true, report);
    let size_bytes = size(&top, report)?;
    let spec = VolumeSpec { size_bytes, node: String::new() };
    Some(types::Object {
        meta: Some(meta?),
        kind: Some(Kind::Volume(types::Volume { spec: Some(spec), status: None })),
    })
}

/// One item of `volumeClaimTemplates`.
pub(crate) fn template(node: &Node, at: At<'_>, report: &mut Report) -> Option<VolumeTemplate> {
    let top = fields(node, at, TOP, report)?;
    let name = meta::object(&top, true, report)?.name;
    Some(VolumeTemplate { name, size_bytes: size(&top, report)? })
}

fn size(top: &Fields<'_, '_>, report: &mut Report) -> Option<u64> {
    let here = top.at().field("spec");
    let spec = fields(top.require("spec", report)?, here, SPEC, report)?;
    spec.list("accessModes", report, |node, at, report| {
        let word = crate::read::string(node, at, report)?;
        match MODES.iter().find(|(mode, _)| *mode == word) {
            Some((_, false)) => {}
            Some((_, true)) => {
                let message = format!("{word}: the volume is in one place, so all pods that use it run on that node");
                report.warn(node.pos, at, message);
            }
            None => {
                let hint = did_you_mean(&word, MODES.iter().map(|(mode, _)| *mode));
                report.error(node.pos, at, format!("{:?} is no access mode{hint}", crate::scalar::cut(&word)));
            }
        }
        Some(())
    });
    let Some(resources) = spec.get("resources") else { return Some(0) };
    let here = here.field("resources");
    let resources = fields(resources, here, RESOURCES, report)?;
    let mut of = |name: &'static str| -> Option<u64> {
        let node = resources.get(name)?;
        let here = here.field(name);
        let Value::Map(entries) = &node.value else {
            report.error(node.pos, here, format!("a map is expected, this is {}", node.what()));
            return None;
        };
        let mut size = None;
        for e in entries {
            if e.key == AMOUNTS {
                size = bytes(&e.node, here.field(AMOUNTS), report);
            } else {
                let hint = did_you_mean(&e.key, [AMOUNTS]);
                report.error(e.pos, here.field(&e.key), format!("unknown resource{hint}"));
            }
        }
        size
    };
    let (request, limit) = (of("requests"), of("limits"));
    Some(request.or(limit).unwrap_or(0))
}
