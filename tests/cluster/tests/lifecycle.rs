//! Life cycle by hand: stop, start, restart and kill of pods and workloads.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use strata_testkit::{Cluster, eventually};

/// A workload of the demo image that notes each start of its container in its writable layer.
fn workload(name: &str, replicas: u32) -> String {
    let script =
        "echo start >>/starts; trap 'exit 0' TERM; trap 'echo hup >>/hups' HUP; while :; do sleep 1 & wait $!; done";
    let script = Value::from(script);
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 20\n      containers:\n      - {{name: c, image: 'hello:1', securityContext: {{runAsUser: 0}}, command: [sh, -c, {script}]}}\n"
    )
}

/// What of a pod must not change by a stop and a start.
fn place(pod: &Value) -> Value {
    let (meta, status) = (&pod["meta"], &pod["status"]);
    serde_json::json!([meta["uid"], status["node"], status["address"], pod["spec"]["templateRevision"]])
}

fn lines(cluster: &Cluster, pod: &str, file: &str) -> Result<usize> {
    Ok(cluster.exec(pod, &["cat", file])?.lines().count())
}

#[test]
fn a_stopped_pod_keeps_its_place_its_address_and_its_files() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("halt", 2), &["--wait", "--timeout", "60s"])?.ok()?;
    let before = cluster.running("halt", 2, 60)?;
    let name = before[0]["meta"]["name"].as_str().context("name")?.to_owned();
    cluster.exec(&name, &["sh", "-c", "echo kept >/kept"])?;

    cluster.ctl(&["stop", &name])?.ok()?;
    let stopped = cluster.pod(&name)?;
    let status = &stopped["status"];
    ensure!(status["phase"] == "Exited" && status["reason"] == "Stopped", "{status}");
    ensure!(status["containers"][0]["exitCode"] == 0, "it was not asked to end but killed: {status}");
    ensure!(place(&stopped) == place(&before[0]), "{stopped}");
    // It still counts: nothing takes its place, and it is listed.
    let listed = cluster.pods("halt")?;
    ensure!(listed.len() == 2 && listed.iter().any(|p| p["meta"]["name"] == name.as_str()), "{listed:?}");
    let refused = cluster.ctl(&["exec", &name, "--", "true"])?.code_is(125)?;
    ensure!(refused.stderr.contains("stopped"), "{}", refused.stderr);

    cluster.ctl(&["start", &name])?.ok()?;
    let started = cluster.pod_until(&name, 60, |s| s["phase"] == "Running")?;
    ensure!(place(&started) == place(&before[0]), "{started}");
    ensure!(cluster.exec(&name, &["cat", "/kept"])? == "kept\n");
    ensure!(lines(&cluster, &name, "/starts")? == 2);
    ensure!(cluster.pods("halt")?.len() == 2);
    cluster.delete(&["workload/halt"])
}

#[test]
fn a_workload_stops_and_starts_as_a_whole() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("nap", 2), &["--wait", "--timeout", "60s"])?.ok()?;
    let before: Vec<Value> = cluster.running("nap", 2, 60)?.iter().map(place).collect();
    // A bare name that no pod has is a workload's.
    cluster.ctl(&["stop", "nap"])?.ok()?;
    let asleep = |pods: &[Value]| pods.iter().all(|p| p["status"]["reason"] == "Stopped");
    let pods = cluster.pods("nap")?;
    ensure!(pods.len() == 2 && asleep(&pods), "{pods:?}");
    // One pod of it does not start by itself; new ones begin stopped.
    let one = pods[0]["meta"]["name"].as_str().context("name")?;
    let refused = cluster.ctl(&["start", &format!("pod/{one}")])?.code_is(1)?;
    ensure!(refused.stderr.contains("start workload/nap"), "{}", refused.stderr);
    cluster.ctl(&["scale", "nap", "--replicas", "3"])?.ok()?;
    eventually("a third pod that is stopped, too", 60, || {
        let pods = cluster.pods("nap")?;
        ensure!(pods.len() == 3 && asleep(&pods), "{pods:?}");
        Ok(())
    })?;
    cluster.ctl(&["start", "workload/nap"])?.ok()?;
    let after: Vec<Value> = cluster.running("nap", 3, 60)?.iter().map(place).collect();
    ensure!(before.iter().all(|b| after.contains(b)), "{before:?} {after:?}");
    cluster.delete(&["workload/nap"])
}

fn netns(cluster: &Cluster) -> Result<String> {
    Ok(cluster.ctl(&["exec", "again", "-c", "a", "--", "stat", "-c", "%N", "/proc/self/ns/net"])?.ok()?.stdout)
}

#[test]
fn a_restart_keeps_the_sandbox_and_is_counted() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: again}\nspec:\n  restartPolicy: Never\n  containers:\n  - {name: a, image: 'hello:1', command: [sleep, '1000']}\n  - {name: b, image: 'hello:1', command: [sleep, '1000']}\n";
    cluster.apply(pod, &["--wait", "--timeout", "60s"])?.ok()?;
    let before = cluster.pod("again")?;
    let before_netns = netns(&cluster)?;
    // `sleep` as process 1 does not hear SIGTERM: grace 0 kills it at once. The policy Never does not stop a restart.
    cluster.ctl(&["restart", "again", "-c", "a", "-t", "0"])?.ok()?;
    let after = cluster
        .pod_until("again", 60, |s| s["containers"][0]["restarts"] == 1 && s["containers"][0]["state"] == "Running")?;
    let restarts = |pod: &Value, i: usize| pod["status"]["containers"][i]["restarts"].clone();
    let pid = |pod: &Value, i: usize| pod["status"]["containers"][i]["pid"].clone();
    ensure!(restarts(&after, 0) == 1 && restarts(&after, 1) == 0, "{after}");
    ensure!(pid(&after, 0) != pid(&before, 0) && pid(&after, 1) == pid(&before, 1), "{before} {after}");
    ensure!(after["status"]["attempt"] == before["status"]["attempt"] && place(&after) == place(&before), "{after}");
    ensure!(netns(&cluster)? == before_netns);
    cluster.delete(&["pod/again"])
}

#[test]
fn kill_sends_any_signal_to_the_first_process() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("hear", 1), &["--wait", "--timeout", "60s"])?.ok()?;
    let name = cluster.running("hear", 1, 60)?[0]["meta"]["name"].as_str().context("name")?.to_owned();
    eventually("the container is set up", 30, || lines(&cluster, &name, "/starts"))?;
    cluster.ctl(&["kill", "-s", "HUP", "workload/hear"])?.ok()?;
    eventually("SIGHUP is heard", 30, || lines(&cluster, &name, "/hups"))?;
    // The default is SIGKILL; its policy starts it again.
    cluster.ctl(&["kill", &name])?.ok()?;
    let again = cluster
        .pod_until(&name, 60, |s| s["containers"][0]["restarts"] == 1 && s["containers"][0]["state"] == "Running")?;
    ensure!(again["status"]["containers"][0]["lastExit"]["exitCode"] == 137, "{again}");
    let unknown = cluster.ctl(&["kill", "no-such-thing"])?.code_is(3)?;
    ensure!(unknown.stderr.contains("neither a pod nor a workload"), "{}", unknown.stderr);
    cluster.ctl(&["kill", "-s", "NOPE", &name])?.code_is(2)?;
    cluster.delete(&["workload/hear"])
}
