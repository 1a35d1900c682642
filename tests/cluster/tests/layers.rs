//! Layers are immutable and shared; writable layers are private and thin; deleting removes everything that was private.

use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, fs};
use strata_testkit::{Cluster, eventually};

fn workload(name: &str, replicas: u32, node: &str) -> String {
    format!(
        "kind: Workload\nmeta: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  template:\n    terminationGraceS: 0\n    nodeSelector: {{\"kubernetes.io/hostname\": {node}}}\n    containers:\n    - name: c\n      image: \"hello:1\"\n      command: [sleep, \"1000\"]\n      security: {{runAsUser: 0}}\n"
    )
}

#[test]
fn a_thousand_writes_change_no_layer_file() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("writers", 2, "node-1"), &["--wait", "--timeout", "60s"])?.ok()?;
    let node = cluster.node("node-1")?;
    let before = node.layer_sums()?;
    ensure!(before.len() >= 3, "{before:?}");
    let pods = cluster.running("writers", 2, 5)?;
    for (i, pod) in pods.iter().enumerate() {
        let name = pod["meta"]["name"].as_str().context("name")?;
        let script = format!(
            "i=0; while [ $i -lt 500 ]; do echo {i} >> /etc/passwd; echo {i} > /tmp/f$i; i=$((i+1)); done; rm -f /bin/hello; echo {i} > /srv/www/index.html"
        );
        cluster.exec(name, &["sh", "-c", &script])?;
    }
    ensure!(node.layer_sums()? == before, "a layer file changed");
    for (i, pod) in pods.iter().enumerate() {
        let name = pod["meta"]["name"].as_str().context("name")?;
        ensure!(cluster.exec(name, &["cat", "/srv/www/index.html"])? == format!("{i}\n"));
    }
    cluster.delete(&["workload/writers"])?;
    ensure!(node.layer_sums()? == before, "deleting a workload leaves the layers as they are");
    Ok(())
}

#[test]
fn fifty_containers_of_one_image_cost_less_than_a_mebibyte_each() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let node = cluster.node("node-2")?;
    cluster.apply(&workload("many", 1, "node-2"), &["--wait", "--timeout", "60s"])?.ok()?;
    let one = node.disk_bytes()?;
    cluster.ctl(&["scale", "many", "--replicas", "51"])?.ok()?;
    cluster.running("many", 51, 120)?;
    let all = node.disk_bytes()?;
    ensure!(all.saturating_sub(one) < 50 << 20, "50 more containers took {} bytes", all - one);
    cluster.delete(&["workload/many"])
}

#[test]
fn deleting_a_workload_leaves_nothing_of_it() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let node = cluster.node("node-3")?;
    let before = footprint(&cluster, &node.name)?;
    cluster.apply(&workload("fleeting", 4, "node-3"), &["--wait", "--timeout", "60s"])?.ok()?;
    let during = footprint(&cluster, &node.name)?;
    ensure!(during["links"] == before["links"] + 4 && during["pods"] == before["pods"] + 4, "{before:?} {during:?}");
    cluster.delete(&["workload/fleeting"])?;
    eventually("the footprint is what it was", 20, || {
        let after = footprint(&cluster, &node.name)?;
        ensure!(after == before, "before {before:?}, after {after:?}");
        Ok(())
    })
}

/// What a node holds besides its layers.
fn footprint(cluster: &Cluster, node: &str) -> Result<BTreeMap<&'static str, usize>> {
    let node = cluster.node(node)?;
    let parent = cluster.cgroup_parent(&node.name)?;
    let mut cgroups = 0;
    for root in fs::read_dir("/sys/fs/cgroup")? {
        cgroups += count_dirs(&root?.path().join(&parent));
    }
    cgroups += count_dirs(&std::path::Path::new("/sys/fs/cgroup").join(&parent));
    let agent_mounts = fs::read_to_string(format!("/proc/{}/mounts", node.pid))?.lines().count();
    Ok(BTreeMap::from([
        ("links", node.pod_links()?.len()),
        ("pods", fs::read_dir(node.state.join("pods"))?.count()),
        ("cgroups", cgroups),
        ("mounts", agent_mounts),
        ("shims", cluster.processes()?.iter().filter(|(_, name)| name == "strata-shim").count()),
        ("agent fds", fs::read_dir(format!("/proc/{}/fd", node.pid))?.count() / 8),
    ]))
}

fn count_dirs(dir: &std::path::Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().filter(|e| e.path().is_dir()).map(|e| 1 + count_dirs(&e.path())).sum()
}

#[test]
fn an_unknown_image_is_named_and_stops_nothing_else() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let unknown = workload("unknown", 1, "node-1").replace("hello:1", "10.63.0.1:7650/no/such:1");
    let run = cluster.apply(&unknown, &["--wait", "--timeout", "4s"])?.code_is(6)?;
    ensure!(run.stderr.contains("RegistryUnreachable") || run.stderr.contains("ImageNotFound"), "{}", run.stderr);
    cluster.apply(&workload("known", 1, "node-1"), &["--wait", "--timeout", "30s"])?.ok()?;
    cluster.delete(&["workload/unknown", "workload/known"])
}

#[test]
fn a_pod_that_fits_nowhere_says_why() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let big = workload("big", 1, "node-1").replace("      command:", "      requests: {cpu: \"1000\"}\n      command:");
    let run = cluster.apply(&big, &["--wait", "--timeout", "3s"])?.code_is(6)?;
    ensure!(run.stderr.contains("Unschedulable") && run.stderr.contains("cpu"), "{}", run.stderr);
    cluster.delete(&["workload/big"])
}
