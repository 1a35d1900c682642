//! A controller that goes away and comes back: what people see meanwhile, and how soon all is as before.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{fs, process::Command};
use strata_testkit::{Cluster, eventually};

fn fetch(url: &str) -> Result<String> {
    let output = Command::new("curl").args(["-sf", "--max-time", "5", url]).output()?;
    ensure!(output.status.success(), "{url}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn identities(pods: &[Value]) -> Vec<String> {
    let one = |p: &Value| {
        let c = &p["status"]["containers"][0];
        format!("{} {} {} {}", p["meta"]["uid"], c["pid"], c["restarts"], p["status"]["attempt"])
    };
    let mut all: Vec<String> = pods.iter().map(one).collect();
    all.sort();
    all
}

/// Seconds of the day of a log line, which begins with its time (RFC 3339).
fn seconds(line: &str) -> Option<f64> {
    let time = line.split('T').nth(1)?.split('Z').next()?;
    let mut parts = time.split(':').map(|p| p.parse::<f64>().ok());
    Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
}

#[test]
fn sessions_come_back_within_two_seconds_and_no_pod_restarts() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let manifest = "kind: Workload\nmeta: {name: through}\nspec:\n  replicas: 6\n  template:\n    terminationGraceS: 0\n    containers: [{name: c, image: 'hello:1'}]\n";
    cluster.apply(manifest, &["--wait", "--timeout", "60s"])?.ok()?;
    let before = identities(&cluster.running("through", 6, 5)?);
    let status = cluster.status()?;
    let nodes = status["nodes"].as_array().context("nodes")?.len();
    cluster.kill9(u32::try_from(status["controller"]["pid"].as_u64().context("pid")?)?)?;
    for args in [
        &["get", "pods"][..],
        &["logs", "workload/through"],
        &["scale", "through", "--replicas", "7"],
        &["image", "ls"],
    ] {
        let run = cluster.ctl(args)?.code_is(5)?;
        ensure!(run.stdout.is_empty(), "{}", run.stdout);
        let address = status["controller"]["address"].as_str().context("address")?;
        ensure!(run.stderr.contains(address) && run.stderr.contains("check that it is running"), "{}", run.stderr);
    }
    cluster.up()?;
    let metrics = status["controller"]["metrics"].as_str().context("metrics")?;
    eventually("every agent has its session again", 10, || {
        let text = fetch(metrics)?;
        ensure!(text.contains(&format!("strata_controller_sessions {nodes}\n")), "{text}");
        Ok(())
    })?;
    let log = fs::read_to_string(cluster.home().join("controller.log"))?;
    let last: Vec<&str> = log.rsplit_once("serving address").context("no start in the log")?.1.lines().collect();
    let start = log.lines().rfind(|l| l.contains("serving address")).and_then(seconds).context("time of the start")?;
    let back: Vec<f64> = last.iter().filter(|l| l.contains("agent connected")).filter_map(|l| seconds(l)).collect();
    ensure!(back.len() >= nodes, "{} of {nodes} connected", back.len());
    // Over midnight the times begin anew.
    let slowest = back.iter().map(|at| (at - start).rem_euclid(86_400.0)).fold(0.0, f64::max);
    ensure!(slowest < 2.5, "the last session came back after {slowest} s");
    ensure!(identities(&cluster.running("through", 6, 10)?) == before, "pods changed");
    cluster.delete(&["workload/through"])
}

#[test]
fn metrics_are_served_where_the_status_says() -> Result<()> {
    let cluster = Cluster::here()?;
    let status = cluster.status()?;
    let text = fetch(status["controller"]["metrics"].as_str().context("metrics")?)?;
    for name in [
        "strata_controller_objects{kind=\"Node\"} ",
        "strata_controller_nodes{phase=\"Ready\"} ",
        "strata_controller_store_commit_seconds_bucket{le=\"+Inf\"} ",
        "strata_controller_schedule_seconds_count ",
    ] {
        ensure!(text.contains(name), "{name} in {text}");
    }
    for node in status["nodes"].as_array().context("nodes")? {
        let text = fetch(node["metrics"].as_str().context("metrics")?)?;
        ensure!(text.contains("strata_agent_session_up 1\n"), "{text}");
    }
    Ok(())
}

#[test]
fn what_get_prints_can_be_edited_and_applied() -> Result<()> {
    let cluster = Cluster::here()?;
    let manifest = |labels: &str| {
        format!(
            "kind: Workload\nmeta: {{name: edited, labels: {{{labels}}}}}\nspec:\n  replicas: 0\n  template:\n    containers: [{{name: c, image: 'hello:1'}}]\n"
        )
    };
    cluster.apply(&manifest("tier: front, team: a"), &[])?.ok()?;
    let yaml = eventually("the workload is settled", 10, || {
        let yaml = cluster.ctl(&["get", "workload", "edited", "-o", "yaml"])?.ok()?.stdout;
        let again = cluster.apply(&yaml, &[])?.ok()?;
        ensure!(again.stdout.contains("unchanged"), "{}", again.stdout);
        Ok(yaml)
    })?;
    ensure!(!yaml.contains("traceParent"), "{yaml}");
    // A label that the manifest no longer has goes.
    cluster.apply(&manifest("tier: back"), &[])?.ok()?;
    let labels = cluster.ctl(&["get", "workload", "edited", "-o", "json"])?.ok()?.json()?["meta"]["labels"].clone();
    ensure!(labels == serde_json::json!({"tier": "back"}), "{labels}");
    // Deployments of Kubernetes are no different.
    cluster.delete(&["workload/edited"])
}
