//! `build` of a service: which image has to be made, and how. Making it is the business of `ctl build`.

use super::{loose, project::Project};
use crate::{
    at::At,
    read::{EXTENSION, Fields, fields},
    report::Report,
    scalar::cut,
    table::{
        Class::{NoEffect, NotYet, Read},
        Table,
    },
    tree::{Pos, Value},
};

const CACHE: &str = "the node that builds keeps its layers";

const BUILD: Table = &[
    ("context", Read),
    ("dockerfile", Read),
    ("dockerfile_inline", Read),
    ("args", Read),
    ("target", Read),
    ("cache_from", NoEffect(CACHE)),
    ("cache_to", NoEffect(CACHE)),
    ("no_cache", NoEffect("`ctl build --no-cache` builds without it")),
    ("pull", NoEffect("an image that the cluster has is used")),
    ("labels", NoEffect("labels of images come from the Dockerfile")),
    ("network", NoEffect("steps of a build have the network of a pod")),
    ("platforms", NoEffect("images are built for the node's own platform")),
    ("provenance", NoEffect("no attestations are made")),
    ("sbom", NoEffect("no attestations are made")),
    ("isolation", NoEffect("steps of a build run in pods")),
    ("shm_size", NoEffect("steps of a build have the usual /dev/shm")),
    ("additional_contexts", NotYet),
    ("entitlements", NotYet),
    ("extra_hosts", NotYet),
    ("privileged", NotYet),
    ("secrets", NotYet),
    ("ssh", NotYet),
    ("tags", NotYet),
    ("ulimits", NotYet),
    (EXTENSION, Read),
];

/// An image that a service wants built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The name it gets.
    pub image: String,
    /// The directory of the build, absolute or relative to the manifest's.
    pub context: String,
    /// The Dockerfile, relative to the context; `None`: the usual names.
    pub dockerfile: Option<String>,
    /// The Dockerfile's text instead.
    pub dockerfile_inline: Option<String>,
    /// Its arguments, in order.
    pub args: Vec<(String, String)>,
    /// The stage; `None`: the last.
    pub target: Option<String>,
}

/// Reads `build`; `image` is the name the file gives the image, else it is called after project and service.
pub(crate) fn read(
    of: &Fields<'_, '_>,
    image: Option<&str>,
    service: &str,
    project: &Project<'_, '_>,
    report: &mut Report,
) -> Option<Build> {
    let node = of.get("build")?;
    let at = of.at().field("build");
    let image = image.map_or_else(|| format!("{}-{}", project.name, service.to_lowercase()), str::to_owned);
    let mut build = Build {
        image,
        context: ".".to_owned(),
        dockerfile: None,
        dockerfile_inline: None,
        args: Vec::new(),
        target: None,
    };
    if !matches!(node.value, Value::Map(_)) {
        build.context = loose::text(node, at, report)?;
        return local(build, node.pos, at, report);
    }
    let b = fields(node, at, BUILD, report)?;
    build.context = loose::field(&b, "context", report).unwrap_or(build.context);
    build.dockerfile = loose::field(&b, "dockerfile", report);
    build.dockerfile_inline = loose::field(&b, "dockerfile_inline", report);
    build.target = loose::field(&b, "target", report);
    if build.dockerfile.is_some() && build.dockerfile_inline.is_some() {
        report.error(node.pos, at, "dockerfile and dockerfile_inline are both given: leave one of them out");
        return None;
    }
    for (name, value, _) in loose::pairs(&b, "args", report) {
        // Without a value it is the environment's; not there, it is the Dockerfile's own default.
        if let Some(value) = value.or_else(|| project.variables.get(&name)) {
            build.args.push((name, value));
        }
    }
    local(build, node.pos, at, report)
}

/// Only directories are built.
fn local(build: Build, pos: Pos, at: At<'_>, report: &mut Report) -> Option<Build> {
    let context = &build.context;
    if context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/") {
        report.error(pos, at, format!("{:?}: only directories are supported yet as contexts", cut(context)));
        return None;
    }
    Some(build)
}
