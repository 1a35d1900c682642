//! What a container is given and what it can do: commands, users, limits, logs, exec, exit codes.

use anyhow::{Context, Result, ensure};
use std::{process::Command, time::Instant};
use strata_testkit::{Cluster, Run, eventually};

/// A bare pod of the demo image; `container` is further YAML of its container, in flow style.
fn pod(name: &str, policy: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: 'hello:1', {container}}}\n"
    )
}

fn sh(script: &str) -> String {
    format!("command: [sh, -c, {}]", serde_json::Value::from(script))
}

/// Runs a script in a pod that ends; returns its status and its log.
fn run(cluster: &Cluster, name: &str, container: &str) -> Result<(serde_json::Value, String)> {
    cluster.ensure_hello()?;
    cluster.apply(&pod(name, "Never", container), &[])?.ok()?;
    let ended = cluster.pod_until(name, 30, |s| s["phase"] == "Exited" || s["phase"] == "Failed")?;
    let log = cluster.ctl(&["logs", name])?.ok()?.stdout;
    cluster.delete(&[&format!("pod/{name}")])?;
    Ok((ended["status"].clone(), log))
}

#[test]
fn command_args_env_working_dir_and_user_arrive() -> Result<()> {
    let cluster = Cluster::here()?;
    let script =
        "id -u; id -g; pwd; echo $GREETING; hostname; cat /proc/self/status | grep -E 'NoNewPrivs|CapBnd|Seccomp:'";
    let (status, log) = run(
        &cluster,
        "given",
        &format!(
            "{}, env: [{{name: GREETING, value: hi there}}], workingDir: /tmp, securityContext: {{runAsUser: 1234, runAsGroup: 567}}",
            sh(script)
        ),
    )?;
    ensure!(status["phase"] == "Exited" && status["containers"][0]["exitCode"] == 0, "{status}");
    let lines: Vec<&str> = log.lines().collect();
    ensure!(lines[..5] == ["1234", "567", "/tmp", "hi there", "given"], "{log}");
    ensure!(log.contains("NoNewPrivs:\t1") && log.contains("Seccomp:\t2"), "{log}");
    // Docker's set without NET_RAW (13) and MKNOD (27).
    ensure!(log.contains("CapBnd:\t00000000a00405fb"), "{log}");
    Ok(())
}

#[test]
fn exit_codes_and_reasons_are_told() -> Result<()> {
    let cluster = Cluster::here()?;
    let (status, _) = run(&cluster, "three", &sh("exit 3"))?;
    let c = &status["containers"][0];
    ensure!(status["phase"] == "Failed" && c["exitCode"] == 3 && c["reason"] == "Error", "{status}");
    // A signal from outside of its pid namespace ends even process 1.
    cluster.apply(&pod("signalled", "Never", "command: [sleep, '1000']"), &["--wait", "--timeout", "30s"])?.ok()?;
    cluster.kill9(cluster.pid("signalled")?)?;
    let ended = cluster.pod_until("signalled", 30, |s| s["phase"] == "Failed")?;
    ensure!(ended["status"]["containers"][0]["exitCode"] == 137, "{ended}");
    cluster.delete(&["pod/signalled"])?;
    let (status, _) = run(&cluster, "missing", "command: [/no/such/program]")?;
    let c = &status["containers"][0];
    ensure!(status["phase"] == "Failed" && c["exitCode"] == 127 && c["reason"] == "StartError", "{status}");
    ensure!(c["message"].as_str().is_some_and(|m| m.contains("/no/such/program")), "{status}");
    Ok(())
}

#[test]
fn a_memory_hog_ends_as_oom_killed() -> Result<()> {
    let cluster = Cluster::here()?;
    let (status, _) =
        run(&cluster, "hog", &format!("{}, resources: {{limits: {{memory: 16Mi}}}}", sh("exec tail /dev/zero")))?;
    let c = &status["containers"][0];
    ensure!(c["reason"] == "OOMKilled" && c["exitCode"] == 137, "{status}");
    Ok(())
}

#[test]
fn a_fork_bomb_stays_in_its_pod() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let bomb = pod(
        "bomb",
        "Never",
        &format!("{}, resources: {{limits: {{cpu: 200m, memory: 64Mi}}}}", sh("b() { b | b & }; b; sleep 1000")),
    );
    cluster.apply(&bomb, &[])?.ok()?;
    cluster.pod_until("bomb", 30, |s| s["phase"] == "Running" || s["phase"] == "Exited" || s["phase"] == "Failed")?;
    // The rest of the node goes on: another pod starts beside it.
    let (status, log) = run(&cluster, "beside", &sh("echo alive"))?;
    ensure!(status["phase"] == "Exited" && log == "alive\n", "{status} {log}");
    cluster.delete(&["pod/bomb"])
}

#[test]
fn sixty_four_mebibytes_of_logs_block_nothing_and_stay_bounded() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let script = "head -c 50331648 /dev/zero | tr '\\0' x | fold -w 127 >/dev/null; i=0; while [ $i -lt 64 ]; do head -c 1048576 /dev/zero; echo; i=$((i+1)); done; echo end; sleep 1000";
    cluster.apply(&pod("chatty", "Never", &sh(&script[script.find("i=0").context("script")?..])), &[])?.ok()?;
    cluster.pod_until("chatty", 30, |s| s["phase"] == "Running")?;
    eventually("the last line", 30, || {
        let tail = cluster.ctl(&["logs", "chatty", "--tail", "1"])?.ok()?.stdout;
        ensure!(tail == "end\n", "{} bytes", tail.len());
        Ok(())
    })?;
    let pod = cluster.pod("chatty")?;
    let node = cluster.node(pod["status"]["node"].as_str().context("node")?)?;
    let dir = node.state.join("pods").join(pod["meta"]["uid"].as_str().context("uid")?);
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(&dir).output()?;
    let bytes: u64 = String::from_utf8(output.stdout)?.split_whitespace().next().context("du")?.parse()?;
    ensure!(bytes < 25 << 20, "{bytes} bytes on disk");
    cluster.delete(&["pod/chatty"])
}

#[test]
fn logs_can_be_followed() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&pod("ticking", "Never", &sh("for i in 1 2 3 4 5; do echo tick $i; sleep 0.2; done")), &[])?.ok()?;
    cluster.pod_until("ticking", 30, |s| {
        s["phase"] != "Pending" && s["phase"] != "Assigned" && s["phase"] != "Preparing"
    })?;
    let log = cluster.ctl(&["logs", "-f", "ticking"])?.ok()?.stdout;
    ensure!(log == "tick 1\ntick 2\ntick 3\ntick 4\ntick 5\n", "{log}");
    cluster.delete(&["pod/ticking"])
}

#[test]
fn exec_gives_streams_codes_and_a_terminal() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster.apply(&pod("shell", "Always", "command: [sleep, '1000']"), &["--wait", "--timeout", "30s"])?.ok()?;
    let run = cluster.ctl(&["exec", "shell", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?.code_is(7)?;
    ensure!(run.stdout == "out\n" && run.stderr.contains("err\n"), "{run:?}");
    let echoed = Run::of(cluster.command(&["exec", "-i", "shell", "--", "cat"]), "through\nand through\n")?.ok()?;
    ensure!(echoed.stdout == "through\nand through\n", "{echoed:?}");
    cluster.ctl(&["exec", "shell", "--", "/no/such"])?.code_is(127)?;
    cluster.ctl(&["exec", "shell", "--", "sh", "-c", "kill -KILL $$"])?.code_is(137)?;
    // With a terminal: script(1) gives ctl one, the container sees one of its own.
    let ctl = cluster.home().join("bin/ctl");
    let line = format!("{} exec -it shell -- sh -c 'test -t 0 && test -t 1 && echo terminal; exit 5'", ctl.display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("STRATA_CONFIG", cluster.home().join("controller/admin.toml"));
    let run = Run::of(command, "")?.code_is(5)?;
    ensure!(run.stdout.contains("terminal"), "{run:?}");
    cluster.delete(&["pod/shell"])
}

#[test]
fn a_run_from_the_command_line_ends_with_its_code() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let run =
        cluster.ctl(&["run", "hello:1", "--rm", "--name", "once", "--", "sh", "-c", "echo hi; exit 4"])?.code_is(4)?;
    ensure!(run.stdout.contains("hi"), "{run:?}");
    cluster.delete(&["pod/once"])
}

#[test]
fn the_container_is_isolated() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster
        .apply(
            &pod("jail", "Always", "command: [sleep, '1000'], securityContext: {runAsUser: 0}"),
            &["--wait", "--timeout", "30s"],
        )?
        .ok()?;
    let pid = cluster.pid("jail")?;
    for ns in ["pid", "mnt", "net", "ipc", "uts", "cgroup", "user"] {
        let inside = std::fs::read_link(format!("/proc/{pid}/ns/{ns}"))?;
        let outside = std::fs::read_link(format!("/proc/self/ns/{ns}"))?;
        ensure!(inside != outside, "the {ns} namespace is shared with the host");
    }
    let uid_map = std::fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    let fields: Vec<u64> = uid_map.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(fields[0] == 0 && fields[1] >= 65_536 && fields[2] == 65_536, "{uid_map}");
    for (what, script) in [
        ("mount", "mount -t tmpfs x /tmp"),
        ("a write to /proc/sys", "echo 1 > /proc/sys/kernel/panic"),
        ("a write to sysrq", "echo h > /proc/sysrq-trigger"),
        ("a read of kcore", "test -s /proc/kcore && head -c 1 /proc/kcore | grep -q ."),
        ("a write to /sys", "echo 1 > /sys/kernel/mm/ksm/run"),
    ] {
        let run = cluster.ctl(&["exec", "jail", "--", "sh", "-c", script])?;
        ensure!(run.code != 0, "{what} worked");
    }
    // Ping sockets need no NET_RAW, low ports no NET_BIND_SERVICE.
    ensure!(
        cluster.exec("jail", &["cat", "/proc/sys/net/ipv4/ping_group_range"])?.split_whitespace().eq(["0", "65535"])
    );
    ensure!(cluster.exec("jail", &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"])? == "0\n");
    let fds = cluster.exec("jail", &["ls", "/proc/1/fd"])?;
    ensure!(fds.split_whitespace().collect::<Vec<_>>() == ["0", "1", "2"], "{fds}");
    cluster.delete(&["pod/jail"])
}

#[test]
fn run_as_non_root_and_read_only_root_are_enforced() -> Result<()> {
    let cluster = Cluster::here()?;
    let (status, _) =
        run(&cluster, "rootless", &format!("{}, securityContext: {{runAsUser: 0, runAsNonRoot: true}}", sh("true")))?;
    ensure!(status["phase"] == "Failed" && status.to_string().contains("runAsNonRoot"), "{status}");
    let (status, _) = run(
        &cluster,
        "readonly",
        &format!("{}, securityContext: {{readOnlyRootFilesystem: true, runAsUser: 0}}", sh("echo x > /file")),
    )?;
    ensure!(status["containers"][0]["exitCode"] == 1, "{status}");
    Ok(())
}

#[test]
fn a_stop_signal_ends_a_pod_within_its_grace() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let deaf = pod("deaf", "Always", &sh("trap '' TERM; while true; do sleep 1; done"))
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 2");
    cluster.apply(&deaf, &["--wait", "--timeout", "30s"])?.ok()?;
    let from = Instant::now();
    cluster.delete(&["pod/deaf"])?;
    let took = from.elapsed();
    ensure!(took.as_secs() >= 2 && took.as_secs() < 12, "{took:?}");
    Ok(())
}

#[test]
fn a_container_that_ends_starts_again_with_back_off_and_keeps_its_files() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    cluster
        .apply(
            &pod(
                "phoenix",
                "Always",
                &format!(
                    "{}, securityContext: {{runAsUser: 0}}",
                    sh(
                        "echo life >> /tmp/lives; cat /tmp/lives; [ $(wc -l < /tmp/lives) -ge 3 ] && sleep 1000; exit 9"
                    )
                ),
            ),
            &[],
        )?
        .ok()?;
    let pod = cluster.pod_until("phoenix", 60, |s| {
        s["containers"][0]["restarts"] == 2 && s["containers"][0]["state"] == "Running"
    })?;
    let c = &pod["status"]["containers"][0];
    ensure!(c["lastExit"]["exitCode"] == 9 && pod["status"]["attempt"] == 0, "{pod}");
    cluster.delete(&["pod/phoenix"])
}
