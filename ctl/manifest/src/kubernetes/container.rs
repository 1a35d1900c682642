//! One container of a pod.

use strata_model::ImageName;
use strata_proto::types::{Container, EnvVar, Port, container::PullPolicy, port::Protocol};

use super::{env, expand::Expansion, probe, resources, security, volumes};
use crate::{
    at::At,
    read::{self, Fields, fields},
    report::Report,
    table::{
        Class::{NoEffect, NotYet, Read},
        Table,
    },
    tree::Node,
};

const CONTAINER: Table = &[
    ("name", Read),
    ("image", Read),
    ("imagePullPolicy", Read),
    ("command", Read),
    ("args", Read),
    ("workingDir", Read),
    ("env", Read),
    ("ports", Read),
    ("resources", Read),
    ("securityContext", Read),
    ("tty", Read),
    ("stdin", Read),
    ("terminationMessagePath", NoEffect("no termination message is read; see the logs")),
    ("terminationMessagePolicy", NoEffect("no termination message is read; see the logs")),
    ("envFrom", Read),
    ("livenessProbe", Read),
    ("readinessProbe", Read),
    ("startupProbe", Read),
    ("volumeMounts", Read),
    ("lifecycle", NotYet),
    ("resizePolicy", NotYet),
    ("restartPolicy", NotYet),
    ("restartPolicyRules", NotYet),
    ("stdinOnce", NotYet),
    ("volumeDevices", NotYet),
];

const PORT: Table =
    &[("name", Read), ("containerPort", Read), ("protocol", Read), ("hostPort", NotYet), ("hostIP", NotYet)];

const PULL: &[(&str, PullPolicy)] =
    &[("IfNotPresent", PullPolicy::IfNotPresent), ("Always", PullPolicy::Always), ("Never", PullPolicy::Never)];

pub(crate) const PROTOCOL: &[(&str, Protocol)] =
    &[("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];

/// What a pod has for its containers to mount.
pub(crate) struct Volumes<'v> {
    /// Its own.
    pub(crate) own: &'v [volumes::Volume],
    /// Names of its workload's claim templates, and of volumes that were refused.
    pub(crate) others: &'v [String],
}

/// Reads one item of `containers`.
pub(crate) fn read(node: &Node, at: At<'_>, volumes: &Volumes<'_>, report: &mut Report) -> Option<Container> {
    let c = fields(node, at, CONTAINER, report)?;
    let (name, image) = (c.require("name", report), c.require("image", report));
    let env = c.list("env", report, env::variable);
    let mut expansion = Expansion::default();
    let env: Vec<EnvVar> = env.into_iter().map(|e| expansion.define(e)).collect();
    let mut words = |words: Vec<String>| words.iter().map(|w| expansion.expand(w)).collect();
    let mut container = Container {
        name: c.text("name", report).unwrap_or_default(),
        image: c.text("image", report).unwrap_or_default(),
        pull_policy: pull_policy(&c, report).into(),
        command: words(c.texts("command", report)),
        args: words(c.texts("args", report)),
        working_dir: c.text("workingDir", report).unwrap_or_default(),
        ports: c.list("ports", report, port),
        tty: c.flag("tty", report).unwrap_or_default(),
        stdin: c.flag("stdin", report).unwrap_or_default(),
        env_from: c.list("envFrom", report, env::whole),
        mounts: volumes::mounts(&c, volumes.own, volumes.others, report),
        ..Default::default()
    };
    container.startup = probe::read(&c, "startupProbe", &container.ports, report);
    container.readiness = probe::read(&c, "readinessProbe", &container.ports, report);
    container.liveness = probe::read(&c, "livenessProbe", &container.ports, report);
    if let Some(node) = c.get("resources") {
        resources::read(node, at.field("resources"), &mut container, report);
    }
    if let Some(node) = c.get("securityContext") {
        container.security = security::of_container(node, at.field("securityContext"), report);
    }
    container.env = env;
    if let Some(name) = expansion.unsayable() {
        let name = crate::scalar::cut(name);
        report.error(
            node.pos,
            at,
            format!("`$$({name})` is not supported: the value of {name} comes from elsewhere, and `$({name})` is replaced on the node"),
        );
    }
    if expansion.is_too_large() {
        report.error(
            node.pos,
            at,
            "with its $(NAME) references replaced, the container is larger than an object may be",
        );
        return None;
    }
    (name.is_some() && image.is_some()).then_some(container)
}

/// Kubernetes asks the registry for `latest` each time; here that must be asked for, since imported images are in no registry.
fn pull_policy(c: &Fields<'_, '_>, report: &mut Report) -> PullPolicy {
    let policy = c.word("imagePullPolicy", PULL, report);
    if policy.is_none()
        && let Some(image) = c.get("image")
        && image
            .scalar()
            .and_then(|i| ImageName::parse(i).ok())
            .is_some_and(|i| i.tag() == "latest" && i.digest().is_none())
    {
        let message = "the tag is `latest` and no imagePullPolicy is set: an image that the cluster has is used without asking the registry (Kubernetes would ask)";
        report.warn(image.pos, c.at().field("image"), message);
    }
    policy.unwrap_or_default()
}

fn port(node: &Node, at: At<'_>, report: &mut Report) -> Option<Port> {
    let p = fields(node, at, PORT, report)?;
    let number = read::whole(p.require("containerPort", report)?, at.field("containerPort"), 65_535, report)?;
    let protocol = p.word("protocol", PROTOCOL, report).unwrap_or_default();
    let name = p.text("name", report).unwrap_or_default();
    Some(Port { name, container_port: u32::try_from(number).ok()?, protocol: protocol.into() })
}
