//! kill -9 of agents and zygotes at random moments while pods start, restart and are deleted: afterwards every wanted pod runs once
//! and nothing else is left on any node.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};
use strata_testkit::{Cluster, Node, eventually};

/// Kills of an agent.
const ROUNDS: u64 = 24;
/// The rounds end here even if fewer than [`ROUNDS`] were possible; then the machine is too slow and the test says so.
const BOUND: Duration = Duration::from_secs(60);
/// Of the moments of the kills. A failure prints it.
const SEED: u64 = 0x5eed_cafe;

/// xorshift64: the moments differ, and are the same in every run.
struct Moments(u64);

impl Moments {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn workload(name: &str, replicas: u32, command: &str) -> String {
    format!(
        "kind: Workload\nmeta: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  template:\n    terminationGraceS: 1\n    containers:\n    - {{name: c, image: \"hello:1\", command: [sh, -c, \"{command}\"]}}\n"
    )
}

/// The wanted pods run, once each; each node has one shim, cgroup, directory and link a pod, and one mount a layer.
fn nothing_is_left_over(cluster: &Cluster) -> Result<()> {
    let pods = cluster.list("pods")?;
    let mut addresses = BTreeSet::new();
    for pod in &pods {
        let s = &pod["status"];
        ensure!(addresses.insert(s["address"].to_string()), "two pods have {}", s["address"]);
    }
    for node in cluster.nodes()? {
        let mine: BTreeMap<&str, &Value> = pods
            .iter()
            .filter(|p| p["status"]["node"] == node.name.as_str())
            .filter_map(|p| Some((p["meta"]["uid"].as_str()?, p)))
            .collect();
        let wanted: BTreeSet<String> = mine.keys().map(|uid| (*uid).to_owned()).collect();
        ensure!(
            directories(&node.state.join("pods"))? == wanted,
            "{}: pod directories {:?}, wanted {wanted:?}",
            node.name,
            directories(&node.state.join("pods"))?
        );
        ensure!(
            node.pod_links()?.len() == wanted.len(),
            "{}: links {:?} of {} pods",
            node.name,
            node.pod_links()?,
            wanted.len()
        );
        for parent in cgroups(cluster, &node)? {
            let mut groups = directories(&parent)?;
            groups.retain(|g| g != "agent");
            ensure!(groups == wanted, "{}: cgroups {groups:?} in {}, wanted {wanted:?}", node.name, parent.display());
        }
        let shims = shims_of(cluster, &node)?;
        ensure!(shims.len() == wanted.len(), "{}: {} shims of {} pods", node.name, shims.len(), wanted.len());
        for pod in mine.values() {
            for c in pod["status"]["containers"].as_array().into_iter().flatten().filter(|c| c["state"] == "Running") {
                let pid = c["pid"].as_u64().context("pid")?;
                let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
                    .with_context(|| format!("{} has pid {pid}", pod["meta"]["name"]))?;
                let parent: u32 =
                    stat.rsplit(')').next().and_then(|s| s.split_whitespace().nth(1)).context("ppid")?.parse()?;
                ensure!(
                    shims.contains(&parent),
                    "{}: the container {pid} of {} is no shim's",
                    node.name,
                    pod["meta"]["name"]
                );
            }
        }
        // One container process a shim, besides execs of which there are none.
        for shim in &shims {
            let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap_or_default();
            ensure!(children.split_whitespace().count() <= 1, "{}: shim {shim} has the children {children}", node.name);
        }
        let (mounts, layers) = (layer_mounts(&node)?, directories_and_files(&node.state.join("layers"))?);
        let distinct: BTreeSet<&String> = mounts.iter().collect();
        ensure!(
            distinct.len() == mounts.len() && mounts.len() <= layers,
            "{}: mounts {mounts:?} of {layers} layers",
            node.name
        );
    }
    Ok(())
}

fn directories(dir: &PathBuf) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    Ok(entries.flatten().filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect())
}

fn directories_and_files(dir: &PathBuf) -> Result<usize> {
    Ok(fs::read_dir(dir)?.count())
}

/// The node's parent group in every hierarchy that has it.
fn cgroups(cluster: &Cluster, node: &Node) -> Result<Vec<PathBuf>> {
    let parent = cluster.cgroup_parent(&node.name)?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let points = mounts
        .lines()
        .filter(|l| l.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")))
        .filter_map(|l| l.split(' ').nth(1));
    Ok(points.map(|p| PathBuf::from(p).join(&parent)).filter(|p| p.is_dir()).collect())
}

fn shims_of(cluster: &Cluster, node: &Node) -> Result<Vec<u32>> {
    let parent = format!("{}/", cluster.cgroup_parent(&node.name)?);
    let shims = cluster.processes()?.into_iter().filter(|(_, name)| name == "strata-shim").map(|(pid, _)| pid);
    Ok(shims
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|c| c.contains(&parent)))
        .collect())
}

/// The node's zygote: its command line names the state directory.
fn zygote(cluster: &Cluster, node: &Node) -> Result<u32> {
    eventually("the node has a zygote", 10, || find_zygote(cluster, node))
}

fn find_zygote(cluster: &Cluster, node: &Node) -> Result<u32> {
    let state = node.state.to_string_lossy().into_owned();
    let found = cluster.processes()?.into_iter().find(|(pid, name)| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        name == "strata-shim" && line.split('\0').any(|arg| arg == state)
    });
    Ok(found.with_context(|| format!("{} has no zygote", node.name))?.0)
}

/// Where layers are mounted in the agent's mount namespace.
fn layer_mounts(node: &Node) -> Result<Vec<String>> {
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", node.pid))?;
    let state = node.state.join("mnt").to_string_lossy().into_owned();
    Ok(mounts
        .lines()
        .filter_map(|l| l.split(' ').nth(1))
        .filter(|p| p.starts_with(&state))
        .map(str::to_owned)
        .collect())
}

/// Bytes of the mounted layers' files in the page cache. A second mount of a layer would have a cache of its own, empty at first.
fn mounted_cache(cluster: &Cluster, name: &str) -> Result<u64> {
    let node = cluster.node(name)?;
    let mounts = format!("/proc/{}/root{}", node.pid, node.state.join("mnt").display());
    let output =
        Command::new("find").args([&mounts, "-type", "f", "-exec", "fincore", "-nbo", "RES", "{}", "+"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|l| l.trim().parse::<u64>().ok()).sum())
}

#[test]
fn agents_that_are_killed_at_any_moment_leave_nothing_and_lose_nothing() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let mut moments = Moments(SEED);
    cluster.apply(&workload("keep", 6, "exec sleep 1000"), &["--wait", "--timeout", "60s"])?.ok()?;
    cluster.apply(&workload("flap", 3, "sleep 0.5; exit 1"), &[])?.ok()?;
    let kept: BTreeSet<String> = cluster
        .running("keep", 6, 5)?
        .iter()
        .map(|p| format!("{} {}", p["meta"]["uid"], p["status"]["containers"][0]["pid"]))
        .collect();
    let begun = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS && begun.elapsed() < BOUND {
        let node = cluster.node(&format!("node-{}", 1 + moments.below(3)))?;
        let name = format!("come-{rounds}");
        cluster.apply(&workload(&name, 3, "exec sleep 1000"), &[])?.ok()?;
        if rounds > 1 {
            let old = format!("come-{}", rounds - 2);
            cluster.ctl(&["delete", "workload", &old])?.ok()?;
        }
        thread::sleep(Duration::from_millis(moments.below(250)));
        cluster.kill9(node.pid)?;
        if rounds % 6 == 5 {
            cluster.kill9(zygote(&cluster, &node)?)?;
        }
        thread::sleep(Duration::from_millis(moments.below(100)));
        cluster.up()?;
        rounds += 1;
    }
    eprintln!("{rounds} kills in {:?}", begun.elapsed());
    ensure!(rounds >= 20, "only {rounds} kills within {BOUND:?}");
    let last = [format!("come-{}", rounds - 1), format!("come-{}", rounds - 2)];
    for name in &last {
        cluster.running(name, 3, 60).with_context(|| format!("seed {SEED:#x}"))?;
    }
    let now: BTreeSet<String> = cluster
        .running("keep", 6, 30)?
        .iter()
        .map(|p| format!("{} {}", p["meta"]["uid"], p["status"]["containers"][0]["pid"]))
        .collect();
    ensure!(now == kept, "pods that nobody touched: {kept:?}, now {now:?}");
    eventually("nothing is left over", 60, || nothing_is_left_over(&cluster))
        .with_context(|| format!("seed {SEED:#x}"))?;
    cluster.delete(&[
        "workload/keep",
        "workload/flap",
        &format!("workload/{}", last[0]),
        &format!("workload/{}", last[1]),
    ])?;
    eventually("nothing is left at all", 30, || nothing_is_left_over(&cluster))
}

#[test]
fn a_zygote_that_died_is_replaced_and_its_layers_stay_mounted_once() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let pinned = |name: &str| {
        workload(name, 1, "exec sleep 1000")
            .replace("  template:\n", "  template:\n    nodeSelector: {\"kubernetes.io/hostname\": node-1}\n")
    };
    cluster.apply(&pinned("before"), &["--wait", "--timeout", "60s"])?.ok()?;
    let node = cluster.node("node-1")?;
    let mounts = layer_mounts(&node)?;
    ensure!(!mounts.is_empty(), "no layer is mounted");
    let devices = |pod: &str| -> Result<Vec<String>> {
        // An overlay's root shows nothing of its lowers; the layer mounts themselves carry the superblock's device.
        let node = cluster.node("node-1")?;
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", node.pid))?;
        let state = node.state.join("mnt").to_string_lossy().into_owned();
        let mut found: Vec<String> = text
            .lines()
            .filter(|l| l.split(' ').nth(4).is_some_and(|p| p.starts_with(&state)))
            .filter_map(|l| Some(format!("{} {}", l.split(' ').nth(2)?, l.split(' ').nth(4)?)))
            .collect();
        found.sort();
        ensure!(!pod.is_empty() && !found.is_empty(), "no layer mount on node-1");
        Ok(found)
    };
    let superblocks = devices("before")?;
    cluster.kill9(zygote(&cluster, &node)?)?;
    cluster.apply(&pinned("alone"), &["--wait", "--timeout", "30s"])?.ok()?;
    ensure!(devices("alone")? == superblocks, "the zygote's death changed the mounts");
    // The new zygote pins them: an agent that dies now finds them again.
    cluster.kill9(node.pid)?;
    cluster.up()?;
    cluster.apply(&pinned("again"), &["--wait", "--timeout", "30s"])?.ok()?;
    ensure!(
        devices("again")? == superblocks,
        "the mounts were made anew: {superblocks:?} before, {:?} now",
        devices("again")?
    );
    // Both at once: nobody is left in the mount namespace, but a file pins it.
    let cached = mounted_cache(&cluster, "node-1")?;
    ensure!(cached > 100 << 10, "only {cached} bytes of the layers are cached: that proves little");
    let kept = cluster.pid("before-0")?;
    let node = cluster.node("node-1")?;
    cluster.kill9(zygote(&cluster, &node)?)?;
    cluster.kill9(node.pid)?;
    cluster.up()?;
    let found = mounted_cache(&cluster, "node-1")?;
    ensure!(found >= cached / 10 * 9, "{cached} bytes of the layers were cached, {found} are found again");
    cluster.apply(&pinned("both"), &["--wait", "--timeout", "30s"])?.ok()?;
    ensure!(cluster.pid("before-0")? == kept, "a pod that nobody touched was started again");
    ensure!(
        devices("both")? == superblocks,
        "the mounts were made anew: {superblocks:?} before, {:?} now",
        devices("both")?
    );
    let now = mounted_cache(&cluster, "node-1")?;
    ensure!(now <= found.max(cached) + (64 << 10), "the page cache of the layers grew from {cached} to {now} bytes");
    cluster.delete(&["workload/before", "workload/alone", "workload/again", "workload/both"])
}
