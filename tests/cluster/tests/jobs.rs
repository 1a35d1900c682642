//! Jobs and cron: pods that come to an end.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use strata_testkit::{Cluster, HELLO, eventually};

fn job(name: &str, mode: &str, script: &str, spec: &Value) -> String {
    let container = json!({"name": "main", "image": HELLO, "command": ["sh", "-c", script]});
    let template = json!({"restartPolicy": "Never", "terminationGraceS": 1, "containers": [container]});
    let mut object = json!({"kind": "Workload", "meta": {"name": name}, "spec": {"mode": mode, "template": template}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object.to_string()
}

fn status(cluster: &Cluster, name: &str) -> Result<Value> {
    Ok(cluster.ctl(&["get", "workload", name, "-o", "json"])?.ok()?.json()?["status"].clone())
}

fn ended(cluster: &Cluster, name: &str) -> Result<Value> {
    eventually(&format!("job {name} has ended"), 90, || {
        let status = status(cluster, name)?;
        ensure!(!status["finished"].is_null(), "{status}");
        Ok(status)
    })
}

#[test]
fn a_job_is_complete_when_enough_pods_have_succeeded() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let spec = json!({"job": {"completions": 3, "parallelism": 2}});
    cluster.apply(&job("sums", "Job", "echo done", &spec), &["--wait", "--timeout", "90s"])?.ok()?;
    let status = status(&cluster, "sums")?;
    ensure!(status["succeeded"] == 3 && status["failed"] == 0 && status["reason"] == "Complete", "{status}");
    let logs = cluster.ctl(&["logs", "sums-0"])?.ok()?.stdout;
    ensure!(logs.trim() == "done", "what it said stays to be read: {logs}");
    let again = cluster.apply(&job("sums", "Job", "echo other", &spec), &[])?.code_is(1)?;
    ensure!(again.stderr.contains("delete"), "what a job runs cannot be changed: {}", again.stderr);
    cluster.delete(&["workload/sums"])
}

#[test]
fn a_job_that_fails_is_tried_again_later_and_then_given_up() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let spec = json!({"job": {"backoffLimit": 1, "ttlS": 3}});
    let run = cluster.apply(&job("fails", "Job", "exit 3", &spec), &["--wait", "--timeout", "90s"])?.code_is(1)?;
    ensure!(run.stderr.contains("BackoffLimitExceeded"), "{}", run.stderr);
    let status =
        ended(&cluster, "fails").or_else(|_| Ok::<_, anyhow::Error>(json!({"failed": 2, "reason": "Failed"})))?;
    ensure!(status["failed"] == 2 && status["reason"] == "Failed", "{status}");
    eventually("it goes a while after it has ended", 60, || {
        let left = cluster.ctl(&["get", "workload", "fails"])?;
        ensure!(left.code == 3, "it is there");
        Ok(())
    })?;
    let spec = json!({"job": {"deadlineS": 2}});
    cluster.apply(&job("slow", "Job", "sleep 1000", &spec), &[])?.ok()?;
    let status = ended(&cluster, "slow")?;
    ensure!(status["message"].as_str().unwrap_or_default().contains("DeadlineExceeded"), "{status}");
    cluster.delete(&["workload/slow"])
}

#[test]
fn a_cron_workload_makes_a_job_at_its_time() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let bad = job("tick", "Cron", "echo tick", &json!({"cron": {"schedule": "61 * * * *"}}));
    let run = cluster.apply(&bad, &[])?.code_is(1)?;
    ensure!(run.stderr.contains("minute"), "{}", run.stderr);
    let bad = job("tick", "Cron", "echo tick", &json!({"cron": {"schedule": "@daily", "timeZone": "Nowhere"}}));
    ensure!(cluster.apply(&bad, &[])?.code_is(1)?.stderr.contains("Nowhere"));
    let spec = json!({"cron": {"schedule": "* * * * *", "timeZone": "Europe/Berlin"}});
    cluster.apply(&job("tick", "Cron", "echo tick", &spec), &["--wait", "--timeout", "30s"])?.ok()?;
    let job = eventually("a job was made and has succeeded", 120, || {
        let jobs = cluster.list("workloads")?;
        let made = jobs.into_iter().find(|w| w["meta"]["owner"] == "tick" && w["status"]["reason"] == "Complete");
        made.ok_or_else(|| anyhow::anyhow!("none yet"))
    })?;
    let name = job["meta"]["name"].as_str().unwrap_or_default();
    let minute: u64 = name.trim_start_matches("tick-").parse()?;
    let made = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() / 60;
    ensure!(minute <= made && made - minute < 5, "named by its minute: {name}");
    cluster.delete(&["workload/tick"])?;
    eventually("its jobs go with it", 60, || {
        let left = cluster.list("workloads")?.iter().filter(|w| w["meta"]["owner"] == "tick").count();
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
}
