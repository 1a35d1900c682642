//! The alert rules and dashboards ask only for metrics that exist.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use serde_json::Value;
use std::{collections::BTreeSet, fs, path::PathBuf};
use strata_telemetry::metrics::{ALL, Type};

fn deploy() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Words of a query that can only be names of metrics.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|w| w.starts_with("strata_") || w.starts_with("process_")).map(str::to_owned).collect()
}

fn check(file: &str, query: &str) {
    let found = names(query);
    // Prometheus makes `up` itself.
    assert!(!found.is_empty() || query.contains("up{"), "{file}: {query} asks for nothing of Strata's");
    for name in found {
        let family = |of: Type, name: &str| ALL.iter().any(|m| m.name == name && m.of == of);
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let exists = family(Type::Gauge, &name)
            || family(Type::Counter, &name)
            || of_histogram.is_some_and(|name| family(Type::Histogram, name));
        assert!(exists, "{file}: {query}: no such metric: {name}");
        if family(Type::Counter, &name) {
            assert!(query.contains("rate(") || query.contains("increase("), "{file}: {query}: a counter only grows");
        }
    }
}

fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "expr" || key == "definition" => found.push(text.clone()),
                    value => queries(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

#[test]
fn dashboards_ask_for_metrics_that_exist() {
    let mut asked = 0;
    for entry in fs::read_dir(deploy().join("grafana")).unwrap() {
        let path = entry.unwrap().path();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut found = Vec::new();
        queries(&dashboard, &mut found);
        assert!(found.len() > 10, "{}", path.display());
        found.iter().for_each(|query| check(&path.display().to_string(), query));
        asked += found.len();
    }
    assert!(asked > 40);
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    let text = fs::read_to_string(deploy().join("prometheus/alerts.yml")).unwrap();
    let exprs: Vec<&str> = text.lines().filter_map(|l| l.trim_start().strip_prefix("expr: ")).collect();
    assert!(exprs.len() >= 15 && exprs.len() == text.matches("- alert:").count());
    exprs.iter().for_each(|query| check("alerts.yml", query));
}

#[test]
fn every_metric_is_shown_somewhere() {
    let mut shown = names(&fs::read_to_string(deploy().join("prometheus/alerts.yml")).unwrap());
    for entry in fs::read_dir(deploy().join("grafana")).unwrap() {
        shown.extend(names(&fs::read_to_string(entry.unwrap().path()).unwrap()));
    }
    // What every client library exports; general dashboards show it.
    let general =
        ["strata_build_info", "process_virtual_memory_bytes", "process_max_fds", "process_start_time_seconds"];
    for metric in ALL.iter().filter(|m| !general.contains(&m.name)) {
        let found = shown.iter().any(|name| {
            name == metric.name || ["_bucket", "_count"].iter().any(|end| name.strip_suffix(end) == Some(metric.name))
        });
        assert!(found, "{} is on no dashboard and in no alert", metric.name);
    }
}
