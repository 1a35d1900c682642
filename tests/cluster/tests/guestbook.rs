//! The guestbook of deploy/examples: a web server and redis, built in the cluster, from unchanged Kubernetes documents and from a Compose file.

use anyhow::{Context, Result, ensure};
use std::{fs, path::Path, process::Command};
use strata_testkit::{Cluster, Node, Run, eventually};
use tempfile::TempDir;

/// Seconds for what pulls, builds and starts.
const LONG_S: u64 = 120;

/// The example, with what its images are built from.
fn prepared(cluster: &Cluster) -> Result<TempDir> {
    let dir = TempDir::new()?;
    let mut command = Command::new(cluster.repo().join("deploy/examples/guestbook/prepare"));
    command.arg(dir.path());
    Run::of(command, "")?.ok()?;
    Ok(dir)
}

/// A namespace that goes with the value, and everything in it.
struct Space<'c> {
    cluster: &'c Cluster,
    name: &'static str,
}

impl<'c> Space<'c> {
    fn new(cluster: &'c Cluster, name: &'static str) -> Result<Self> {
        cluster.apply(&format!("kind: Namespace\nmeta: {{name: {name}}}\n"), &[])?.ok()?;
        Ok(Self { cluster, name })
    }

    fn ctl(&self, args: &[&str]) -> Result<Run> {
        let all: Vec<&str> = ["-n", self.name].iter().chain(args).copied().collect();
        self.cluster.ctl(&all)
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // A namespace goes only when it is empty.
        for kind in ["workloads", "services", "volumes"] {
            let names = self.ctl(&["get", kind, "-o", "name"]).map(|run| run.stdout).unwrap_or_default();
            for name in names.lines() {
                self.ctl(&["delete", name, "--wait", "--timeout", "60s"]).ok();
            }
        }
        eventually("the namespace goes", LONG_S, || {
            self.cluster.ctl(&["delete", "namespace", self.name, "--ignore-not-found"])?.ok()?;
            Ok(())
        })
        .ok();
    }
}

fn curl(node: &Node, args: &[&str]) -> Result<String> {
    let output = node.command("curl").args(["-sS", "--fail", "--max-time", "10"]).args(args).output()?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Signs at one node and reads at every one.
fn sign(nodes: &[Node], port: u16, message: &str) -> Result<()> {
    let first = nodes.first().context("a node")?;
    let url = format!("http://{}:{port}/", first.address);
    eventually("the guestbook takes an entry", 60, || curl(first, &["-d", &format!("message={message}"), &url]))?;
    read(nodes, port, message)
}

fn read(nodes: &[Node], port: u16, message: &str) -> Result<()> {
    for node in nodes {
        let url = format!("http://{}:{port}/entries", node.address);
        eventually(&format!("{message} is read at {}", node.name), 60, || {
            let entries = curl(node, &[&url])?;
            ensure!(entries.lines().any(|entry| entry == message), "{entries:?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn the_guestbook_runs_from_unchanged_kubernetes_documents() -> Result<()> {
    let cluster = Cluster::here()?;
    let dir = prepared(&cluster)?;
    for (image, context) in [("guestbook-web", "web"), ("guestbook-redis", "redis")] {
        cluster.ctl(&["build", "-q", "-t", image, &path(dir.path(), context)])?.ok()?;
    }
    let space = Space::new(&cluster, "gb-kubernetes")?;
    let files = path(dir.path(), "kubernetes");
    let differs = space.ctl(&["diff", "-f", &files])?.code_is(1)?;
    ensure!(!differs.stdout.contains("only-an-example"), "{}", differs.stdout);
    space.ctl(&["apply", "-f", &files, "--set", "guestbook", "--wait", "--timeout", "120s"])?.ok()?;
    space.ctl(&["diff", "-f", &files, "--set", "guestbook"])?.ok()?;
    let nodes = cluster.nodes()?;
    sign(&nodes, 30808, "first")?;

    // Its volume outlives the pod.
    let pods = space.ctl(&["get", "pods", "-o", "json"])?.ok()?.json()?;
    let redis = pods.as_array().into_iter().flatten().find(|p| p["spec"]["workload"] == "redis").context("redis")?;
    let name = redis["meta"]["name"].as_str().context("name")?;
    space.ctl(&["delete", "pod", name, "--wait", "--timeout", "60s"])?.ok()?;
    read(&nodes, 30808, "first")?;
    sign(&nodes, 30808, "second")?;

    // A changed config rolls.
    let web = dir.path().join("kubernetes/web.yaml");
    fs::write(&web, fs::read_to_string(&web)?.replace("title: A guestbook on Strata", "title: Another title"))?;
    space.ctl(&["apply", "-f", &files, "--set", "guestbook", "--wait", "--timeout", "120s"])?.ok()?;
    let url = format!("http://{}:30808/", nodes[0].address);
    eventually("the page has the new title", LONG_S, || {
        let page = curl(&nodes[0], &[&url])?;
        ensure!(page.contains("<h1>Another title</h1>") && page.contains("<li>second</li>"), "{page}");
        Ok(())
    })?;

    // What is no longer in the files goes, what has data stays.
    let pruned =
        space.ctl(&["apply", "-f", &path(dir.path(), "kubernetes/web.yaml"), "--set", "guestbook", "--prune"])?.ok()?;
    for gone in ["workload/redis pruned", "service/redis pruned", "secret/redis pruned"] {
        ensure!(pruned.stdout.contains(gone), "{}", pruned.stdout);
    }
    space.ctl(&["get", "volume", "redis-data"])?.ok()?;
    // A namespace does not go while it has volumes, and a volume not while pods use it.
    eventually("the volume goes", LONG_S, || {
        space.ctl(&["delete", "volume", "redis-data", "--ignore-not-found"])?.ok()?;
        Ok(())
    })
}

#[test]
fn the_guestbook_runs_from_a_compose_file() -> Result<()> {
    let cluster = Cluster::here()?;
    let dir = prepared(&cluster)?;
    let space = Space::new(&cluster, "gb-compose")?;
    let file = path(dir.path(), "compose.yaml");
    let mut command =
        cluster.command(&["-n", space.name, "apply", "-f", &file, "--build", "--wait", "--timeout", "120s"]);
    command.env("GUESTBOOK_PORT", "18088");
    let applied = Run::of(command, "")?.ok()?;
    for made in ["secret/guestbook-redis-password created", "config/guestbook-title created", "service/web created"] {
        ensure!(applied.stdout.contains(made), "{}", applied.stdout);
    }
    let nodes = cluster.nodes()?;
    sign(&nodes, 18088, "composed")?;
    let page = curl(&nodes[0], &[&format!("http://{}:18088/", nodes[0].address)])?;
    ensure!(page.contains("<h1>A guestbook on Strata</h1>"), "{page}");
    let gone = space.ctl(&["delete", "-f", &file, "--wait", "--timeout", "60s"])?.ok()?;
    ensure!(gone.stderr.contains("volume/guestbook-data stays"), "{}", gone.stderr);
    space.ctl(&["delete", "-f", &file, "--volumes", "--ignore-not-found"])?.ok()?;
    Ok(())
}
