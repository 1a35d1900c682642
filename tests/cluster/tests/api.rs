//! The command line's contract: JSON documents, exit codes, conflicts, bad manifests.

use anyhow::{Context, Result, ensure};
use std::thread;
use strata_testkit::{Cluster, Run};

fn workload(name: &str, replicas: u32) -> String {
    format!(
        "kind: Workload\nmeta: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  template:\n    terminationGraceS: 0\n    containers:\n    - {{name: c, image: \"hello:1\", command: [sleep, \"1000\"]}}\n"
    )
}

#[test]
fn documents_have_every_field_of_the_contract() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("fields", 1), &["--wait", "--timeout", "60s"])?.ok()?;
    let w = cluster.ctl(&["get", "workload", "fields", "-o", "json"])?.ok()?.json()?;
    ensure!(w["kind"] == "Workload" && w["meta"]["namespace"] == "default" && w["spec"]["replicas"] == 1, "{w}");
    for field in ["replicas", "ready", "updated", "revision", "reason", "message"] {
        ensure!(!w["status"][field].is_null(), "status.{field} is missing in {w}");
    }
    for field in ["name", "namespace", "uid", "labels", "annotations", "generation", "revision"] {
        ensure!(!w["meta"][field].is_null(), "meta.{field} is missing in {w}");
    }
    let pods = cluster.running("fields", 1, 5)?;
    let pod = &pods[0];
    for field in ["phase", "ready", "reason", "message", "node", "address", "addresses", "attempt", "containers"] {
        ensure!(!pod["status"][field].is_null(), "status.{field} is missing in {pod}");
    }
    for field in ["name", "state", "ready", "restarts", "exitCode", "reason", "lastExit", "image", "imageDigest", "pid"]
    {
        ensure!(!pod["status"]["containers"][0][field].is_null(), "containers[0].{field} is missing in {pod}");
    }
    ensure!(pod["status"]["containers"][0]["pid"].is_u64(), "pids are numbers");
    let node = cluster.ctl(&["get", "node", "node-1", "-o", "json"])?.ok()?.json()?;
    for field in ["phase", "address", "capacity", "allocated", "layers", "layerMount"] {
        ensure!(!node["status"][field].is_null(), "status.{field} is missing in {node}");
    }
    for (args, word) in [
        (["get", "po", "-o", "name"], "fields-0"),
        (["get", "deploy", "-o", "table"], "fields"),
        (["get", "nodes", "-o", "yaml"], "node-2"),
    ] {
        let run = cluster.ctl(&args)?.ok()?;
        ensure!(run.stdout.contains(word), "{args:?}: {}", run.stdout);
    }
    let text = cluster.ctl(&["describe", "pod", "fields-0"])?.ok()?.stdout;
    ensure!(text.contains("Running"), "{text}");
    cluster.delete(&["workload/fields"])
}

#[test]
fn exit_codes_say_what_happened() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ctl(&["get", "workload", "nothing-of-this-name"])?.code_is(3)?;
    cluster.ctl(&["no-such-verb"])?.code_is(2)?;
    cluster.ctl(&["delete", "pod", "nothing-of-this-name"])?.code_is(3)?;
    cluster.apply("kind: Workload\nmeta: {name: x}\nspec: {replicsa: 1}\n", &[])?.code_is(1)?;
    cluster.ctl(&["wait", "node", "node-1", "--for", "phase=Lost", "--timeout", "1s"])?.code_is(6)?;
    let mut nowhere = cluster.command(&["get", "nodes"]);
    let config = std::fs::read_to_string(cluster.home().join("controller/admin.toml"))?.replace(":7600", ":1");
    let file = cluster.home().join("nowhere.toml");
    std::fs::write(&file, config)?;
    nowhere.env("STRATA_CONFIG", &file);
    Run::of(nowhere, "")?.code_is(5)?;
    std::fs::remove_file(file)?;
    Ok(())
}

#[test]
fn a_stale_revision_is_a_conflict_and_two_at_once_both_end() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&workload("twice", 0), &[])?.ok()?;
    let old = cluster.ctl(&["get", "workload", "twice", "-o", "json"])?.ok()?.json()?;
    let revision = old["meta"]["revision"].as_str().context("revision")?.to_owned();
    let with =
        |n: u32| workload("twice", n).replace("{name: twice}", &format!("{{name: twice, revision: \"{revision}\"}}"));
    cluster.apply(&with(1), &[])?.ok()?;
    let run = cluster.apply(&with(2), &[])?.code_is(4)?;
    ensure!(run.stderr.contains("revision"), "{}", run.stderr);

    thread::scope(|scope| -> Result<()> {
        let all: Vec<_> = (0..8)
            .map(|i| {
                scope.spawn({
                    let c = &cluster;
                    move || c.apply(&workload("twice", i % 2), &[])?.ok()
                })
            })
            .collect();
        for one in all {
            one.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        }
        Ok(())
    })?;
    cluster.delete(&["workload/twice"])
}

#[test]
fn bad_manifests_are_refused_with_line_and_column() -> Result<()> {
    let cluster = Cluster::here()?;
    let deep = format!("kind: Workload\nmeta: {{name: x}}\nspec: {}1{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!("# {}\n", "x".repeat(32 << 20));
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "unknown field",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: c\n    imagee: hello:1\n",
            &["7:", "imagee"],
        ),
        (
            "not built yet",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  hostNetwork: true\n  containers: [{name: c, image: a}]\n",
            &["5:", "hostNetwork"],
        ),
        (
            "bad quantity",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: c\n    image: a\n    resources: {limits: {memory: 12Mo}}\n",
            &["8:", "12Mo"],
        ),
        ("not yaml", "kind: [\n", &["1"]),
        (
            "bad name",
            "kind: Workload\nmeta: {name: Under_Score}\nspec: {template: {containers: [{name: c, image: a}]}}\n",
            &["Under_Score"],
        ),
        ("deep", &deep, &[]),
        ("huge", &huge, &["8"]),
    ];
    for (what, text, words) in cases {
        let run = cluster.apply(text, &[])?;
        ensure!(run.code == 1 || run.code == 2, "{what}: {run:?}", run = &run.stderr[..run.stderr.len().min(500)]);
        for word in *words {
            ensure!(run.stderr.contains(word), "{what}: no {word:?} in {}", run.stderr);
        }
        ensure!(run.stderr.len() < 20_000, "{what}: a message of {} bytes", run.stderr.len());
    }
    cluster.ctl(&["get", "pod", "x"])?.code_is(3)?;
    Ok(())
}

#[test]
fn a_known_field_without_effect_is_named_in_a_warning() -> Result<()> {
    let cluster = Cluster::here()?;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: warned}\nspec:\n  serviceAccountName: default\n  containers: [{name: c, image: 'hello:1'}]\n";
    let run = cluster.apply(pod, &["--dry-run=client"])?.ok()?;
    ensure!(run.stderr.contains("serviceAccountName"), "{}", run.stderr);
    cluster.apply(pod, &["--dry-run=server"])?.ok()?;
    cluster.ctl(&["get", "pod", "warned"])?.code_is(3)?;
    Ok(())
}

#[test]
fn a_certificate_of_another_cluster_opens_nothing() -> Result<()> {
    let cluster = Cluster::here()?;
    // A node's certificate is no admin's; the API says so instead of answering.
    let node = cluster.node("node-1")?;
    let admin = std::fs::read_to_string(cluster.home().join("controller/admin.toml"))?;
    let cert = std::fs::read_to_string(node.state.join("identity/cert.pem"))?;
    let key = std::fs::read_to_string(node.state.join("identity/key.pem"))?;
    let swapped = swap_pem(&swap_pem(&admin, "cert", &cert)?, "key", &key)?;
    let file = cluster.home().join("node-as-admin.toml");
    std::fs::write(&file, swapped)?;
    let mut command = cluster.command(&["get", "pods"]);
    command.env("STRATA_CONFIG", &file);
    let run = Run::of(command, "")?;
    std::fs::remove_file(&file)?;
    run.code_is(7)?;
    Ok(())
}

/// Replaces the multi-line TOML string of one key.
fn swap_pem(toml: &str, key: &str, pem: &str) -> Result<String> {
    let start = toml.find(&format!("{key} = '''")).with_context(|| format!("no {key} in the admin's config"))?;
    let begin = start + key.len() + 6;
    let end = begin + toml[begin..].find("'''").context("unterminated")?;
    Ok(format!("{}\n{pem}{}", &toml[..begin], &toml[end..]))
}
