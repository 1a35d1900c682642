//! `strategy` and `updateStrategy`: how many pods are replaced at once.

use strata_model::limits::REPLICAS_MAX;
use strata_proto::types::UpdatePolicy;

use crate::{
    at::At,
    read::{self, Fields, fields},
    report::Report,
    scalar::cut,
    table::{
        Class::{NotYet, Read},
        Table,
    },
    tree::{Node, Pos},
};

const STRATEGY: Table = &[("type", Read), ("rollingUpdate", Read)];
const ROLLING: Table = &[("maxSurge", Read), ("maxUnavailable", Read), ("partition", NotYet)];

/// Of a Deployment: what is absent is 25 % of the replicas.
pub(crate) fn deployment(spec: &Fields<'_, '_>, replicas: Option<u32>, report: &mut Report) -> Option<UpdatePolicy> {
    let at = spec.at().field("strategy");
    match strategy(spec, "strategy", true, report)? {
        // Every pod may be missing at once, none may come on top.
        Strategy::Recreate => {
            Some(UpdatePolicy { max_surge: 0, max_unavailable: REPLICAS_MAX, ..UpdatePolicy::default() })
        }
        Strategy::Rolling(rolling) => rolling.policy(replicas, at, report),
    }
}

/// Of a DaemonSet or StatefulSet: one pod at a time, gone before the next comes.
pub(crate) fn one_at_a_time(spec: &Fields<'_, '_>, pods: &str, report: &mut Report) -> Option<UpdatePolicy> {
    let at = spec.at().field("updateStrategy");
    let Strategy::Rolling(Rolling { surge, unavailable }) = strategy(spec, "updateStrategy", false, report)? else {
        return None;
    };
    let mut number = |amount: Option<Amount>| match amount {
        Some(Amount { percent: true, pos, .. }) => {
            report.error(pos, at, format!("a percentage of {pods} is not supported: write a number"));
            None
        }
        other => other.map(|a| a.value),
    };
    let max_surge = number(surge).unwrap_or(0);
    let max_unavailable = number(unavailable).unwrap_or(u32::from(max_surge == 0));
    Some(UpdatePolicy { max_surge, max_unavailable, ..UpdatePolicy::default() })
}

/// A number of pods, or a percentage.
#[derive(Clone, Copy)]
struct Amount {
    value: u32,
    percent: bool,
    pos: Pos,
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

enum Strategy {
    Rolling(Rolling),
    Recreate,
}

/// `rollingUpdate`; what is absent is 25 %.
#[derive(Clone, Copy, Default)]
struct Rolling {
    surge: Option<Amount>,
    unavailable: Option<Amount>,
}

impl Rolling {
    fn policy(self, replicas: Option<u32>, at: At<'_>, report: &mut Report) -> Option<UpdatePolicy> {
        let quarter = Amount { value: 25, percent: true, pos: Pos::default() };
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

/// What is written there; `None` after an error.
fn strategy(spec: &Fields<'_, '_>, name: &'static str, recreate: bool, report: &mut Report) -> Option<Strategy> {
    let Some(node) = spec.get(name) else { return Some(Strategy::Rolling(Rolling::default())) };
    let at = spec.at().field(name);
    let strategy = fields(node, at, STRATEGY, report)?;
    match strategy.text("type", report).as_deref() {
        None | Some("RollingUpdate") => {}
        Some("Recreate") if recreate => {
            if let Some(node) = strategy.get("rollingUpdate") {
                report.error(node.pos, at.field("rollingUpdate"), "does not go with the type Recreate: leave it out");
            }
            return Some(Strategy::Recreate);
        }
        Some("OnDelete") => {
            report.error(node.pos, at.field("type"), "OnDelete is not supported yet: write RollingUpdate");
            return None;
        }
        Some(other) => {
            let words = if recreate { "RollingUpdate or Recreate" } else { "RollingUpdate" };
            report.error(node.pos, at.field("type"), format!("{:?} is not a strategy: write {words}", cut(other)));
            return None;
        }
    }
    let Some(rolling) = strategy.get("rollingUpdate") else { return Some(Strategy::Rolling(Rolling::default())) };
    let here = at.field("rollingUpdate");
    let rolling = fields(rolling, here, ROLLING, report)?;
    let mut amount = |name| amount(rolling.get(name)?, here.field(name), report);
    Some(Strategy::Rolling(Rolling { surge: amount("maxSurge"), unavailable: amount("maxUnavailable") }))
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
