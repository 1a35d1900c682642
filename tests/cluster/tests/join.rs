//! A fourth machine joins the running cluster with a token, as `deploy/README.md` describes it, runs pods, and is taken out again.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use strata_testkit::{Cluster, Run, eventually};

const NAME: &str = "newcomer";
const ADDRESS: &str = "10.63.0.99";
/// Beyond the ranges of fifty quickstart nodes.
const ID_START: u32 = 60 << 26;

fn run(program: &str, args: &[&str]) -> Result<Run> {
    let mut command = Command::new(program);
    command.args(args);
    Run::of(command, "")?.ok()
}

/// A network namespace on the quickstart's bridge: a machine as far as an agent can tell.
struct Machine {
    state: PathBuf,
    agent: Option<Child>,
    cgroup: String,
}

impl Machine {
    fn new(cluster: &Cluster) -> Result<Self> {
        run("ip", &["netns", "add", NAME])?;
        let this = Self {
            state: cluster.home().join(NAME),
            agent: None,
            cgroup: cluster.cgroup_parent("node-1")?.replace("node-1", NAME),
        };
        run("ip", &["link", "add", "strata-up-new", "type", "veth", "peer", "name", "uplink", "netns", NAME])?;
        run("ip", &["link", "set", "strata-up-new", "master", "strata0", "up"])?;
        for args in [
            &["link", "set", "lo", "up"][..],
            &["addr", "add", "10.63.0.99/24", "dev", "uplink"],
            &["link", "set", "uplink", "up"],
            &["route", "add", "default", "via", "10.63.0.1"],
        ] {
            run("ip", &[&["-n", NAME], args].concat())?;
        }
        Ok(this)
    }

    fn agent(&self, cluster: &Cluster, args: &[&str]) -> Command {
        // Not by `ip netns exec`: that puts a new /sys over the cgroups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{NAME}")).arg(cluster.home().join("bin/strata-agent"));
        command.arg("--config").arg(self.state.with_extension("toml")).args(args);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.kill().ok();
            agent.wait().ok();
        }
        // Zygote and shims are not the agent's children: they go by their cgroup and their state directory.
        let state = self.state.display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>()
                && line.contains("strata-shim")
                && line.contains(&state)
                && let Some(pid) = rustix::process::Pid::from_raw(pid)
            {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
        // In every hierarchy of the machine; what was just killed needs a moment to leave its group.
        let script = format!(
            "for i in $(seq 100); do left=0; for d in /sys/fs/cgroup/{c} /sys/fs/cgroup/*/{c}; do [ -d $d ] || continue; left=1; \
             find $d -name cgroup.procs -exec cat {{}} + | xargs -r kill -9 2> /dev/null; \
             find $d -depth -type d -exec rmdir {{}} + 2> /dev/null; done; [ $left = 1 ] || break; sleep 0.1; done",
            c = self.cgroup
        );
        Command::new("sh").args(["-c", &script]).output().ok();
        Command::new("ip").args(["netns", "delete", NAME]).output().ok();
        Command::new("ip").args(["link", "delete", "strata-up-new"]).output().ok();
        for pin in ["pin/mnt", "pin"] {
            Command::new("umount").arg("-l").arg(self.state.join(pin)).status().ok();
        }
        fs::remove_dir_all(&self.state).ok();
        fs::remove_file(self.state.with_extension("toml")).ok();
    }
}

#[test]
fn a_machine_joins_by_token_runs_pods_and_is_taken_out() -> Result<()> {
    let cluster = Cluster::here()?;
    cluster.ensure_hello()?;
    let token = cluster.ctl(&["token", "create", "--ttl", "10m", "--uses", "1"])?.ok()?.stdout.trim().to_owned();
    let id = token.split('.').nth(2).context("token")?.to_owned();
    let listed = cluster.ctl(&["token", "ls"])?.ok()?.stdout;
    ensure!(listed.contains(&id) && !listed.contains(token.rsplit('.').next().context("secret")?), "{listed}");

    let mut machine = Machine::new(&cluster)?;
    let controller = cluster.status()?["controller"]["address"].as_str().context("address")?.to_owned();
    let state = machine.state.display().to_string();
    let listen = format!("{ADDRESS}:7610");
    let (cgroup, ids) = (machine.cgroup.clone(), ID_START.to_string());
    let args = [
        "join",
        &controller,
        "-",
        "--node",
        NAME,
        "--state-dir",
        &state,
        "--listen",
        &listen,
        "--cgroup-parent",
        &cgroup,
        "--id-start",
        &ids,
        "--label",
        "place=new",
    ];
    let joined = Run::of(machine.agent(&cluster, &args), &token)?.ok()?;
    ensure!(joined.stdout.contains("has joined") && joined.stdout.contains("next: "), "{}", joined.stdout);
    let settings = fs::read_to_string(machine.state.with_extension("toml"))?;
    ensure!(!settings.contains("strata."), "the token is in the settings: {settings}");
    // The same again changes nothing and needs no token; the token was good for one node.
    Run::of(machine.agent(&cluster, &args), "")?.ok()?;
    Run::of(machine.agent(&cluster, &["--check-config"]), "")?.ok()?;
    ensure!(!cluster.ctl(&["token", "ls"])?.ok()?.stdout.contains(&id), "the token is still there");

    let log = fs::File::create(cluster.home().join("newcomer.log"))?;
    let mut agent = machine.agent(&cluster, &[]);
    machine.agent = Some(agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
    let phase = || -> Result<String> {
        let node = cluster.ctl(&["get", "node", NAME, "-o", "json"])?.ok()?.json()?;
        Ok(node["status"]["phase"].as_str().unwrap_or_default().to_owned())
    };
    eventually("the new node is Ready", 60, || {
        ensure!(phase()? == "Ready", "it is {}", phase()?);
        Ok(())
    })?;
    let manifest = "kind: Workload\nmeta: {name: moved-in}\nspec:\n  replicas: 2\n  template:\n    terminationGraceS: 0\n    nodeSelector: {place: new}\n    containers: [{name: c, image: 'hello:1'}]\n";
    cluster.apply(manifest, &["--wait", "--timeout", "60s"])?.ok()?;
    for pod in cluster.running("moved-in", 2, 10)? {
        ensure!(pod["status"]["node"] == NAME, "{}", pod["status"]);
    }
    cluster.delete(&["workload/moved-in"])?;

    // A node that is alive is not removed under its pods.
    let refused = cluster.ctl(&["node", "rm", NAME])?;
    ensure!(refused.code != 0 && refused.stderr.contains("stop its agent"), "{}", refused.stderr);
    if let Some(mut agent) = machine.agent.take() {
        agent.kill()?;
        agent.wait()?;
    }
    eventually("the node is removed", 60, || cluster.ctl(&["node", "rm", NAME])?.ok())?;
    cluster.ctl(&["get", "node", NAME])?.code_is(3)?;
    fs::remove_file(cluster.home().join("newcomer.log"))?;
    Ok(())
}

#[test]
fn tokens_can_be_revoked() -> Result<()> {
    let cluster = Cluster::here()?;
    let token = cluster.ctl(&["token", "create"])?.ok()?.stdout.trim().to_owned();
    cluster.ctl(&["token", "rm", &token])?.ok()?;
    cluster.ctl(&["token", "rm", &token])?.code_is(3)?;
    let dir = cluster.home().join("revoked");
    let controller = cluster.status()?["controller"]["address"].as_str().context("address")?.to_owned();
    let mut join = Command::new(cluster.home().join("bin/strata-agent"));
    join.arg("--config").arg(dir.join("agent.toml")).args(["join", &controller, &token, "--node", "revoked"]);
    join.arg("--state-dir").arg(&dir);
    let run = Run::of(join, "")?;
    ensure!(run.code != 0 && run.stderr.contains("ctl token create"), "{} {}", run.code, run.stderr);
    ensure!(!dir.join("agent.toml").exists(), "settings were written");
    fs::remove_dir_all(dir)?;
    Ok(())
}
