//! Verbs of images: tag, history, export, push, prune, rm, pull on all nodes; and commit, which makes one.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{path::Path, process::Command};
use strata_testkit::{Cluster, HELLO, Registry, Run, eventually};

fn inspect(cluster: &Cluster, name: &str) -> Result<Value> {
    cluster.ctl(&["image", "inspect", name])?.ok()?.json()
}

fn digest(cluster: &Cluster, name: &str) -> Result<String> {
    Ok(inspect(cluster, name)?["spec"]["digest"].as_str().context("digest")?.to_owned())
}

fn skopeo(args: &[&str]) -> Result<Run> {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").args(args);
    Run::of(command, "")?.ok()
}

/// The diff IDs of an image, as the cluster and as its config have them.
fn diff_ids(image: &Value) -> Vec<Value> {
    image["spec"]["layers"].as_array().into_iter().flatten().map(|l| l["diffId"].clone()).collect()
}

fn pod(name: &str, image: &str, script: &str) -> String {
    let script = Value::from(script);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: '{image}', securityContext: {{runAsUser: 0}}, command: [sh, -c, {script}]}}\n"
    )
}

#[test]
fn an_image_has_several_names() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.ctl(&["image", "tag", HELLO, "shop/hello:2"])?.ok()?;
    ensure!(digest(&cluster, "shop/hello:2")? == digest(&cluster, HELLO)?);
    // It runs under its new name, which no registry has.
    cluster.apply(&pod("tagged", "shop/hello:2", "sleep 1000"), &["--wait", "--timeout", "60s"])?.ok()?;
    let refused = cluster.ctl(&["image", "rm", "shop/hello:2"])?.code_is(1)?;
    ensure!(refused.stderr.contains("tagged"), "it does not say who uses it: {}", refused.stderr);
    cluster.ctl(&["image", "rm", "--force", "shop/hello:2"])?.ok()?;
    cluster.delete(&["pod/tagged"])?;
    // The image itself stays: it has another name.
    digest(&cluster, HELLO)?;
    cluster.ctl(&["image", "tag", "no/such:1", "x:1"])?.code_is(3)?;
    Ok(())
}

#[test]
fn archives_are_read_by_others_and_have_the_same_layers() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let home = tempfile::tempdir()?;
    let wanted = diff_ids(&inspect(&cluster, HELLO)?);
    let steps = cluster.ctl(&["image", "history", HELLO, "--json"])?.ok()?.json()?;
    let of_steps: Vec<Value> = steps.as_array().context("steps")?.iter().rev().map(|s| s["diffId"].clone()).collect();
    ensure!(wanted.len() == 3 && of_steps == wanted, "{steps}");
    ensure!(cluster.ctl(&["image", "history", HELLO])?.ok()?.stdout.lines().count() == 4);
    for (format, transport) in [("oci", "oci-archive"), ("docker", "docker-archive")] {
        let file = home.path().join(format!("{format}.tar"));
        let file = file.to_str().context("path")?;
        cluster.ctl(&["image", "export", HELLO, "-o", file, "--format", format])?.ok()?;
        let config: Value = skopeo(&["inspect", "--config", &format!("{transport}:{file}")])?.json()?;
        ensure!(config["rootfs"]["diff_ids"] == Value::from(wanted.clone()), "{format}: {config}");
        ensure!(config["config"]["Cmd"][0] == "/bin/hello", "{config}");
        // Every byte of it is what its digest says: skopeo checks that when it copies.
        let copy = home.path().join(format!("{format}-copy"));
        skopeo(&["copy", "-q", &format!("{transport}:{file}"), &format!("dir:{}", copy.display())])?;
        // And it comes back.
        let name = format!("again/{format}:1");
        cluster.ctl(&["image", "import", file, "--name", &name])?.ok()?;
        ensure!(diff_ids(&inspect(&cluster, &name)?) == wanted);
        cluster.ctl(&["image", "rm", &name])?.ok()?;
    }
    // Two images in one archive on stdout share their layers.
    cluster.ctl(&["image", "tag", HELLO, "shop/two:1"])?.ok()?;
    let both = home.path().join("both.tar");
    let output = cluster.command(&["image", "export", HELLO, "shop/two:1", "-o", "-"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(&both, &output.stdout)?;
    ensure!(output.stdout.len() < 2 * std::fs::metadata(home.path().join("oci.tar"))?.len() as usize - 4096);
    skopeo(&["inspect", &format!("oci-archive:{}:shop/two:1", both.display())])
        .or_else(|_| skopeo(&["inspect", &format!("oci-archive:{}:docker.io/shop/two:1", both.display())]))?;
    cluster.ctl(&["image", "rm", "shop/two:1"])?.ok()?;
    Ok(())
}

#[test]
fn a_push_sends_what_the_registry_lacks_and_can_be_pulled_everywhere() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let _registry = Registry::start("10.63.0.1:7651", Some(("tester", "secret")))?;
    let name = "10.63.0.1:7651/shop/pushed:1";
    let wanted = diff_ids(&inspect(&cluster, HELLO)?);
    let first = cluster.ctl(&["image", "push", HELLO, name])?.ok()?;
    let there: Value = skopeo(&[
        "inspect",
        "--config",
        "--tls-verify=false",
        "--creds",
        "tester:secret",
        &format!("docker://{name}"),
    ])?
    .json()?;
    ensure!(there["rootfs"]["diff_ids"] == Value::from(wanted.clone()), "{there}");
    let (_, pushed) = first.stdout.trim().split_once('@').context("no digest was printed")?;
    let raw =
        skopeo(&["inspect", "--tls-verify=false", "--creds", "tester:secret", &format!("docker://{name}")])?.json()?;
    ensure!(raw["Digest"] == pushed, "{} {raw}", first.stdout);
    // Layers that are kept as tars only are compressed anew, and ctl says so.
    ensure!(first.stderr.matches("compressed anew").count() == 3, "{}", first.stderr);
    let again = cluster.ctl(&["image", "push", HELLO, name])?.ok()?;
    ensure!(again.stdout == first.stdout && again.stderr.matches("there already").count() == 4, "{}", again.stderr);

    // Pulled on every node, pushed to another repository of the registry: the blobs are mounted, and nothing changes.
    cluster.ctl(&["image", "pull", "--all-nodes", name])?.ok()?;
    let nodes = cluster.nodes()?;
    eventually("every node has it", 60, || {
        let image = inspect(&cluster, name)?;
        let have = image["status"]["nodes"].as_array().map_or(0, Vec::len);
        ensure!(have == nodes.len() && image["spec"]["digest"] == pushed, "{image}");
        Ok(())
    })?;
    let other = "10.63.0.1:7651/other/place:2";
    let mounted = cluster.ctl(&["image", "push", name, other])?.ok()?;
    ensure!(mounted.stdout.trim() == format!("{other}@{pushed}"), "{}", mounted.stdout);
    ensure!(mounted.stderr.matches("mounted").count() == 3, "{}", mounted.stderr);
    for name in [name, other] {
        cluster.ctl(&["image", "rm", name])?;
    }
    // Wrong names and closed doors are named.
    let refused = cluster.ctl(&["image", "push", HELLO, "10.63.0.1:7650/x:1"])?.code_is(5)?;
    ensure!(refused.stderr.contains("10.63.0.1:7650"), "{}", refused.stderr);
    cluster.ctl(&["image", "push", HELLO, &format!("10.63.0.1:7651/x@{pushed}")])?.code_is(1)?;
    Ok(())
}

#[test]
fn what_a_container_has_made_becomes_an_image_that_runs_on_every_node() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let script = "echo made >/made; rm /etc/group; i=0; while :; do i=$((i+1)); echo $i >/count; sleep 1; done";
    cluster.apply(&pod("maker", "hello:1", script), &["--wait", "--timeout", "60s"])?.ok()?;
    eventually("it has begun", 30, || cluster.exec("maker", &["cat", "/count"]))?;
    let made = cluster
        .ctl(&[
            "commit",
            "maker",
            "shop/made:1",
            "-m",
            "by hand",
            "-a",
            "me",
            "-c",
            "ENV KIND=made",
            "-c",
            "CMD [\"sh\"]",
        ])?
        .ok()?;
    ensure!(made.stdout == "image/docker.io/shop/made:1\n", "{}", made.stdout);
    let image = inspect(&cluster, "shop/made:1")?;
    let mut base = diff_ids(&inspect(&cluster, HELLO)?);
    base.push(diff_ids(&image).last().context("layers")?.clone());
    ensure!(diff_ids(&image) == base, "one layer more: {image}");
    let steps = cluster.ctl(&["image", "history", "shop/made:1"])?.ok()?.stdout;
    ensure!(steps.contains("by hand") && steps.contains("commit"), "{steps}");
    // The container was frozen only while its files were read.
    let count = cluster.exec("maker", &["cat", "/count"])?;
    eventually("it counts on", 30, || {
        let now = cluster.exec("maker", &["cat", "/count"])?;
        ensure!(now != count, "{now}");
        Ok(())
    })?;
    cluster.delete(&["pod/maker"])?;

    let each = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: made}\nspec:\n  selector: {matchLabels: {app: made}}\n  template:\n    metadata: {labels: {app: made}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n      - {name: c, image: 'shop/made:1', command: [sh, -c, 'cat /made; echo $KIND; ls /etc; exec sleep 1000']}\n";
    cluster.apply(each, &["--wait", "--timeout", "90s"])?.ok()?;
    let nodes = cluster.nodes()?.len();
    for pod in cluster.running("made", nodes, 60)? {
        let name = pod["meta"]["name"].as_str().context("name")?;
        let log = eventually("its log", 30, || {
            let log = cluster.ctl(&["logs", name])?.ok()?.stdout;
            ensure!(log.contains("passwd"), "{log}");
            Ok(log)
        })?;
        ensure!(log.starts_with("made\nmade\n") && !log.contains("group"), "{log}");
    }
    cluster.delete(&["workload/made"])?;
    cluster.ctl(&["image", "rm", "shop/made:1"])?.ok()?;
    Ok(())
}

fn used(dir: &Path) -> Result<u64> {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(dir).output()?;
    Ok(String::from_utf8(output.stdout)?.split_whitespace().next().context("du")?.parse()?)
}

#[test]
fn a_prune_frees_what_nobody_needs_and_tells_the_truth() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster
        .apply(
            &pod("waste", "hello:1", "head -c 3000000 /dev/urandom >/waste; exec sleep 1000"),
            &["--wait", "--timeout", "60s"],
        )?
        .ok()?;
    eventually("the file is written", 30, || {
        let size = cluster.exec("waste", &["stat", "-c", "%s", "/waste"])?;
        ensure!(size == "3000000\n", "{size}");
        Ok(())
    })?;
    // The name moves on to another image, so the first has none.
    cluster.ctl(&["commit", "waste", "shop/waste:1"])?.ok()?;
    let lost = inspect(&cluster, "shop/waste:1")?;
    cluster.exec("waste", &["sh", "-c", "echo more >/more"])?;
    cluster.ctl(&["commit", "waste", "shop/waste:1"])?.ok()?;
    let node = cluster.pod("waste")?["status"]["node"].as_str().context("node")?.to_owned();
    let state = cluster.node(&node)?.state;
    let layer = diff_ids(&lost).last().and_then(|d| d.as_str().map(|d| d.replace(':', "-"))).context("layer")?;
    let file = state.join("layers").join(layer);
    ensure!(file.exists(), "{}", file.display());
    // What is only seconds old stays: the cluster may not have heard of it yet.
    eventually("the layer is pruned, and the disk has its bytes back", 90, || {
        let before = used(&state.join("layers"))? + used(&state.join("blobs"))? + used(&state.join("images"))?;
        let said = cluster.ctl(&["image", "prune"])?.ok()?.stdout;
        let after = used(&state.join("layers"))? + used(&state.join("blobs"))? + used(&state.join("images"))?;
        let line = said.lines().find(|l| l.starts_with(&node)).context("no line for the node")?;
        let freed: u64 = line.split_whitespace().nth(3).context("bytes")?.parse()?;
        ensure!(before - after == freed, "{freed} said, {} freed", before - after);
        ensure!(!file.exists() && freed >= 3_000_000, "{said}");
        Ok(())
    })?;
    // What has a name or a pod stays; with --all only what has a pod.
    digest(&cluster, "shop/waste:1")?;
    let all = cluster.ctl(&["image", "prune", "--all"])?.ok()?.stdout;
    ensure!(all.contains("shop/waste:1") && !all.contains(HELLO), "{all}");
    cluster.ctl(&["image", "inspect", "shop/waste:1"])?.code_is(3)?;
    cluster.exec("waste", &["cat", "/more"])?;
    cluster.delete(&["pod/waste"])?;
    // The demo image may have gone meanwhile, where nobody uses it: the next test imports it again.
    Ok(())
}

#[test]
fn nodes_and_pods_say_what_they_use() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&pod("busy", "hello:1", "while :; do :; done"), &["--wait", "--timeout", "60s"])?.ok()?;
    eventually("a loop uses processor time", 60, || {
        let pods = cluster.ctl(&["top", "pods", "busy", "-o", "json"])?.ok()?.json()?;
        ensure!(pods[0]["pod"] == "busy" && pods[0]["cpuMillis"].as_u64().is_some_and(|m| m > 50), "{pods}");
        ensure!(pods[0]["pids"] == 1 && pods[0]["memoryBytes"] != "0", "{pods}");
        Ok(())
    })?;
    let nodes = cluster.ctl(&["top", "nodes", "-o", "json"])?.ok()?.json()?;
    ensure!(nodes.as_array().context("nodes")?.len() == cluster.nodes()?.len(), "{nodes}");
    ensure!(nodes[0]["memoryBytes"] != "0" && nodes[0]["diskTotalBytes"] != "0", "{nodes}");
    let table = cluster.ctl(&["top", "pods", "--containers"])?.ok()?.stdout;
    ensure!(table.starts_with("NAME") && table.contains("busy"), "{table}");
    cluster.ctl(&["top", "pods", "no-such"])?.code_is(3)?;
    cluster.delete(&["pod/busy"])
}
