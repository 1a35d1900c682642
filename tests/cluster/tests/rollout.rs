//! Probes and rollouts: what counts as ready, what is restarted, and how one revision follows another.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use strata_testkit::{Cluster, HELLO, eventually};

/// A workload of the demo image: `main` and `probes` are further fields of its container, `spec` of the workload.
fn workload(name: &str, replicas: u32, container: &Value, spec: &Value) -> String {
    let mut main = json!({"name": "main", "image": HELLO});
    let mut object = json!({
        "kind": "Workload", "meta": {"name": name},
        "spec": {"replicas": replicas, "template": {"terminationGraceS": 1, "labels": {"app": name}}},
    });
    for (key, value) in container.as_object().into_iter().flatten() {
        main[key] = value.clone();
    }
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object["spec"]["template"]["containers"] = json!([main]);
    object.to_string()
}

fn sh(script: &str) -> Value {
    json!(["sh", "-c", script])
}

#[test]
fn readiness_follows_what_the_probes_say() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    // One of each kind, each in a container of its own; the file decides for the one that is asked by a command.
    let check = |check: Value| json!({"name": "x", "image": HELLO, "readiness": merge(&check, &json!({"periodS": 1}))});
    let mut command = check(json!({"exec": {"command": sh("cat /tmp/well")}}));
    command["name"] = json!("command");
    command["command"] = json!(["sleep", "1000"]);
    command["security"] = json!({"runAsUser": 0});
    let mut http = check(json!({"http": {"portName": "web", "path": "/"}}));
    http["name"] = json!("http");
    http["ports"] = json!([{"name": "web", "containerPort": 8080}]);
    let mut tcp = check(json!({"tcp": {"port": 8080}}));
    tcp["name"] = json!("tcp");
    tcp["command"] = json!(["sleep", "1000"]);
    let pod = json!({"kind": "Pod", "meta": {"name": "asked"}, "spec": {"template": {"terminationGraceS": 1, "containers": [command, http, tcp]}}});
    cluster.apply(&pod.to_string(), &[])?.ok()?;
    let ready = |s: &Value| -> Vec<bool> {
        s["containers"].as_array().into_iter().flatten().map(|c| c["ready"] == true).collect()
    };
    let asked = cluster.pod_until("asked", 60, |s| ready(s) == [false, true, true] && s["reason"] == "Unready")?;
    let status = &asked["status"];
    ensure!(status["ready"] == false && status["phase"] == "Running", "{status}");
    ensure!(status["message"].as_str().unwrap_or_default().contains("/tmp/well"), "the last answer is told: {status}");
    let touch = |c: &str| cluster.ctl(&["exec", "asked", "-c", "command", "--", "sh", "-c", c])?.ok();
    touch("touch /tmp/well")?;
    cluster.pod_until("asked", 60, |s| s["ready"] == true && s["reason"] == "")?;
    touch("rm /tmp/well")?;
    cluster.pod_until("asked", 60, |s| s["ready"] == false && s["reason"] == "Unready")?;
    ensure!(cluster.pod("asked")?["status"]["containers"][0]["restarts"] == 0, "nothing is restarted for it");
    cluster.delete(&["pod/asked"])
}

fn merge(a: &Value, b: &Value) -> Value {
    let mut merged = a.clone();
    for (key, value) in b.as_object().into_iter().flatten() {
        merged[key] = value.clone();
    }
    merged
}

#[test]
fn a_container_whose_liveness_probe_fails_is_restarted_and_says_why() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    // Its first run falls ill; the next ones find the mark in the writable layer, which stays, and are well.
    let container = json!({
        "command": sh("touch /tmp/runs; [ -e /tmp/second ] || { touch /tmp/second; sleep 1; touch /tmp/ill; }; trap 'rm -f /tmp/ill; exit 0' TERM; while true; do sleep 0.1; done"),
        "security": {"runAsUser": 0},
        "liveness": {"exec": {"command": sh("echo checked; ! ls /tmp/ill")}, "periodS": 1, "failureThreshold": 1},
    });
    cluster.apply(&workload("ill", 1, &container, &json!({})), &[])?.ok()?;
    let pod = eventually("ill was restarted", 60, || {
        let pods = cluster.pods("ill")?;
        let pod = pods.first().cloned().unwrap_or_default();
        let c = &pod["status"]["containers"][0];
        ensure!(c["restarts"] == 1 && c["state"] == "Running" && c["lastExit"]["reason"] == "LivenessFailed", "{pod}");
        Ok(pod)
    })?;
    ensure!(pod["status"]["attempt"] == 0 && pod["meta"]["name"] == "ill-0", "the same pod: {pod}");
    let events = cluster.ctl(&["events", "-o", "json"])?.ok()?.json()?;
    let told = events.as_array().into_iter().flatten().any(|e| {
        e["spec"]["reason"] == "LivenessFailed" && e["spec"]["message"].as_str().unwrap_or_default().contains("checked")
    });
    ensure!(told, "an event with the last answer: {events}");
    cluster.delete(&["workload/ill"])
}

#[test]
fn new_pods_that_are_not_ready_hold_a_rollout_up_and_the_old_ones_serve_on() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let container = |well: &str| {
        json!({
            "command": sh(&format!("{well}; sleep 1000")),
            "readiness": {"exec": {"command": ["cat", "/tmp/well"]}, "periodS": 1, "failureThreshold": 1},
            "security": {"runAsUser": 0},
        })
    };
    cluster
        .apply(&workload("gated", 2, &container("touch /tmp/well"), &json!({})), &["--wait", "--timeout", "60s"])?
        .ok()?;
    cluster.apply(&workload("gated", 2, &container("true"), &json!({})), &[])?.ok()?;
    let ready = |pods: &[Value]| pods.iter().filter(|p| p["status"]["ready"] == true).count();
    eventually("the new pod is there and not ready", 60, || {
        let pods = cluster.pods("gated")?;
        ensure!(pods.iter().any(|p| p["status"]["reason"] == "Unready"), "{pods:?}");
        ensure!(pods.len() == 3 && ready(&pods) == 2, "{} of {}", ready(&pods), pods.len());
        Ok(())
    })?;
    let pods = cluster.pods("gated")?;
    let held = pods.iter().find(|p| p["status"]["ready"] != true).cloned().unwrap_or_default();
    let name = held["meta"]["name"].as_str().unwrap_or_default().to_owned();
    cluster.exec(&name, &["touch", "/tmp/well"])?;
    eventually("an old pod made way for it", 60, || {
        let pods = cluster.pods("gated")?;
        let old = pods.iter().filter(|p| p["spec"]["templateRevision"] != held["spec"]["templateRevision"]).count();
        ensure!(old == 1, "{old} old ones are left");
        Ok(())
    })?;
    cluster.delete(&["workload/gated"])
}
