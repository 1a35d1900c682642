//! Pod, Deployment, DaemonSet.

use std::collections::HashMap;

use strata_model::limits::REPLICAS_MAX;
use strata_proto::types::{
    self, PodTemplate, UpdatePolicy, WorkloadSpec, object::Kind, pod_template::RestartPolicy, workload_spec::Mode,
};

use super::{TOP, meta, pod};
use crate::{
    at::At,
    read::{self, Fields, fields},
    report::Report,
    table::{
        Class::{NoEffect, NotYet, Read},
        Table,
    },
    tree::{Node, Value},
};

const HISTORY: &str = "the history of template revisions is kept by the controller";

const DEPLOYMENT: Table = &[
    ("replicas", Read),
    ("selector", Read),
    ("template", Read),
    ("strategy", Read),
    ("minReadySeconds", NotYet),
    ("paused", NotYet),
    ("revisionHistoryLimit", NoEffect(HISTORY)),
    ("progressDeadlineSeconds", NoEffect("a rollout waits for as long as it takes; its status says why")),
];

const DAEMON_SET: Table = &[
    ("selector", Read),
    ("template", Read),
    ("updateStrategy", Read),
    ("minReadySeconds", NotYet),
    ("revisionHistoryLimit", NoEffect(HISTORY)),
];

const TEMPLATE: Table = &[("metadata", Read), ("spec", Read)];
const STRATEGY: Table = &[("type", Read), ("rollingUpdate", Read)];
const ROLLING: Table = &[("maxSurge", Read), ("maxUnavailable", Read)];
const SELECTOR: Table = &[("matchLabels", Read), ("matchExpressions", Read)];
const EXPRESSION: Table = &[("key", Read), ("operator", Read), ("values", Read)];

/// A `v1` Pod.
pub(crate) fn pod(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    let top = fields(root, at, TOP, report)?;
    let meta = meta::object(&top, true, report);
    let own = types::PodTemplate {
        labels: meta.as_ref().map(|m| m.labels.clone()).unwrap_or_default(),
        annotations: meta.as_ref().map(|m| m.annotations.clone()).unwrap_or_default(),
        ..Default::default()
    };
    let spec = top.require("spec", report)?;
    let template = pod::spec(spec, at.field("spec"), own, report)?;
    let spec = types::PodSpec { template: Some(template), ..Default::default() };
    Some(types::Object { meta: Some(meta?), kind: Some(Kind::Pod(types::Pod { spec: Some(spec), status: None })) })
}

/// An `apps/v1` Deployment.
pub(crate) fn deployment(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    workload(root, at, DEPLOYMENT, report, |spec, report| {
        let replicas = spec.number("replicas", REPLICAS_MAX, report);
        let update = match strategy(spec, "strategy", report) {
            Some(rolling) => rolling.policy(replicas, spec.at().field("strategy"), report)?,
            None => Rolling::default().policy(replicas, spec.at().field("strategy"), report)?,
        };
        Some(WorkloadSpec { mode: Mode::Replicated.into(), replicas, update: Some(update), ..Default::default() })
    })
}

/// An `apps/v1` DaemonSet: one pod on every node that matches.
pub(crate) fn daemon_set(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    workload(root, at, DAEMON_SET, report, |spec, report| {
        let mut update = UpdatePolicy { max_surge: 0, max_unavailable: 1, ..UpdatePolicy::default() };
        if let Some(Rolling { surge, unavailable }) = strategy(spec, "updateStrategy", report) {
            let mut number = |amount: Option<Amount>| match amount {
                Some(Amount { percent: true, pos, .. }) => {
                    let message = "a percentage of an unknown number of nodes is not supported: write a number";
                    report.error(pos, spec.at().field("updateStrategy"), message);
                    None
                }
                other => other.map(|a| a.value),
            };
            update.max_surge = number(surge).unwrap_or(0);
            update.max_unavailable = number(unavailable).unwrap_or(u32::from(update.max_surge == 0));
        }
        Some(WorkloadSpec { mode: Mode::Global.into(), replicas: None, update: Some(update), ..Default::default() })
    })
}

fn workload(
    root: &Node,
    at: At<'_>,
    table: Table,
    report: &mut Report,
    own: impl FnOnce(&Fields<'_, '_>, &mut Report) -> Option<WorkloadSpec>,
) -> Option<types::Object> {
    let top = fields(root, at, TOP, report)?;
    let meta = meta::object(&top, true, report);
    let here = at.field("spec");
    let spec = fields(top.require("spec", report)?, here, table, report)?;
    let result = own(&spec, report);
    let template = spec.require("template", report).and_then(|node| template(node, here.field("template"), report));
    if let (Some(selector), Some(template)) = (spec.require("selector", report), &template) {
        check_selector(selector, here.field("selector"), &template.labels, report);
    }
    let spec = WorkloadSpec { template: Some(template?), ..result? };
    let kind = Kind::Workload(types::Workload { spec: Some(spec), status: None });
    Some(types::Object { meta: Some(meta?), kind: Some(kind) })
}

fn template(node: &Node, at: At<'_>, report: &mut Report) -> Option<PodTemplate> {
    let template = fields(node, at, TEMPLATE, report)?;
    let own = meta::template(&template, report);
    let spec = template.require("spec", report)?;
    let result = pod::spec(spec, at.field("spec"), own, report)?;
    if result.restart_policy() != RestartPolicy::Always {
        let (pos, at) = (spec.get("restartPolicy").map_or(spec.pos, |n| n.pos), at.field("spec"));
        report.error(pos, at.field("restartPolicy"), "the pods of a workload that keeps them running restart Always");
    }
    Some(result)
}

/// A number of pods, or a percentage.
#[derive(Clone, Copy)]
struct Amount {
    value: u32,
    percent: bool,
    pos: crate::tree::Pos,
}

impl Amount {
    /// Of this many pods; Kubernetes rounds a surge up and what may be missing down.
    fn of(self, replicas: u32, up: bool) -> u32 {
        if !self.percent {
            return self.value;
        }
        let hundredths = u64::from(self.value) * u64::from(replicas);
        let pods = if up { hundredths.div_ceil(100) } else { hundredths / 100 };
        u32::try_from(pods).unwrap_or(u32::MAX)
    }
}

/// `rollingUpdate`; what is absent is 25 %.
#[derive(Clone, Copy, Default)]
struct Rolling {
    surge: Option<Amount>,
    unavailable: Option<Amount>,
}

impl Rolling {
    fn policy(self, replicas: Option<u32>, at: At<'_>, report: &mut Report) -> Option<UpdatePolicy> {
        let quarter = Amount { value: 25, percent: true, pos: Default::default() };
        let pods = replicas.unwrap_or(1);
        let mut policy = UpdatePolicy {
            max_surge: self.surge.unwrap_or(quarter).of(pods, true),
            max_unavailable: self.unavailable.unwrap_or(quarter).of(pods, false),
            ..UpdatePolicy::default()
        };
        if let (0, 0, Some(amount)) = (policy.max_surge, policy.max_unavailable, self.surge) {
            let explicit_zero = self.unavailable.is_some_and(|u| u.value == 0);
            if explicit_zero {
                let message = "maxSurge and maxUnavailable are both 0: no pod could ever be replaced";
                report.error(amount.pos, at, message);
                return None;
            }
            // As Kubernetes: a percentage that rounds to nothing still lets one pod be missing.
            policy.max_unavailable = 1;
        }
        Some(policy)
    }
}

fn strategy(spec: &Fields<'_, '_>, name: &'static str, report: &mut Report) -> Option<Rolling> {
    let node = spec.get(name)?;
    let at = spec.at().field(name);
    let strategy = fields(node, at, STRATEGY, report)?;
    match strategy.text("type", report).as_deref() {
        None | Some("RollingUpdate") => {}
        Some(kind @ ("Recreate" | "OnDelete")) => {
            report.error(node.pos, at.field("type"), format!("{kind} is not supported yet: write RollingUpdate"));
            return None;
        }
        Some(other) => {
            let message = format!("{:?} is not a strategy: write RollingUpdate", crate::scalar::cut(other));
            report.error(node.pos, at.field("type"), message);
            return None;
        }
    }
    let Some(rolling) = strategy.get("rollingUpdate") else { return Some(Rolling::default()) };
    let here = at.field("rollingUpdate");
    let rolling = fields(rolling, here, ROLLING, report)?;
    let mut amount = |name| amount(rolling.get(name)?, here.field(name), report);
    Some(Rolling { surge: amount("maxSurge"), unavailable: amount("maxUnavailable") })
}

fn amount(node: &Node, at: At<'_>, report: &mut Report) -> Option<Amount> {
    if let Some(percent) = node.scalar().and_then(|text| text.strip_suffix('%')) {
        let value = crate::scalar::whole(percent).and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= 1000);
        if value.is_none() {
            report.error(node.pos, at, "a percentage from 0% to 1000% is expected");
        }
        return value.map(|value| Amount { value, percent: true, pos: node.pos });
    }
    let value = read::whole(node, at, u64::from(REPLICAS_MAX), report)?;
    Some(Amount { value: u32::try_from(value).ok()?, percent: false, pos: node.pos })
}

/// The selector has no effect of its own (a workload's pods carry its name), but it must be true of the template, as Kubernetes demands.
fn check_selector(node: &Node, at: At<'_>, labels: &HashMap<String, String>, report: &mut Report) {
    let Some(selector) = fields(node, at, SELECTOR, report) else { return };
    if node.is_default() {
        report.error(
            node.pos,
            at,
            "an empty selector would match every pod: name the template's labels in `matchLabels`",
        );
        return;
    }
    for (key, value) in selector.strings("matchLabels", report) {
        if labels.get(&key) != Some(&value) && !report.is_full() {
            let (pos, map) = match node.get("matchLabels") {
                Some(map) => (place_of(map, &key), at.field("matchLabels")),
                None => (node.pos, at),
            };
            let message = format!("the pod template has no label {key}: {value} (template.metadata.labels)");
            report.error(pos, map.key(&key), message);
        }
    }
    selector.list("matchExpressions", report, |node, at, report| {
        let expression = fields(node, at, EXPRESSION, report)?;
        let key = expression.text("key", report)?;
        let values = expression.texts("values", report);
        let label = labels.get(&key);
        let is_in = label.is_some_and(|l| values.contains(l));
        let words = [("In", is_in), ("NotIn", !is_in), ("Exists", label.is_some()), ("DoesNotExist", label.is_none())];
        if !expression.word("operator", &words, report)? {
            report.error(node.pos, at, "is not true of the pod template's labels");
        }
        Some(())
    });
}

fn place_of(map: &Node, key: &str) -> crate::tree::Pos {
    match &map.value {
        Value::Map(entries) => entries.iter().find(|e| e.key == key).map_or(map.pos, |e| e.pos),
        _ => map.pos,
    }
}
