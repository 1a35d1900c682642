//! A backup of the running cluster, and a controller that is built anew from it while the containers run on.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};
use strata_testkit::{Cluster, Run, eventually};

fn identities(pods: &[Value]) -> Vec<String> {
    let one = |p: &Value| {
        let c = &p["status"]["containers"][0];
        format!("{} {} {} {}", p["meta"]["uid"], c["pid"], c["restarts"], p["status"]["attempt"])
    };
    let mut all: Vec<String> = pods.iter().map(one).collect();
    all.sort();
    all
}

fn stop_controller(cluster: &Cluster) -> Result<()> {
    let pid = cluster.status()?["controller"]["pid"].as_u64().context("pid")?;
    cluster.kill9(u32::try_from(pid)?)
}

fn restore(cluster: &Cluster, file: &str) -> Result<Run> {
    let mut command = Command::new(cluster.home().join("bin/strata-controller"));
    command.args(["restore", "--config"]).arg(cluster.home().join("controller.toml")).arg(file);
    Run::of(command, "")
}

#[test]
fn a_controller_is_built_anew_from_a_backup_and_no_container_restarts() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    // "swordfish-in-a-store" in base64, as manifests have it.
    let secret = "kind: Secret\nmeta: {name: kept-secret}\nspec: {data: {word: c3dvcmRmaXNoLWluLWEtc3RvcmU=}}\n";
    cluster.apply(secret, &[])?.ok()?;
    let manifest = "kind: Workload\nmeta: {name: kept}\nspec:\n  replicas: 6\n  template:\n    terminationGraceS: 0\n    containers: [{name: c, image: 'hello:1', env: [{name: WORD, secret: {name: kept-secret, key: word}}]}]\n";
    cluster.apply(manifest, &["--wait", "--timeout", "60s"])?.ok()?;
    let before = identities(&cluster.running("kept", 6, 10)?);
    let file = cluster.home().join("cluster.backup");
    let path = file.to_str().context("path")?;

    // Taken while the cluster changes.
    let is_over = AtomicBool::new(false);
    let taken = thread::scope(|scope| {
        let load = scope.spawn(|| {
            for i in 0.. {
                if is_over.load(Relaxed) {
                    return;
                }
                let text = format!("kind: Namespace\nmeta: {{name: load, labels: {{round: 'r{i}'}}}}\n");
                cluster.apply(&text, &[]).and_then(Run::ok).ok();
            }
        });
        let taken = (0..3).map(|_| cluster.ctl(&["system", "backup", path])?.ok()).collect::<Result<Vec<_>>>();
        is_over.store(true, Relaxed);
        load.join().ok();
        taken
    })?;
    ensure!(taken.iter().all(|run| run.stdout.contains("objects as of revision")), "{taken:?}");
    cluster.ctl(&["delete", "namespace", "load"])?;
    let bytes = fs::read(&file)?;
    for clear in ["PRIVATE KEY", "swordfish-in-a-store", "c3dvcmRmaXNoLWluLWEtc3RvcmU"] {
        ensure!(!bytes.windows(clear.len()).any(|w| w == clear.as_bytes()), "{clear} is in the backup");
    }

    // What is in it can be applied to any cluster.
    let run = cluster.ctl(&["system", "restore", path, "--dry-run"])?.ok()?;
    ensure!(run.stdout.contains("workload/kept unchanged"), "{}", run.stdout);

    let store = cluster.home().join("controller/store");
    let old = cluster.home().join("controller/store.old");
    let damaged = cluster.home().join("damaged.backup");
    let mut bad = bytes.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&damaged, bad)?;
    let in_use = restore(&cluster, path)?;
    ensure!(in_use.code != 0 && in_use.stderr.contains("another controller uses"), "{}", in_use.stderr);
    stop_controller(&cluster)?;
    let tested = (|| {
        let full = restore(&cluster, path)?;
        ensure!(full.code != 0 && full.stderr.contains("is not empty"), "{}", full.stderr);
        fs::rename(&store, &old)?;
        let refused = restore(&cluster, damaged.to_str().context("path")?)?;
        ensure!(refused.code != 0 && refused.stderr.contains("damaged"), "{}", refused.stderr);
        ensure!(!store.exists(), "a damaged backup left a store");
        let restored = restore(&cluster, path)?.ok()?;
        ensure!(restored.stdout.contains("restored "), "{}", restored.stdout);
        Ok(())
    })();
    if tested.is_err() && old.exists() && !store.exists() {
        fs::rename(&old, &store)?;
    }
    cluster.up()?;
    tested?;
    eventually("every pod is known as before", 60, || {
        let now = identities(&cluster.running("kept", 6, 1)?);
        ensure!(now == before, "{now:?}\n{before:?}");
        Ok(())
    })?;
    // And it can be worked with.
    cluster.ctl(&["scale", "kept", "--replicas", "7"])?.ok()?;
    let pods = cluster.running("kept", 7, 60)?;
    let new = pods
        .iter()
        .find(|p| !before.iter().any(|b| Some(b.as_str()) == identities(&[(*p).clone()]).first().map(String::as_str)));
    let new = new.and_then(|p| p["meta"]["name"].as_str()).context("no new pod")?;
    ensure!(cluster.exec(new, &["env"])?.contains("WORD=swordfish-in-a-store"), "the secret is not what it was");
    cluster.delete(&["workload/kept"])?;
    cluster.ctl(&["delete", "secret", "kept-secret"])?.ok()?;
    cluster.ctl(&["delete", "namespace", "load"])?;
    fs::remove_dir_all(old)?;
    fs::remove_file(damaged)?;
    fs::remove_file(file)?;
    Ok(())
}
