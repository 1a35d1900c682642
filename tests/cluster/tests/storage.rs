//! Configs, secrets and volumes on the real kernel.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use strata_testkit::{Cluster, Run, eventually};

const SECRET: &str = "correct-horse-battery-staple";

/// A config or secret with one key `word` and one `other`.
fn config(name: &str, word: &str) -> String {
    format!("kind: Config\nmeta: {{name: {name}}}\nspec: {{data: {{word: {word}, other: o}}}}\n")
}

fn secret(name: &str, word: &str) -> String {
    use std::io::Write as _;
    let mut base64 = std::process::Command::new("base64")
        .arg("-w0")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("base64");
    base64.stdin.take().expect("stdin").write_all(word.as_bytes()).expect("write");
    let text = String::from_utf8(base64.wait_with_output().expect("base64").stdout).expect("text");
    format!("kind: Secret\nmeta: {{name: {name}}}\nspec: {{data: {{word: {text}}}}}\n")
}

/// A pod of the demo image that sleeps: further YAML of its template and of its container, in flow style.
fn pod(name: &str, volumes: &str, container: &str) -> String {
    format!(
        "kind: Pod\nmeta: {{name: {name}, labels: {{app: {name}-app}}}}\nspec:\n  template:\n    terminationGraceS: 1\n    volumes: [{volumes}]\n    containers:\n    - {{name: c, image: 'hello:1', command: [sleep, '100000'], {container}}}\n"
    )
}

fn workload(name: &str, replicas: u32, container: &str) -> String {
    format!(
        "kind: Workload\nmeta: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  template:\n    terminationGraceS: 1\n    containers:\n    - {{name: c, image: 'hello:1', command: [sleep, '100000'], {container}}}\n"
    )
}

fn apply(cluster: &Cluster, manifest: &str) -> Result<Run> {
    cluster.apply(manifest, &[])?.ok()
}

fn start(cluster: &Cluster, name: &str, manifest: &str) -> Result<Value> {
    apply(cluster, manifest)?;
    cluster.pod_until(name, 60, |s| s["phase"] == "Running" && s["ready"] == true)
}

fn gone(cluster: &Cluster, kind: &str, name: &str) -> Result<()> {
    let run = cluster.ctl(&["delete", kind, name])?;
    ensure!(run.code == 0 || run.code == 3, "{}", run.stderr);
    eventually(&format!("{kind} {name} gone"), 60, || cluster.ctl(&["get", kind, name])?.code_is(3).map(drop))
}

/// STATE of the pod's node.
fn state_of(cluster: &Cluster, pod: &Value) -> Result<PathBuf> {
    let node = pod["status"]["node"].as_str().context("node")?;
    Ok(cluster.home().join(node))
}

/// Every file below a directory that has these bytes in it.
fn files_with(dir: &Path, bytes: &[u8], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_with(&path, bytes, found),
            Ok(kind) if kind.is_file() => {
                let content = fs::read(&path).unwrap_or_default();
                if content.windows(bytes.len()).any(|w| w == bytes) {
                    found.push(path);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn configs_secrets_and_fields_are_environment() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    apply(&cluster, &config("env-cfg", "blue-is-no-secret"))?;
    apply(&cluster, &secret("env-sec", SECRET))?;
    let env = "envFrom: [{prefix: ALL_, config: env-cfg}, {secret: nowhere, optional: true}], env: [\
        {name: WORD, config: {name: env-cfg, key: word}}, {name: PASSWORD, secret: {name: env-sec, key: word}}, \
        {name: NONE, secret: {name: env-sec, key: none, optional: true}}, {name: POD, field: metadata.name}, \
        {name: NODE, field: spec.nodeName}, {name: IP, field: status.podIP}, {name: HOST, field: status.hostIP}, \
        {name: APP, field: \"metadata.labels['app']\"}, {name: URL, value: 'x://$(WORD)@$(POD)'}]";
    let made = start(&cluster, "env-pod", &pod("env-pod", "", env))?;
    let seen = cluster.exec("env-pod", &["env"])?;
    let node = made["status"]["node"].as_str().context("node")?;
    let expected = [
        "ALL_word=blue-is-no-secret".to_owned(),
        "ALL_other=o".into(),
        "WORD=blue-is-no-secret".into(),
        format!("PASSWORD={SECRET}"),
        "POD=env-pod".into(),
        "APP=env-pod-app".into(),
        "URL=x://blue-is-no-secret@env-pod".into(),
        format!("NODE={node}"),
        format!("IP={}", made["status"]["address"].as_str().context("address")?),
    ];
    for line in &expected {
        ensure!(seen.lines().any(|l| l == line), "{line} is not in\n{seen}");
    }
    ensure!(!seen.contains("NONE=") && seen.lines().any(|l| l.starts_with("HOST=") && l.len() > 5), "{seen}");
    // What lies on any disk of the cluster, what ctl shows and what was logged: the word is nowhere in clear.
    let mut found = Vec::new();
    files_with(cluster.home(), SECRET.as_bytes(), &mut found);
    ensure!(found.is_empty(), "the secret lies in clear in {found:?}");
    // The search itself finds what is no secret.
    files_with(cluster.home(), b"blue-is-no-secret", &mut found);
    ensure!(!found.is_empty(), "a config is not found on any disk");
    for args in [
        &["get", "secret", "env-sec", "-o", "json"][..],
        &["get", "secrets", "-o", "yaml"],
        &["describe", "secret", "env-sec"],
        &["describe", "pod", "env-pod"],
        &["get", "templates", "-o", "json"],
        &["events"],
        &["logs", "env-pod"],
    ] {
        let run = cluster.ctl(args)?;
        let said = format!("{}{}", run.stdout, run.stderr);
        ensure!(!said.contains(SECRET) && !said.contains("Y29ycmVjdC1ob3JzZS"), "{args:?} tells the secret:\n{said}");
    }
    let shown = cluster.ctl(&["get", "secret", "env-sec", "-o", "json"])?.ok()?.json()?;
    ensure!(shown["status"]["keys"] == serde_json::json!(["word"]) && shown["spec"]["sealed"] == "", "{shown}");
    // The same again is no change.
    let again = apply(&cluster, &secret("env-sec", SECRET))?;
    ensure!(format!("{}{}", again.stdout, again.stderr).to_lowercase().contains("unchanged"), "{again:?}");
    cluster.delete(&["pod/env-pod"])?;
    gone(&cluster, "config", "env-cfg")?;
    gone(&cluster, "secret", "env-sec")
}

#[test]
fn configs_and_secrets_are_files_in_memory() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    apply(&cluster, &config("file-cfg", "blue"))?;
    apply(&cluster, &secret("file-sec", SECRET))?;
    let volumes = "{name: cfg, config: {name: file-cfg, items: [{key: word, path: etc/word.conf, mode: 256}]}}, \
        {name: sec, secret: {name: file-sec, mode: 288}}, {name: all, config: {name: file-cfg}}, \
        {name: none, secret: {name: nowhere, optional: true}}";
    let mounts = "security: {runAsUser: 0}, mounts: [{volume: cfg, path: /c}, {volume: sec, path: /run/s}, {volume: all, path: /etc/one.conf, subPath: other}, \
        {volume: none, path: /none}]";
    let made = start(&cluster, "file-pod", &pod("file-pod", volumes, mounts))?;
    let run = |words: &[&str]| cluster.exec("file-pod", words);
    ensure!(run(&["cat", "/c/etc/word.conf", "/run/s/word", "/etc/one.conf"])? == format!("blue{SECRET}o"));
    ensure!(
        run(&["stat", "-c", "%a %u %g", "/c/etc/word.conf", "/run/s/word", "/etc/one.conf"])?
            == "400 0 0\n440 0 0\n644 0 0\n"
    );
    ensure!(run(&["ls", "/none"])?.is_empty());
    let refused =
        cluster.ctl(&["exec", "file-pod", "--", "sh", "-c", "echo x > /run/s/word || echo x > /etc/one.conf"])?;
    ensure!(refused.code != 0 && refused.stderr.contains("Read-only"), "{refused:?}");
    ensure!(run(&["grep", "-c", " /run/s tmpfs ", "/proc/mounts"])?.trim() == "1");
    let mut found = Vec::new();
    files_with(cluster.home(), SECRET.as_bytes(), &mut found);
    ensure!(found.is_empty(), "the secret lies in clear in {found:?}");
    // A restarted container has them again, and with the pod they go.
    let pid = cluster.pid("file-pod")?;
    cluster.kill9(pid)?;
    cluster.pod_until("file-pod", 60, |s| s["ready"] == true && s["containers"][0]["restarts"] == 1)?;
    ensure!(run(&["cat", "/run/s/word"])? == SECRET);
    let dir = state_of(&cluster, &made)?.join("pods").join(made["meta"]["uid"].as_str().context("uid")?);
    ensure!(dir.is_dir());
    cluster.delete(&["pod/file-pod"])?;
    ensure!(!dir.exists(), "{} is left", dir.display());
    gone(&cluster, "config", "file-cfg")?;
    gone(&cluster, "secret", "file-sec")
}

#[test]
fn what_is_missing_is_waited_for_and_a_change_rolls() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let env = "env: [{name: W, config: {name: roll-cfg, key: word}}, {name: S, secret: {name: roll-sec, key: word}}]";
    apply(&cluster, &workload("roller", 2, env))?;
    let reason = |wanted: &'static str| {
        eventually(&format!("roller waits for {wanted}"), 60, || {
            let w = cluster.ctl(&["get", "workload", "roller", "-o", "json"])?.ok()?.json()?;
            ensure!(w["status"]["reason"] == wanted, "{}", w["status"]);
            Ok(w["status"]["message"].as_str().unwrap_or_default().to_owned())
        })
    };
    ensure!(reason("ConfigNotFound")?.contains("roll-cfg"));
    apply(&cluster, &config("roll-cfg", "one"))?;
    ensure!(reason("SecretNotFound")?.contains("roll-sec"));
    apply(&cluster, &secret("roll-sec", "first"))?;
    cluster.running("roller", 2, 60)?;
    let env_is = |wanted: &'static str| {
        eventually(&format!("every pod of roller has {wanted}"), 90, || {
            let pods = cluster.running("roller", 2, 1)?;
            for pod in pods {
                let name = pod["meta"]["name"].as_str().context("name")?;
                let seen = cluster.exec(name, &["sh", "-c", "echo $W/$S"])?;
                ensure!(seen.trim() == wanted, "{name} has {seen}");
            }
            Ok(())
        })
    };
    env_is("one/first")?;
    apply(&cluster, &config("roll-cfg", "two"))?;
    env_is("two/first")?;
    // A secret is rotated while it is in use: old pods keep theirs until they are replaced.
    apply(&cluster, &secret("roll-sec", "second"))?;
    env_is("two/second")?;
    // One that goes while it is in use changes nothing.
    let before = cluster.pods("roller")?.iter().map(|p| p["meta"]["uid"].clone()).collect::<Vec<_>>();
    gone(&cluster, "config", "roll-cfg")?;
    apply(&cluster, &config("unrelated", "x"))?;
    ensure!(cluster.pods("roller")?.iter().map(|p| p["meta"]["uid"].clone()).collect::<Vec<_>>() == before);
    cluster.delete(&["workload/roller"])?;
    gone(&cluster, "config", "unrelated")?;
    gone(&cluster, "secret", "roll-sec")
}

#[test]
fn scratch_space_lives_and_dies_with_its_pod() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let manifest = "kind: Pod\nmeta: {name: scratch-pod}\nspec:\n  template:\n    terminationGraceS: 1\n    volumes: [{name: d, scratch: {}}, {name: m, scratch: {memory: true, sizeBytes: '1048576'}}]\n    containers:\n    \
        - {name: a, image: 'hello:1', command: [sleep, '100000'], security: {runAsUser: 1000}, mounts: [{volume: d, path: /d}, {volume: m, path: /m}]}\n    \
        - {name: b, image: 'hello:1', command: [sleep, '100000'], mounts: [{volume: d, path: /x/d}, {volume: m, path: /x/m}, {volume: d, path: /ro, readOnly: true, subPath: sub/dir}]}\n";
    let made = start(&cluster, "scratch-pod", manifest)?;
    let run = |container: &str, script: &str| {
        cluster.ctl(&["exec", "scratch-pod", "-c", container, "--", "sh", "-c", script])
    };
    run("a", "echo disk > /d/f && echo memory > /m/f && chmod 600 /d/f")?.ok()?;
    ensure!(run("b", "cat /x/d/f /x/m/f; stat -c %u /x/d/f /x/m/f")?.ok()?.stdout == "disk\nmemory\n1000\n1000\n");
    ensure!(run("b", "echo x > /ro/x")?.stderr.contains("Read-only"));
    let full = run("a", "dd if=/dev/zero of=/m/big bs=64k count=32")?;
    ensure!(full.code != 0 && full.stderr.contains("No space"), "{full:?}");
    // Plain ids on disk; what is in memory is on no disk.
    let dir = state_of(&cluster, &made)?.join("pods").join(made["meta"]["uid"].as_str().context("uid")?);
    ensure!(fs::metadata(dir.join("v/d/f"))?.uid() == 1000);
    ensure!(!dir.join("m/m/f").exists());
    // A container that restarts finds both again; so does one that a new agent starts.
    let node = cluster.node(made["status"]["node"].as_str().context("node")?)?;
    cluster.kill9(node.pid)?;
    cluster.up()?;
    cluster.kill9(cluster.pid("scratch-pod")?)?;
    cluster.pod_until("scratch-pod", 60, |s| s["ready"] == true && s["containers"][0]["restarts"] == 1)?;
    ensure!(run("a", "cat /d/f /m/f")?.ok()?.stdout == "disk\nmemory\n");
    cluster.delete(&["pod/scratch-pod"])?;
    ensure!(!dir.exists(), "{} is left", dir.display());
    Ok(())
}

#[test]
fn named_volumes_outlive_pods_and_keep_plain_ids() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let volumes = "{name: v, volume: notes}";
    let mounts = "security: {runAsUser: 1234}, mounts: [{volume: v, path: /data}]";
    // Without its volume a pod waits, and goes on by itself.
    apply(&cluster, &pod("writer", volumes, mounts))?;
    let waits = cluster.pod_until("writer", 60, |s| s["reason"] == "VolumeNotFound")?;
    ensure!(waits["status"]["message"].as_str().is_some_and(|m| m.contains("notes")), "{waits}");
    apply(&cluster, "kind: Volume\nmeta: {name: notes}\n")?;
    let made = cluster.pod_until("writer", 60, |s| s["ready"] == true)?;
    cluster.exec("writer", &["sh", "-c", "echo kept > /data/f; chmod 600 /data/f"])?;
    let node = made["status"]["node"].as_str().context("node")?.to_owned();
    let file = cluster.home().join(&node).join("volumes/default/notes/f");
    ensure!(fs::metadata(&file)?.uid() == 1234, "ids on disk are plain");
    let volume = cluster.ctl(&["get", "volume", "notes", "-o", "json"])?.ok()?.json()?;
    ensure!(volume["spec"]["node"] == node.as_str(), "{volume}");
    ensure!(volume["status"]["pods"] == serde_json::json!(["writer"]), "{volume}");
    // It is not taken from under a pod.
    let refused = cluster.ctl(&["delete", "volume", "notes"])?;
    ensure!(refused.code != 0 && refused.stderr.contains("in use by the pods writer"), "{refused:?}");
    // Every later pod goes where it is, with other ids of its own on the host and the same in the volume.
    cluster.delete(&["pod/writer"])?;
    for i in 0..3 {
        let name = format!("reader-{i}");
        let made = start(&cluster, &name, &pod(&name, volumes, mounts))?;
        ensure!(made["status"]["node"] == node.as_str(), "{made}");
        ensure!(cluster.exec(&name, &["cat", "/data/f"])?.trim() == "kept");
    }
    // Elsewhere there is no place for them, and that is said.
    let everywhere = workload("everywhere", 1, mounts)
        .replace("  replicas: 1\n", "  mode: Global\n")
        .replace("    terminationGraceS: 1\n", &format!("    terminationGraceS: 1\n    volumes: [{volumes}]\n"));
    apply(&cluster, &everywhere)?;
    let nodes = cluster.nodes()?.len();
    eventually("one pod of everywhere runs, the others say why not", 60, || {
        let pods = cluster.pods("everywhere")?;
        let told = format!("does not have volume notes, which is on {node}");
        let waiting =
            pods.iter().filter(|p| p["status"]["message"].as_str().is_some_and(|m| m.contains(&told))).count();
        let running =
            pods.iter().filter(|p| p["status"]["ready"] == true && p["status"]["node"] == node.as_str()).count();
        ensure!(running == 1 && waiting == nodes - 1, "{running} run, {waiting} wait: {pods:?}");
        Ok(())
    })?;
    cluster.delete(&["workload/everywhere"])?;
    cluster.delete(&["pod/reader-0", "pod/reader-1", "pod/reader-2"])?;
    ensure!(file.exists());
    gone(&cluster, "volume", "notes")?;
    ensure!(!file.exists(), "the data is gone with the volume");
    Ok(())
}

#[test]
fn a_volume_goes_when_its_node_is_back_and_links_do_not_lead_out() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    apply(&cluster, "kind: Volume\nmeta: {name: away}\n")?;
    let volumes = "{name: v, volume: away}";
    let made = start(&cluster, "linker", &pod("linker", volumes, "mounts: [{volume: v, path: /data}]"))?;
    // Links that would lead out of the volume if the node followed them.
    cluster.exec("linker", &["sh", "-c", "ln -s / /data/root; ln -s /etc /data/etc; ln -s ../../../.. /data/up"])?;
    let mounts = "mounts: [{volume: v, path: /a, subPath: root}, {volume: v, path: /b, subPath: up}]";
    start(&cluster, "victim", &pod("victim", volumes, mounts))?;
    for path in ["/a", "/b"] {
        let seen = cluster.exec("victim", &["ls", path])?;
        ensure!(seen.split_whitespace().collect::<Vec<_>>() == ["etc", "root", "up"], "{path} shows {seen}");
    }
    let etc = pod("hostile", volumes, "mounts: [{volume: v, path: /a, subPath: etc}]");
    apply(&cluster, &etc)?;
    let told = cluster.pod_until("hostile", 60, |s| {
        s["containers"][0]["reason"] == "StartError" || s["containers"][0]["lastExit"]["reason"] == "StartError"
    })?;
    ensure!(format!("{told}").contains("subPath etc"), "{told}");
    cluster.delete(&["pod/linker", "pod/victim", "pod/hostile"])?;
    // The node is away when the volume is deleted: its data goes when it is back.
    let node = cluster.node(made["status"]["node"].as_str().context("node")?)?;
    let dir = node.state.join("volumes/default/away");
    ensure!(dir.is_dir());
    cluster.kill9(node.pid)?;
    cluster.ctl(&["delete", "volume", "away"])?.ok()?;
    cluster.up()?;
    eventually("the volume is gone", 90, || cluster.ctl(&["get", "volume", "away"])?.code_is(3).map(drop))?;
    ensure!(!dir.exists(), "{} is left", dir.display());
    Ok(())
}

#[test]
fn host_paths_need_a_privileged_namespace() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let dir = cluster.home().join("host-path-test");
    let volumes = format!("{{name: h, hostPath: {{path: {}, type: DirectoryOrCreate}}}}", dir.display());
    let manifest = pod("hosted", &volumes, "security: {runAsUser: 77}, mounts: [{volume: h, path: /h}]");
    let refused = cluster.apply(&manifest, &[])?;
    ensure!(refused.code != 0 && refused.stderr.contains("spec.policy"), "{refused:?}");
    ensure!(!dir.exists());
    apply(&cluster, "kind: Namespace\nmeta: {name: trusted}\nspec: {policy: Privileged}\n")?;
    let manifest = manifest.replace("meta: {name: hosted,", "meta: {name: hosted, namespace: trusted,");
    apply(&cluster, &manifest)?;
    let run = |args: &[&str]| cluster.ctl(args);
    eventually("hosted runs", 60, || {
        let pod = run(&["get", "pod", "hosted", "-n", "trusted", "-o", "json"])?.ok()?.json()?;
        ensure!(pod["status"]["ready"] == true, "{}", pod["status"]);
        Ok(())
    })?;
    // The directory is root's: another user of the pod cannot write there until the host's root lets it, by the plain id.
    let write = ["exec", "-n", "trusted", "hosted", "--", "sh", "-c", "echo x > /h/f"];
    ensure!(run(&write)?.code != 0);
    std::os::unix::fs::chown(&dir, Some(77), Some(77))?;
    run(&write)?.ok()?;
    ensure!(fs::metadata(dir.join("f"))?.uid() == 77);
    run(&["delete", "pod", "hosted", "-n", "trusted"])?.ok()?;
    eventually("hosted is gone", 60, || run(&["get", "pod", "hosted", "-n", "trusted"])?.code_is(3).map(drop))?;
    run(&["delete", "namespace", "trusted"])?.ok()?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

#[test]
fn an_agent_that_dies_while_volumes_are_made_leaves_nothing() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let name = cluster.nodes()?.first().context("a node")?.name.clone();
    apply(&cluster, &format!("kind: Volume\nmeta: {{name: pinned}}\nspec: {{node: {name}}}\n"))?;
    apply(&cluster, &secret("killed-sec", SECRET))?;
    let volumes = "{name: v, volume: pinned}, {name: s, secret: {name: killed-sec}}, {name: m, scratch: {memory: true}}, {name: d, scratch: {}}";
    let mounts = "security: {runAsUser: 0}, mounts: [{volume: v, path: /v}, {volume: s, path: /s}, {volume: m, path: /m}, {volume: d, path: /d}]";
    for round in 0..3 {
        apply(&cluster, &pod("killed", volumes, mounts))?;
        // A different moment each time; whatever it is, the outcome is the same.
        std::thread::sleep(std::time::Duration::from_millis(round * 60));
        cluster.kill9(cluster.node(&name)?.pid)?;
        cluster.up()?;
        let made = cluster.pod_until("killed", 60, |s| s["ready"] == true)?;
        ensure!(made["status"]["node"] == name.as_str(), "{made}");
        ensure!(cluster.exec("killed", &["cat", "/s/word"])? == SECRET);
        cluster.exec("killed", &["sh", "-c", "echo x > /m/x && echo x > /d/x && echo x >> /v/x"])?;
        cluster.delete(&["pod/killed"])?;
        let node = cluster.node(&name)?;
        // The agent lives in the node's mount namespace.
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", node.pid))?;
        let dir = node.state.join("pods").join(made["meta"]["uid"].as_str().context("uid")?);
        let left: Vec<&str> = mounts.lines().filter(|l| l.contains(&*dir.to_string_lossy())).collect();
        ensure!(left.is_empty(), "mounts are left: {left:?}");
        ensure!(!dir.exists(), "the pod's directory is left");
    }
    ensure!(fs::read_to_string(cluster.home().join(&name).join("volumes/default/pinned/x"))? == "x\nx\nx\n");
    gone(&cluster, "secret", "killed-sec")?;
    gone(&cluster, "volume", "pinned")
}
