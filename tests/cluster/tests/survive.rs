//! What the cluster survives: kill -9 of every part, a cut network, a reboot.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};
use strata_testkit::{Cluster, Node, eventually};

fn workload(name: &str, replicas: u32, selector: &str) -> String {
    format!(
        "kind: Workload\nmeta: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  template:\n    terminationGraceS: 0\n    nodeSelector: {{{selector}}}\n    containers:\n    - {{name: c, image: \"hello:1\"}}\n"
    )
}

/// (name, uid, pid, restarts, attempt) of each pod, sorted.
fn identity(pods: &[Value]) -> Vec<String> {
    let mut all: Vec<String> = pods
        .iter()
        .map(|p| {
            let c = &p["status"]["containers"][0];
            format!(
                "{} {} pid {} restarts {} attempt {} on {}",
                p["meta"]["name"],
                p["meta"]["uid"],
                c["pid"],
                c["restarts"],
                p["status"]["attempt"],
                p["status"]["node"]
            )
        })
        .collect();
    all.sort();
    all
}

fn on<'a>(pods: &'a [Value], node: &Node) -> Vec<&'a Value> {
    pods.iter().filter(|p| p["status"]["node"] == node.name.as_str()).collect()
}

#[test]
fn every_acknowledged_apply_outlives_kill_9_of_the_controller() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("steady", 3, ""), &["--wait", "--timeout", "60s"])?.ok()?;
    let before = identity(&cluster.running("steady", 3, 5)?);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let pid = u32::try_from(cluster.status()?["controller"]["pid"].as_u64().context("pid")?)?;
        let answered = AtomicUsize::new(0);
        thread::scope(|scope| -> Result<()> {
            let writers: Vec<_> = (0..4)
                .map(|w| {
                    let (cluster, answered) = (&cluster, &answered);
                    scope.spawn(move || {
                        let mut done = Vec::new();
                        for i in 0..40 {
                            let name = format!("w{round}-{w}-{i}");
                            let Ok(run) = cluster.apply(&workload(&name, 0, ""), &[]) else { break };
                            if run.code != 0 {
                                break;
                            }
                            done.push(name);
                            answered.fetch_add(1, Relaxed);
                        }
                        done
                    })
                })
                .collect();
            // In the middle of it, however fast the machine is.
            let some = eventually("some applies answered", 60, || {
                ensure!(answered.load(Relaxed) >= 8, "{answered:?}");
                Ok(())
            });
            cluster.kill9(pid)?;
            some?;
            for writer in writers {
                acknowledged.extend(writer.join().map_err(|_| anyhow::anyhow!("panicked"))?);
            }
            Ok(())
        })?;
        cluster.up()?;
    }
    let there: Vec<String> =
        cluster.list("workloads")?.iter().filter_map(|w| w["meta"]["name"].as_str().map(str::to_owned)).collect();
    ensure!(acknowledged.len() >= 24, "only {} applies were acknowledged", acknowledged.len());
    for name in &acknowledged {
        ensure!(there.contains(name), "{name} was acknowledged and is gone");
    }
    // The pods never noticed.
    ensure!(identity(&cluster.running("steady", 3, 30)?) == before, "before {before:?}");
    for name in there.iter().filter(|n| n.starts_with('w')) {
        cluster.ctl(&["delete", "workload", name])?.ok()?;
    }
    cluster.delete(&["workload/steady"])
}

#[test]
fn containers_outlive_kill_9_of_their_agent_and_are_found_again() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("lasting", 6, ""), &["--wait", "--timeout", "60s"])?.ok()?;
    let before = identity(&cluster.running("lasting", 6, 5)?);
    let node = cluster.node("node-1")?;
    let cached = layer_cache(&node)?;
    cluster.kill9(node.pid)?;
    for pod in on(&cluster.pods("lasting")?, &node) {
        let pid = pod["status"]["containers"][0]["pid"].as_u64().context("pid")?;
        ensure!(fs::metadata(format!("/proc/{pid}")).is_ok(), "{pid} died with the agent");
    }
    cluster.up()?;
    let after = identity(&cluster.running("lasting", 6, 30)?);
    ensure!(after == before, "before {before:?}\nafter {after:?}");
    // What is found again is controlled again: exec, logs, one more pod, which shares the same mounts and page cache.
    let pods = cluster.pods("lasting")?;
    let mine = on(&pods, &node);
    let name = mine.first().context("a pod on node-1")?["meta"]["name"].as_str().context("name")?.to_owned();
    ensure!(cluster.exec(&name, &["echo", "again"])? == "again\n");
    cluster
        .apply(&workload("onemore", 1, "\"kubernetes.io/hostname\": node-1"), &["--wait", "--timeout", "30s"])?
        .ok()?;
    let now = layer_cache(&node)?;
    ensure!(now <= cached + (64 << 10), "the page cache of the layers grew from {cached} to {now} bytes");
    cluster.delete(&["workload/onemore", "workload/lasting"])
}

/// Bytes of the node's layer files in the page cache, and the number of superblocks that mount them, by `fincore`.
fn layer_cache(node: &Node) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(node.state.join("layers"))? {
        let output = Command::new("fincore").args(["-nbo", "RES"]).arg(entry?.path()).output().context("fincore")?;
        total += String::from_utf8(output.stdout)?.trim().parse::<u64>().unwrap_or(0);
    }
    Ok(total)
}

#[test]
fn an_exit_while_the_agent_is_away_is_told_afterwards() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: absent}\nspec:\n  restartPolicy: Never\n  containers: [{name: c, image: 'hello:1', command: [sh, -c, 'sleep 3; exit 6']}]\n";
    cluster.apply(manifest, &["--wait", "--timeout", "30s"])?.ok()?;
    let pod = cluster.pod("absent")?;
    let node = cluster.node(pod["status"]["node"].as_str().context("node")?)?;
    let pid = cluster.pid("absent")?;
    cluster.kill9(node.pid)?;
    eventually("the container ends", 20, || {
        ensure!(fs::metadata(format!("/proc/{pid}")).is_err(), "it runs");
        Ok(())
    })?;
    cluster.up()?;
    let pod = cluster.pod_until("absent", 30, |s| s["phase"] == "Failed")?;
    ensure!(pod["status"]["containers"][0]["exitCode"] == 6, "{pod}");
    cluster.delete(&["pod/absent"])
}

#[test]
fn containers_die_with_their_shim_and_the_pod_starts_anew() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("orphan", 1, ""), &["--wait", "--timeout", "60s"])?.ok()?;
    let pods = cluster.running("orphan", 1, 5)?;
    let name = pods[0]["meta"]["name"].as_str().context("name")?;
    let pid = cluster.pid(name)?;
    // The shim is the parent of the container.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let shim: u32 = stat.rsplit(')').next().context("stat")?.split_whitespace().nth(1).context("ppid")?.parse()?;
    cluster.kill9(shim)?;
    eventually("the container dies", 10, || {
        ensure!(fs::metadata(format!("/proc/{pid}")).is_err(), "it runs");
        Ok(())
    })?;
    let pod = cluster.pod_until(name, 30, |s| s["phase"] == "Running" && s["attempt"] == 1 && s["ready"] == true)?;
    ensure!(pod["status"]["address"] == pods[0]["status"]["address"], "the address stays");
    ensure!(cluster.exec(name, &["echo", "back"])? == "back\n");
    cluster.delete(&["workload/orphan"])
}

#[test]
fn a_node_that_was_cut_off_is_resynced_and_stops_what_was_given_away() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("moved", 3, ""), &["--wait", "--timeout", "60s"])?.ok()?;
    let before = cluster.running("moved", 3, 5)?;
    let node = cluster.node("node-2")?;
    let lost: Vec<u64> =
        on(&before, &node).iter().filter_map(|p| p["status"]["containers"][0]["pid"].as_u64()).collect();
    ensure!(!lost.is_empty(), "no pod on node-2");
    // One more that is deleted while its node is away.
    cluster
        .apply(&workload("deleted", 2, "\"kubernetes.io/hostname\": node-2"), &["--wait", "--timeout", "60s"])?
        .ok()?;
    let deleted = cluster.running("deleted", 2, 5)?;
    let deleted_pids: Vec<u64> = deleted.iter().filter_map(|p| p["status"]["containers"][0]["pid"].as_u64()).collect();
    let link = |state: &str| Command::new("ip").args(["-n", &node.netns, "link", "set", "uplink", state]).status();
    link("down")?;
    let replaced = eventually("replacements run elsewhere", 60, || {
        let pods = cluster.pods("moved")?;
        let elsewhere: Vec<Value> =
            pods.into_iter().filter(|p| p["status"]["phase"] == "Running" && p["status"]["node"] != "node-2").collect();
        ensure!(elsewhere.len() == 3, "{} run elsewhere", elsewhere.len());
        Ok(elsewhere)
    });
    let removed = cluster.ctl(&["delete", "workload", "deleted"]).and_then(strata_testkit::Run::ok);
    let alive = lost.iter().chain(&deleted_pids).all(|pid| fs::metadata(format!("/proc/{pid}")).is_ok());
    link("up")?;
    Command::new("ip").args(["-n", &node.netns, "route", "replace", "default", "via", "10.63.0.1"]).status()?;
    let replaced = replaced?;
    removed?;
    ensure!(alive, "the containers of the cut-off node died");
    eventually("what was given away is stopped", 60, || {
        let left = lost.iter().filter(|pid| fs::metadata(format!("/proc/{pid}")).is_ok()).count();
        ensure!(left == 0, "{left} still run");
        let node = cluster.ctl(&["get", "node", "node-2", "-o", "json"])?.ok()?.json()?;
        ensure!(node["status"]["phase"] == "Ready", "{}", node["status"]["phase"]);
        Ok(())
    })?;
    ensure!(identity(&cluster.running("moved", 3, 10)?) == identity(&replaced), "the replacements stay");
    eventually("nothing is left of what was deleted meanwhile", 60, || {
        for pid in &deleted_pids {
            ensure!(fs::metadata(format!("/proc/{pid}")).is_err(), "its process {pid} runs");
        }
        for pod in &deleted {
            let uid = pod["meta"]["uid"].as_str().context("uid")?;
            ensure!(!node.state.join("pods").join(uid).exists(), "its directory {uid} is there");
            let groups = Command::new("find").args(["/sys/fs/cgroup", "-name", uid]).output()?;
            ensure!(groups.stdout.is_empty(), "its cgroups are there: {}", String::from_utf8_lossy(&groups.stdout));
        }
        let pods = fs::read_dir(node.state.join("pods"))?.count();
        ensure!(node.pod_links()?.len() == pods, "{:?} for {pods} pods", node.pod_links()?);
        let left = cluster.pods("deleted")?;
        ensure!(left.is_empty(), "{} pods are still known", left.len());
        Ok(())
    })?;
    cluster.delete(&["workload/moved"])
}

#[test]
fn after_a_reboot_the_pods_start_again_in_place() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("reborn", 6, ""), &["--wait", "--timeout", "60s"])?.ok()?;
    let before = cluster.running("reborn", 6, 5)?;
    let node = cluster.node("node-3")?;
    let mine: Vec<Value> = on(&before, &node).into_iter().cloned().collect();
    ensure!(!mine.is_empty(), "no pod on node-3");
    let name = mine[0]["meta"]["name"].as_str().context("name")?.to_owned();
    cluster.exec(&name, &["sh", "-c", "echo kept > /tmp/file"])?;
    reboot(&cluster, &node)?;
    cluster.up()?;
    let after = cluster.running("reborn", 6, 60)?;
    for pod in &mine {
        let now = after
            .iter()
            .find(|p| p["meta"]["uid"] == pod["meta"]["uid"])
            .with_context(|| format!("{} is gone", pod["meta"]["name"]))?;
        ensure!(now["status"]["node"] == "node-3" && now["status"]["address"] == pod["status"]["address"], "{now}");
        ensure!(now["status"]["attempt"].as_u64() > pod["status"]["attempt"].as_u64(), "{now}");
    }
    let addresses: std::collections::BTreeSet<String> =
        after.iter().map(|p| p["status"]["address"].to_string()).collect();
    ensure!(addresses.len() == 6, "{addresses:?}");
    let run = cluster.ctl(&["exec", &name, "--", "cat", "/tmp/file"])?;
    ensure!(run.code == 1, "a reboot drops the writable layer: {run:?}");
    eventually("one veth a pod", 30, || {
        let (links, pods) = (node.pod_links()?, cluster.list("pods")?);
        ensure!(links.len() == on(&pods, &node).len(), "{links:?} {pods:?}");
        Ok(())
    })?;
    cluster.delete(&["workload/reborn"])
}

/// What a reboot does to a node: its processes end, its namespaces and mounts are gone, its state stays, boot_id changes.
fn reboot(cluster: &Cluster, node: &Node) -> Result<()> {
    cluster.kill9(node.pid)?;
    // Zygote and shims of this node: those whose memory cgroup or socket directory is the node's. The zygote's command line names its state directory.
    let state = node.state.to_string_lossy().into_owned();
    for _ in 0..50 {
        let mut left = Vec::new();
        for (pid, name) in cluster.processes()? {
            if name != "strata-shim" {
                continue;
            }
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            if line.contains(&state) || cgroup.contains(&format!("/{}/", node.name)) || cgroup.ends_with(&node.name) {
                left.push(pid);
            }
        }
        if left.is_empty() {
            break;
        }
        for pid in left {
            cluster.kill9(pid).ok();
        }
    }
    let ns = &node.netns;
    Command::new("ip").args(["netns", "delete", ns]).status()?;
    for pin in ["pin/mnt", "pin"] {
        Command::new("umount").arg("-l").arg(node.state.join(pin)).status()?;
    }
    // The kernel gives each boot a new id; here the ledger is made to remember another one.
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let mut remembered = 0;
    for entry in fs::read_dir(node.state.join("pods"))? {
        for file in fs::read_dir(entry?.path())?.flatten().filter(|f| f.path().is_file()) {
            let Ok(text) = fs::read_to_string(file.path()) else { continue };
            if text.contains(boot_id.trim()) {
                fs::write(file.path(), text.replace(boot_id.trim(), "00000000-0000-0000-0000-000000000000"))?;
                remembered += 1;
            }
        }
    }
    ensure!(remembered > 0, "no pod's record names the boot");
    Ok(())
}
