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

/// A workload whose pods are ready at once, or never; they end within a second when asked.
fn serving(ready: bool, word: &str) -> Value {
    let mark = if ready { "touch /tmp/well; " } else { "" };
    json!({
        "command": sh(&format!("{mark}echo {word}; trap 'exit 0' TERM; while true; do sleep 0.2; done")),
        "readiness": {"exec": {"command": ["cat", "/tmp/well"]}, "periodS": 1, "failureThreshold": 1},
        "security": {"runAsUser": 0},
    })
}

/// The pods of a workload that are not on their way out.
fn staying(cluster: &Cluster, name: &str) -> Result<Vec<Value>> {
    Ok(cluster.pods(name)?.into_iter().filter(|p| p["meta"]["deleted"].is_null()).collect())
}

fn status(cluster: &Cluster, name: &str) -> Result<Value> {
    Ok(cluster.ctl(&["get", "workload", name, "-o", "json"])?.ok()?.json()?["status"].clone())
}

/// The words that the ready pods of a workload were started with.
fn words(cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let pods = staying(cluster, name)?;
    let mut words = Vec::new();
    for pod in pods.iter().filter(|p| p["status"]["ready"] == true) {
        let name = pod["meta"]["name"].as_str().unwrap_or_default();
        words.push(cluster.ctl(&["logs", name])?.ok()?.stdout.trim().to_owned());
    }
    Ok(words)
}

#[test]
fn a_rollout_that_never_becomes_ready_is_taken_back_and_the_old_pods_serve_throughout() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let update = json!({"update": {"maxSurge": 1, "progressDeadlineS": 5}});
    cluster.apply(&workload("turned", 2, &serving(true, "one"), &update), &["--wait", "--timeout", "60s"])?.ok()?;
    let before: Vec<Value> = cluster.pods("turned")?.iter().map(|p| p["meta"]["uid"].clone()).collect();
    let run =
        cluster.apply(&workload("turned", 2, &serving(false, "two"), &update), &["--wait", "--timeout", "90s"])?;
    let run = run.code_is(1)?;
    ensure!(
        run.stderr.contains("RolloutFailed") && run.stderr.contains("/tmp/well"),
        "the pod's reason is told: {}",
        run.stderr
    );
    ensure!(run.stderr.contains("back at revision 1"), "{}", run.stderr);
    cluster.ctl(&["rollout", "status", "turned", "--timeout", "5s"])?.code_is(1)?;
    let pods = eventually("only the old pods are left", 60, || {
        let pods = cluster.pods("turned")?;
        ensure!(pods.len() == 2, "{} pods", pods.len());
        Ok(pods)
    })?;
    let after: Vec<Value> = pods.iter().map(|p| p["meta"]["uid"].clone()).collect();
    ensure!(before == after, "they were never replaced");
    ensure!(pods.iter().all(|p| p["status"]["ready"] == true), "and serve");
    let now = status(&cluster, "turned")?;
    ensure!(now["rollout"] == "Reverted" && now["reason"] == "RolloutFailed", "{now}");
    let events = cluster.ctl(&["events", "--for", "workload/turned"])?.ok()?.stdout;
    ensure!(events.contains("RolloutFailed"), "{events}");
    // The spec is still what was applied; applying what runs ends the matter.
    cluster.apply(&workload("turned", 2, &serving(true, "one"), &update), &["--wait", "--timeout", "60s"])?.ok()?;
    ensure!(status(&cluster, "turned")?["rollout"] == "Complete");
    cluster.delete(&["workload/turned"])
}

#[test]
fn history_undo_restart_pause_and_resume() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let apply = |word: &str| {
        let args = ["--wait", "--timeout", "60s"];
        cluster.apply(&workload("past", 1, &serving(true, word), &json!({})), &args)?.ok()
    };
    apply("one")?;
    apply("two")?;
    let history = |cluster: &Cluster| cluster.ctl(&["rollout", "history", "past", "-o", "json"])?.ok()?.json();
    let numbers = |history: &Value| -> Vec<String> {
        let number = |r: &Value| {
            format!("{}{}", r["number"].as_str().unwrap_or("?"), if r["complete"] == true { "" } else { "!" })
        };
        history.as_array().into_iter().flatten().map(number).collect()
    };
    ensure!(numbers(&history(&cluster)?) == ["1", "2"], "{}", history(&cluster)?);
    cluster.ctl(&["rollout", "undo", "past", "--wait", "--timeout", "60s"])?.ok()?;
    ensure!(words(&cluster, "past")? == ["one"]);
    ensure!(numbers(&history(&cluster)?) == ["2", "3"], "what comes back is the newest: {}", history(&cluster)?);
    cluster.ctl(&["rollout", "undo", "past", "--to", "2", "--wait", "--timeout", "60s"])?.ok()?;
    ensure!(words(&cluster, "past")? == ["two"]);
    cluster.ctl(&["rollout", "undo", "past", "--to", "77"])?.code_is(3)?;

    let uid = |cluster: &Cluster| -> Result<Value> { Ok(cluster.running("past", 1, 60)?[0]["meta"]["uid"].clone()) };
    let before = uid(&cluster)?;
    cluster.ctl(&["rollout", "restart", "past", "--wait", "--timeout", "60s"])?.ok()?;
    let restarted = uid(&cluster)?;
    ensure!(restarted != before && words(&cluster, "past")? == ["two"]);

    cluster.ctl(&["rollout", "pause", "past"])?.ok()?;
    let paused = workload("past", 1, &serving(true, "three"), &json!({"paused": true}));
    cluster.apply(&paused, &[])?.ok()?;
    eventually("the change is held back", 60, || {
        let now = status(&cluster, "past")?;
        ensure!(now["rollout"] == "Paused", "{now}");
        Ok(())
    })?;
    ensure!(uid(&cluster)? == restarted, "nothing has moved");
    cluster.ctl(&["rollout", "resume", "past"])?.ok()?;
    cluster.ctl(&["rollout", "status", "past", "--timeout", "60s"])?.ok()?;
    ensure!(words(&cluster, "past")? == ["three"]);
    cluster.delete(&["workload/past"])
}

#[test]
fn slots_come_and_go_in_order_and_keep_their_names() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let apply = |replicas: u32, word: &str| {
        let mut container = serving(true, word);
        container["mounts"] = json!([{"volume": "data", "path": "/data"}]);
        let spec = json!({"ordered": true, "volumeTemplates": [{"name": "data"}]});
        let manifest = workload("slot", replicas, &container, &spec);
        cluster.apply(&manifest, &["--wait", "--timeout", "90s"])?.ok()
    };
    let names = |cluster: &Cluster| -> Result<Vec<String>> {
        let mut names: Vec<String> = staying(cluster, "slot")?
            .iter()
            .map(|p| p["meta"]["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        names.sort();
        Ok(names)
    };
    apply(3, "one")?;
    let pods = cluster.running("slot", 3, 60)?;
    ensure!(names(&cluster)? == ["slot-0", "slot-1", "slot-2"], "{:?}", names(&cluster)?);
    let made = |n: usize| {
        let pod = pods.iter().find(|p| p["meta"]["name"] == format!("slot-{n}"));
        pod.map(|p| p["meta"]["created"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    ensure!(made(0) < made(1) && made(1) < made(2), "one after another: {} {} {}", made(0), made(1), made(2));
    ensure!(cluster.exec("slot-1", &["hostname"])?.trim() == "slot-1");
    for n in ["0", "1", "2"] {
        cluster.exec(&format!("slot-{n}"), &["sh", "-c", &format!("echo {n} > /data/mine")])?;
    }
    apply(3, "two")?;
    ensure!(names(&cluster)? == ["slot-0", "slot-1", "slot-2"] && words(&cluster, "slot")? == ["two", "two", "two"]);
    for n in ["0", "1", "2"] {
        let kept = cluster.exec(&format!("slot-{n}"), &["cat", "/data/mine"])?;
        ensure!(kept.trim() == n, "each slot has its own volume again: {kept}");
    }
    apply(1, "two")?;
    ensure!(names(&cluster)? == ["slot-0"], "{:?}", names(&cluster)?);
    cluster.delete(&["workload/slot"])?;
    let volumes = cluster.list("volumes")?;
    let of_slot = volumes.iter().filter(|v| v["meta"]["labels"]["strata.dev/workload"] == "slot").count();
    ensure!(of_slot == 3, "they stay when the workload goes: {volumes:?}");
    for n in 0..3 {
        cluster.ctl(&["delete", "volume", &format!("data-slot-{n}")])?.ok()?;
    }
    Ok(())
}

/// Puts everything back to how tests expect the nodes, whatever happened.
struct Opened<'a>(&'a Cluster, &'a [&'a str]);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        for node in self.1 {
            self.0.ctl(&["node", "uncordon", node]).ok();
        }
    }
}

#[test]
fn a_drained_node_gives_its_pods_away_one_serving_replacement_at_a_time() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let _opened = Opened(&cluster, &["node-2"]);
    cluster.apply(&workload("moved", 3, &serving(true, "x"), &json!({})), &["--wait", "--timeout", "60s"])?.ok()?;
    let spec = json!({"mode": "Global", "replicas": null});
    cluster.apply(&workload("stays", 1, &serving(true, "y"), &spec), &["--wait", "--timeout", "60s"])?.ok()?;
    let on = |cluster: &Cluster, workload: &str| -> Result<usize> {
        Ok(cluster.pods(workload)?.iter().filter(|p| p["spec"]["node"] == "node-2").count())
    };
    ensure!(on(&cluster, "moved")? == 1, "they are spread");
    cluster.ctl(&["node", "drain", "node-2", "--timeout", "60s"])?.ok()?;
    ensure!(on(&cluster, "moved")? == 0 && on(&cluster, "stays")? == 1);
    ensure!(cluster.running("moved", 3, 60)?.len() == 3);
    let nodes = cluster.ctl(&["get", "nodes"])?.ok()?.stdout;
    ensure!(nodes.contains("Unschedulable"), "{nodes}");
    cluster.ctl(&["node", "uncordon", "node-2"])?.ok()?;
    cluster.delete(&["workload/moved", "workload/stays"])
}

#[test]
fn a_drain_that_has_nowhere_to_go_says_so_and_stops_nothing() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let _opened = Opened(&cluster, &["node-1", "node-2", "node-3"]);
    for node in ["node-2", "node-3"] {
        cluster.ctl(&["node", "cordon", node])?.ok()?;
    }
    cluster.apply(&workload("stuck", 2, &serving(true, "x"), &json!({})), &["--wait", "--timeout", "60s"])?.ok()?;
    let before: Vec<Value> = cluster.running("stuck", 2, 60)?.iter().map(|p| p["meta"]["uid"].clone()).collect();
    let run = cluster.ctl(&["node", "drain", "node-1", "--timeout", "120s"])?.code_is(1)?;
    ensure!(run.stderr.contains("pod default/stuck-") && run.stderr.contains("fits nowhere"), "{}", run.stderr);
    let run = cluster.ctl(&["node", "drain", "node-1", "--timeout", "0s"])?.code_is(6)?;
    ensure!(run.stderr.contains("stuck-"), "{}", run.stderr);
    let pods = cluster.pods("stuck")?;
    let serve: Vec<Value> =
        pods.iter().filter(|p| p["status"]["ready"] == true).map(|p| p["meta"]["uid"].clone()).collect();
    ensure!(before == serve, "nothing was stopped: {pods:?}");
    cluster.ctl(&["node", "uncordon", "node-1"])?.ok()?;
    cluster.running("stuck", 2, 60)?;
    cluster.delete(&["workload/stuck"])
}
