//! The main job: apply a Kubernetes Deployment of an image in a real registry; pods run on every node, share its layers, and have private files.

use anyhow::{Context, Result, ensure};
use strata_testkit::{Cluster, Registry, hello_archive, push};

fn deployment(name: &str, image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {image}
        ports: [{{containerPort: 8080}}]
        resources: {{limits: {{memory: 64Mi, cpu: 200m}}}}
"
    )
}

#[test]
fn a_deployment_from_a_registry_runs_on_every_node_and_shares_its_layers() -> Result<()> {
    let cluster = Cluster::here()?;
    let registry = Registry::start("10.63.0.1:7650", None)?;
    let image = format!("{}/shop/hello:1", registry.address);
    push(&hello_archive(&cluster, "hello:1")?, &image, "")?;
    cluster.apply(&deployment("shop", &image, 6), &["--wait", "--timeout", "60s"])?.ok()?;
    let pods = cluster.running("shop", 6, 5)?;

    let nodes: std::collections::BTreeSet<_> = pods.iter().map(|p| p["status"]["node"].to_string()).collect();
    ensure!(nodes.len() == 3, "six replicas reach all three nodes, not {nodes:?}");
    let addresses: std::collections::BTreeSet<_> = pods.iter().map(|p| p["status"]["address"].to_string()).collect();
    ensure!(addresses.len() == 6, "addresses are given once: {addresses:?}");
    for pod in &pods {
        let container = &pod["status"]["containers"][0];
        ensure!(pod["status"]["attempt"] == 0 && container["restarts"] == 0, "{pod}");
        ensure!(container["imageDigest"].as_str().is_some_and(|d| d.starts_with("sha256:")), "{container}");
    }

    // Each node holds each layer once, under its diff ID, and says so.
    let spec = cluster.ctl(&["get", "image", &image, "-o", "json"])?.ok()?.json()?;
    let layers: Vec<String> = spec["spec"]["layers"]
        .as_array()
        .context("layers")?
        .iter()
        .map(|l| l["diffId"].as_str().unwrap_or("").into())
        .collect();
    ensure!(layers.len() == 3, "{layers:?}");
    for node in cluster.nodes()? {
        for layer in &layers {
            let file = node.state.join("layers").join(layer.replacen(':', "-", 1));
            ensure!(file.is_file(), "{} is missing", file.display());
        }
    }
    let node = cluster.ctl(&["get", "node", "node-1", "-o", "json"])?.ok()?.json()?;
    let told: Vec<&str> =
        node["status"]["layers"].as_array().context("layers")?.iter().filter_map(|l| l["diffId"].as_str()).collect();
    ensure!(layers.iter().all(|l| told.contains(&l.as_str())), "node-1 tells of {told:?}");

    // Private files: what one writes no other sees.
    let names: Vec<&str> = pods.iter().filter_map(|p| p["meta"]["name"].as_str()).collect();
    cluster.exec(names[0], &["sh", "-c", "echo mine > /tmp/mine"])?;
    ensure!(cluster.exec(names[0], &["cat", "/tmp/mine"])? == "mine\n");
    for other in &names[1..] {
        let run = cluster.ctl(&["exec", other, "--", "cat", "/tmp/mine"])?;
        ensure!(run.code == 1, "{other} sees another pod's file: {run:?}");
    }

    // Every pod reaches every other, on whatever node, and its node reaches it.
    for pod in &pods {
        let address = pod["status"]["address"].as_str().context("address")?;
        let name = pod["meta"]["name"].as_str().context("name")?;
        for from in &names[..3] {
            let page = cluster.exec(from, &["wget", "-q", "-O", "-", &format!("http://{address}:8080/")])?;
            ensure!(page.contains(&format!("hello from {name}")), "{from} -> {name}: {page}");
        }
        let node = cluster.node(pod["status"]["node"].as_str().context("node")?)?;
        let output =
            node.command("curl").args(["-s", "-m", "5", &format!("http://{address}:8080/healthz")]).output()?;
        ensure!(output.stdout == b"ok\n", "{} cannot reach {address}", node.name);
    }

    // Logs come from where the pod is.
    let logs = cluster.ctl(&["logs", names[0]])?.ok()?.stdout;
    ensure!(logs.contains("listening on") && logs.contains("GET / HTTP/1.1 200"), "{logs}");

    // Scale up and down by name.
    cluster.ctl(&["scale", "shop", "--replicas", "8"])?.ok()?;
    cluster.running("shop", 8, 30)?;
    cluster.ctl(&["scale", "shop", "--replicas", "2"])?.ok()?;
    cluster.running("shop", 2, 30)?;

    // A registry that is down stops nothing.
    drop(registry);
    cluster.ctl(&["scale", "shop", "--replicas", "4"])?.ok()?;
    cluster.running("shop", 4, 30)?;
    cluster.delete(&["workload/shop"])
}

#[test]
fn a_registry_that_wants_a_login_gets_it_and_one_that_refuses_is_named() -> Result<()> {
    let cluster = Cluster::here()?;
    let registry = Registry::start("10.63.0.1:7651", Some(("tester", "secret")))?;
    let image = format!("{}/private/hello:2", registry.address);
    push(&hello_archive(&cluster, "hello:2")?, &image, "tester:secret")?;
    cluster.apply(&deployment("private", &image, 1), &["--wait", "--timeout", "60s"])?.ok()?;
    cluster.delete(&["workload/private"])?;

    // The same blobs behind another password: the reason says what is wrong.
    drop(registry);
    let _other = Registry::start("10.63.0.1:7651", Some(("tester", "changed")))?;
    let run = cluster
        .apply(&deployment("refused", "10.63.0.1:7651/private/other:2", 1), &["--wait", "--timeout", "5s"])?
        .code_is(6)?;
    ensure!(run.stderr.contains("Unauthorized"), "{}", run.stderr);
    cluster.delete(&["workload/refused"])
}

#[test]
fn an_imported_image_runs_on_every_node_without_a_registry() -> Result<()> {
    let cluster = Cluster::here()?;
    let archive = hello_archive(&cluster, "imported:1")?;
    cluster.ctl(&["image", "import", archive.path().to_str().context("path")?])?.ok()?;
    cluster.apply(&deployment("imported", "imported:1", 3), &["--wait", "--timeout", "60s"])?.ok()?;
    let pods = cluster.running("imported", 3, 5)?;
    let nodes: std::collections::BTreeSet<_> = pods.iter().map(|p| p["status"]["node"].to_string()).collect();
    ensure!(nodes.len() == 3, "{nodes:?}");
    cluster.delete(&["workload/imported"])
}

#[test]
fn a_daemon_set_puts_one_pod_on_every_node() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let manifest = deployment("everywhere", "hello:1", 1)
        .replace("kind: Deployment", "kind: DaemonSet")
        .replace("  replicas: 1\n", "");
    cluster.apply(&manifest, &["--wait", "--timeout", "60s"])?.ok()?;
    let pods = cluster.running("everywhere", 3, 5)?;
    let nodes: std::collections::BTreeSet<_> = pods.iter().map(|p| p["status"]["node"].to_string()).collect();
    ensure!(nodes.len() == 3, "{nodes:?}");
    cluster.delete(&["workload/everywhere"])
}

#[test]
fn a_changed_template_rolls_the_pods_and_never_has_fewer_ready() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&deployment("rolling", "hello:1", 3), &["--wait", "--timeout", "60s"])?.ok()?;
    let before: Vec<String> = cluster.running("rolling", 3, 5)?.iter().map(|p| p["meta"]["uid"].to_string()).collect();
    let changed = deployment("rolling", "hello:1", 3)
        .replace("        ports:", "        env: [{name: VERSION, value: \"2\"}]\n        ports:");
    cluster.apply(&changed, &["--wait", "--timeout", "60s"])?.ok()?;
    let after = cluster.running("rolling", 3, 10)?;
    ensure!(after.iter().all(|p| !before.contains(&p["meta"]["uid"].to_string())), "every pod is a new one");
    let name = after[0]["meta"]["name"].as_str().context("name")?;
    ensure!(cluster.exec(name, &["sh", "-c", "echo $VERSION"])? == "2\n");
    cluster.delete(&["workload/rolling"])
}
