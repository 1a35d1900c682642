//! `healthcheck`: a service that fails it gets no connections. As in Docker, it is not restarted.

use strata_proto::types::{ExecCheck, Probe, probe::Check};

use super::loose;
use crate::{
    read::{EXTENSION, Fields, fields},
    report::Report,
    table::{Class::Read, Table},
    tree::Value,
};

const HEALTH: Table = &[
    ("test", Read),
    ("disable", Read),
    ("interval", Read),
    ("timeout", Read),
    ("retries", Read),
    ("start_period", Read),
    ("start_interval", Read),
    (EXTENSION, Read),
];

/// Docker's defaults, seconds.
const INTERVAL_S: u32 = 30;
const TIMEOUT_S: u32 = 30;
/// Between two checks of a service that has not been ready yet, if the file does not say.
const STARTING_MAX_S: u32 = 10;

/// The readiness probe of a service; `None` if it has none.
pub(crate) fn read(of: &Fields<'_, '_>, report: &mut Report) -> Option<Probe> {
    let node = of.get("healthcheck")?;
    let at = of.at().field("healthcheck");
    let health = fields(node, at, HEALTH, report)?;
    let interval = loose::seconds(&health, "interval", report).unwrap_or(INTERVAL_S).max(1);
    let timeout = loose::seconds(&health, "timeout", report).unwrap_or(TIMEOUT_S).max(1);
    let retries = loose::number(&health, "retries", 1000, report).unwrap_or(3).max(1);
    // Failures while it starts count for nothing here either: a pod that was never ready stays not ready.
    let starting = loose::seconds(&health, "start_interval", report);
    loose::seconds(&health, "start_period", report);
    if health.flag("disable", report).unwrap_or_default() {
        return None;
    }
    let test = health.require("test", report)?;
    let here = at.field("test");
    let command = match &test.value {
        Value::List(_) => {
            let words: Vec<String> = loose::texts(&health, "test", report).into_iter().map(|(text, _)| text).collect();
            match (words.first().map(String::as_str), words.len()) {
                (Some("NONE"), 1) => return None,
                (Some("CMD"), 2..) => words[1..].to_vec(),
                (Some("CMD-SHELL"), 2) => shell(&words[1]),
                _ => {
                    let message = "is [CMD, COMMAND, ARGUMENT...], [CMD-SHELL, LINE] or [NONE]";
                    report.error(test.pos, here, message);
                    return None;
                }
            }
        }
        _ => shell(&loose::text(test, here, report)?),
    };
    // A probe has one period, and Docker's long interval would keep a fresh service out for as long: it is asked more often, and as many
    // failures more count as fit into the same time.
    let period = interval.min(starting.map_or(STARTING_MAX_S, |s| s.max(1)));
    Some(Probe {
        check: Some(Check::Exec(ExecCheck { command })),
        initial_delay_s: 0,
        period_s: period,
        timeout_s: timeout,
        success_threshold: 0,
        failure_threshold: retries.saturating_mul(interval.div_ceil(period)),
    })
}

fn shell(line: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()]
}
