//! `deploy`, `restart` and the amounts of resources of a service.

use std::collections::HashMap;

use strata_model::limits::REPLICAS_MAX;
use strata_proto::types::{Resources, UpdatePolicy, update_policy::OnFailure, workload_spec::Mode};

use super::loose;
use crate::{
    at::At,
    read::{EXTENSION, Fields, fields},
    report::Report,
    scalar::cut,
    suggest::did_you_mean,
    table::{
        Class::{NoEffect, NotYet, Read},
        Table,
    },
};

const DEPLOY: Table = &[
    ("mode", Read),
    ("replicas", Read),
    ("endpoint_mode", Read),
    ("labels", Read),
    ("resources", Read),
    ("restart_policy", Read),
    ("update_config", Read),
    ("rollback_config", NoEffect("a rollout that fails goes back as it came")),
    ("placement", Read),
    (EXTENSION, Read),
];
const RESOURCES: Table = &[("limits", Read), ("reservations", Read), (EXTENSION, Read)];
const AMOUNTS: Table = &[
    ("cpus", Read),
    ("memory", Read),
    ("pids", Read),
    ("devices", NotYet),
    ("generic_resources", NotYet),
    (EXTENSION, Read),
];
const BACKOFF: &str = "a container that ends again and again waits longer each time, at most 5 minutes";
const RESTART: Table = &[
    ("condition", Read),
    ("delay", NoEffect(BACKOFF)),
    ("max_attempts", NoEffect(BACKOFF)),
    ("window", NoEffect(BACKOFF)),
    (EXTENSION, Read),
];
const UPDATE: Table = &[
    ("parallelism", Read),
    ("order", Read),
    ("failure_action", Read),
    ("monitor", Read),
    ("delay", NoEffect("the next pod is replaced when the one before is ready")),
    ("max_failure_ratio", NoEffect("one pod that does not become ready holds a rollout up")),
    (EXTENSION, Read),
];
const PLACEMENT: Table = &[
    ("constraints", Read),
    ("preferences", NoEffect("pods are spread over the nodes anyway")),
    ("max_replicas_per_node", NotYet),
    (EXTENSION, Read),
];

/// When the containers of a service start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Whatever happens.
    Always,
    /// As long as they fail.
    OnFailure,
    /// Never.
    Never,
}

/// What `deploy` says, and what older fields of the service say instead.
#[derive(Default)]
pub(crate) struct Deploy {
    pub(crate) mode: Mode,
    pub(crate) replicas: Option<u32>,
    /// Names lead to the pods' own addresses (`endpoint_mode: dnsrr`).
    pub(crate) headless: bool,
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) limits: Resources,
    pub(crate) requests: Resources,
    pub(crate) restart: Option<Restart>,
    pub(crate) update: Option<UpdatePolicy>,
    pub(crate) node_selector: HashMap<String, String>,
}

/// Reads `deploy` and its older relatives.
pub(crate) fn read(of: &Fields<'_, '_>, report: &mut Report) -> Deploy {
    let mut found = Deploy {
        replicas: loose::number(of, "scale", REPLICAS_MAX, report),
        limits: Resources {
            cpu_millis: loose::cpus(of, "cpus", report).unwrap_or_default(),
            memory_bytes: loose::size(of, "mem_limit", report).unwrap_or_default(),
            pids: loose::number(of, "pids_limit", u32::MAX, report).unwrap_or_default(),
        },
        requests: Resources {
            memory_bytes: loose::size(of, "mem_reservation", report).unwrap_or_default(),
            ..Resources::default()
        },
        restart: restart(of, report),
        ..Deploy::default()
    };
    let at = of.at().field("deploy");
    if let Some(deploy) = of.get("deploy").and_then(|node| fields(node, at, DEPLOY, report)) {
        into(&deploy, &mut found, report);
    }
    found
}

fn into(deploy: &Fields<'_, '_>, found: &mut Deploy, report: &mut Report) {
    let at = *deploy.at();
    match loose::field(deploy, "mode", report).as_deref() {
        None | Some("replicated") => {}
        Some("global") => found.mode = Mode::Global,
        Some(other) => {
            let pos = deploy.get("mode").map_or(deploy.pos(), |n| n.pos);
            let hint = did_you_mean(other, ["replicated", "global"]);
            report.error(
                pos,
                at.field("mode"),
                format!("only replicated and global are supported yet, this is {:?}{hint}", cut(other)),
            );
        }
    }
    found.replicas = loose::number(deploy, "replicas", REPLICAS_MAX, report).or(found.replicas);
    match loose::field(deploy, "endpoint_mode", report).as_deref() {
        None | Some("vip") => {}
        Some("dnsrr") => found.headless = true,
        Some(other) => {
            let pos = deploy.get("endpoint_mode").map_or(deploy.pos(), |n| n.pos);
            report.error(pos, at.field("endpoint_mode"), format!("{:?} is not one of vip, dnsrr", cut(other)));
        }
    }
    let labels = loose::pairs(deploy, "labels", report);
    found.annotations = labels.into_iter().map(|(k, v, _)| (k, v.unwrap_or_default())).collect();
    if let Some(resources) = deploy.get("resources").and_then(|n| fields(n, at.field("resources"), RESOURCES, report)) {
        amounts(&resources, "limits", &mut found.limits, report);
        amounts(&resources, "reservations", &mut found.requests, report);
    }
    if let Some(policy) =
        deploy.get("restart_policy").and_then(|n| fields(n, at.field("restart_policy"), RESTART, report))
    {
        let words = [("any", Restart::Always), ("on-failure", Restart::OnFailure), ("none", Restart::Never)];
        found.restart = policy.word("condition", &words, report).or(found.restart);
    }
    if let Some(node) = deploy.get("update_config") {
        found.update = update(node, at.field("update_config"), report);
    }
    if let Some(placement) = deploy.get("placement").and_then(|n| fields(n, at.field("placement"), PLACEMENT, report)) {
        for (text, pos) in loose::texts(&placement, "constraints", report) {
            constraint(&text, pos, placement.at().field("constraints"), found, report);
        }
    }
}

fn amounts(of: &Fields<'_, '_>, name: &'static str, into: &mut Resources, report: &mut Report) {
    let at = of.at().field(name);
    let Some(amounts) = of.get(name).and_then(|node| fields(node, at, AMOUNTS, report)) else { return };
    if let Some(cpus) = loose::cpus(&amounts, "cpus", report) {
        into.cpu_millis = cpus;
    }
    if let Some(memory) = loose::size(&amounts, "memory", report) {
        into.memory_bytes = memory;
    }
    if let Some(pids) = loose::number(&amounts, "pids", u32::MAX, report) {
        into.pids = pids;
    }
}

fn update(node: &crate::tree::Node, at: At<'_>, report: &mut Report) -> Option<UpdatePolicy> {
    let config = fields(node, at, UPDATE, report)?;
    // 0: all at once.
    let parallel = match loose::number(&config, "parallelism", REPLICAS_MAX, report) {
        Some(0) => REPLICAS_MAX,
        other => other.unwrap_or(1),
    };
    let starts_first = config.word("order", &[("stop-first", false), ("start-first", true)], report);
    let (max_surge, max_unavailable) = if starts_first == Some(true) { (parallel, 0) } else { (0, parallel) };
    let actions = [("pause", OnFailure::Pause), ("rollback", OnFailure::Revert), ("continue", OnFailure::Pause)];
    let on_failure = config.word("failure_action", &actions, report).unwrap_or(OnFailure::Revert);
    Some(UpdatePolicy {
        max_surge,
        max_unavailable,
        progress_deadline_s: 0,
        min_ready_s: loose::seconds(&config, "monitor", report).unwrap_or_default(),
        on_failure: on_failure.into(),
    })
}

/// `node.labels.KEY==VALUE` and what means the same.
fn constraint(text: &str, pos: crate::tree::Pos, at: At<'_>, found: &mut Deploy, report: &mut Report) {
    let Some((what, value)) = text.split_once("==").map(|(a, b)| (a.trim(), b.trim())) else {
        report.error(pos, at, format!("{:?}: only constraints with == are supported yet", cut(text)));
        return;
    };
    let key = match what {
        "node.hostname" => "kubernetes.io/hostname",
        "node.platform.os" => "kubernetes.io/os",
        "node.platform.arch" => "kubernetes.io/arch",
        "node.role" => {
            report.warn(pos, at, "has no effect here: nodes have no roles, the controller runs no pods");
            return;
        }
        _ => match what.strip_prefix("node.labels.").or_else(|| what.strip_prefix("engine.labels.")) {
            Some(key) => key,
            None => {
                let known = ["node.labels.KEY", "node.hostname", "node.platform.os", "node.platform.arch"];
                report.error(pos, at, format!("{:?} is not supported: there are {}", cut(what), known.join(", ")));
                return;
            }
        },
    };
    let value = if what == "node.platform.arch" && value == "x86_64" { "amd64" } else { value };
    found.node_selector.insert(key.to_owned(), value.to_owned());
}

/// `restart`; without it a service is kept running, as `docker stack deploy` does.
fn restart(of: &Fields<'_, '_>, report: &mut Report) -> Option<Restart> {
    let node = of.get("restart")?;
    let here = of.at().field("restart");
    // YAML reads a bare `no` as a boolean.
    let text = loose::text(node, here, report)?;
    match text.as_str() {
        "always" | "unless-stopped" => Some(Restart::Always),
        "no" | "false" | "No" | "False" => Some(Restart::Never),
        "" => None,
        other if other == "on-failure" || other.starts_with("on-failure:") => Some(Restart::OnFailure),
        other => {
            let words = ["no", "always", "on-failure", "unless-stopped"];
            let hint = did_you_mean(other, words);
            report.error(node.pos, here, format!("{:?} is not one of {}{hint}", cut(other), words.join(", ")));
            None
        }
    }
}
