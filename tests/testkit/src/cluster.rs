//! The running cluster.

use crate::{Node, Run};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// How often a state is looked at while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks until `look` gives a value or the time is over; its last error is the message.
///
/// # Errors
/// When the time is over.
pub fn eventually<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("after {seconds} s still not: {what}")));
            }
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// The cluster that `deploy/quickstart up` made in `STRATA_HOME`.
#[derive(Debug)]
pub struct Cluster {
    home: PathBuf,
    repo: PathBuf,
}

impl Cluster {
    /// The cluster of `STRATA_HOME`.
    ///
    /// # Errors
    /// If there is none: run `tests/run cluster`.
    pub fn here() -> Result<Self> {
        let home =
            env::var_os("STRATA_HOME").context("STRATA_HOME is not set: run these tests by tests/run cluster")?;
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        Ok(Self { home: home.into(), repo })
    }

    /// `STRATA_HOME`.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The repository.
    #[must_use]
    pub fn repo(&self) -> &Path {
        &self.repo
    }

    /// `ctl` with these arguments, ready to be changed before it runs.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.home.join("bin/ctl"));
        command.env("STRATA_CONFIG", self.home.join("controller/admin.toml")).args(args);
        command
    }

    /// Runs `ctl`.
    ///
    /// # Errors
    /// If it cannot be started; its exit code is for the caller to judge.
    pub fn ctl(&self, args: &[&str]) -> Result<Run> {
        Run::of(self.command(args), "")
    }

    /// `ctl apply -f -` of this text, with further arguments.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn apply(&self, manifest: &str, args: &[&str]) -> Result<Run> {
        let all: Vec<&str> = ["apply", "-f", "-"].iter().chain(args).copied().collect();
        Run::of(self.command(&all), manifest)
    }

    /// The objects of a kind in every namespace.
    ///
    /// # Errors
    /// If `ctl` fails.
    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let run = self.ctl(&["get", kind, "-A", "-o", "json"])?.ok()?;
        run.json()?.as_array().cloned().context("an array is expected")
    }

    /// The pods of a workload that have not ended.
    ///
    /// # Errors
    /// If `ctl` fails.
    pub fn pods(&self, workload: &str) -> Result<Vec<Value>> {
        Ok(self.list("pods")?.into_iter().filter(|p| p["spec"]["workload"] == workload).collect())
    }

    /// One pod by name.
    ///
    /// # Errors
    /// If there is none.
    pub fn pod(&self, name: &str) -> Result<Value> {
        self.ctl(&["get", "pod", name, "-o", "json"])?.ok()?.json()
    }

    /// Waits until a workload has exactly `count` pods and all are Running and ready; returns them.
    ///
    /// # Errors
    /// With the pods as they are when the time is over.
    pub fn running(&self, workload: &str, count: usize, seconds: u64) -> Result<Vec<Value>> {
        eventually(&format!("{count} pods of {workload} running"), seconds, || {
            let pods = self.pods(workload)?;
            let good =
                pods.iter().filter(|p| p["status"]["phase"] == "Running" && p["status"]["ready"] == true).count();
            ensure!(good == count && pods.len() == count, "{good} of {} run: {}", pods.len(), brief(&pods));
            Ok(pods)
        })
    }

    /// Waits until a pod's status satisfies `check`.
    ///
    /// # Errors
    /// With the last status when the time is over.
    pub fn pod_until(&self, name: &str, seconds: u64, check: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(&format!("pod {name} as wanted"), seconds, || {
            let pod = self.pod(name)?;
            ensure!(check(&pod["status"]), "its status is {}", pod["status"]);
            Ok(pod)
        })
    }

    /// Deletes these objects (`KIND/NAME`), waits until no pod of theirs is left.
    ///
    /// # Errors
    /// If something is left after a minute.
    pub fn delete(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let (kind, name) = name.split_once('/').context("KIND/NAME")?;
            let run = self.ctl(&["delete", kind, name])?;
            ensure!(run.code == 0 || run.code == 3, "delete {kind} {name}: {}", run.stderr);
        }
        eventually("deleted pods are gone", 60, || {
            let pods = self.list("pods")?;
            let left: Vec<&Value> = pods
                .iter()
                .filter(|p| {
                    names.iter().any(|n| {
                        let name = n.split_once('/').map_or(*n, |(_, name)| name);
                        p["spec"]["workload"] == name || p["meta"]["name"] == name
                    })
                })
                .collect();
            ensure!(left.is_empty(), "{} pods are left", left.len());
            Ok(())
        })
    }

    /// `deploy/quickstart status --json`.
    ///
    /// # Errors
    /// If it fails.
    pub fn status(&self) -> Result<Value> {
        let mut command = Command::new(self.repo.join("deploy/quickstart"));
        command.args(["status", "--json"]);
        Run::of(command, "")?.ok()?.json()
    }

    /// The nodes.
    ///
    /// # Errors
    /// If the status cannot be read.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        self.status()?["nodes"].as_array().context("nodes")?.iter().map(Node::from_status).collect()
    }

    /// The node with this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn node(&self, name: &str) -> Result<Node> {
        self.nodes()?.into_iter().find(|n| n.name == name).with_context(|| format!("no node {name}"))
    }

    /// The node's parent directory in each cgroup hierarchy, from its settings.
    ///
    /// # Errors
    /// If the settings do not name it.
    pub fn cgroup_parent(&self, node: &str) -> Result<String> {
        let settings = fs::read_to_string(self.home.join(format!("{node}.toml")))?;
        let line = settings.lines().find_map(|l| l.strip_prefix("cgroup_parent = \""));
        Ok(line.context("cgroup_parent")?.trim_end_matches('"').to_owned())
    }

    /// Starts what does not run, as a person would: `deploy/quickstart up --no-demo`.
    ///
    /// # Errors
    /// If it fails.
    pub fn up(&self) -> Result<()> {
        let mut command = Command::new(self.repo.join("deploy/quickstart"));
        command.args(["up", "--no-demo"]);
        Run::of(command, "")?.ok()?;
        Ok(())
    }

    /// The host pid of a pod's first container.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self, pod: &str) -> Result<u32> {
        let pid = self.pod(pod)?["status"]["containers"][0]["pid"].as_u64().unwrap_or(0);
        ensure!(pid > 0, "{pod} does not run");
        Ok(u32::try_from(pid)?)
    }

    /// Runs a command in a pod; returns its standard output.
    ///
    /// # Errors
    /// If it fails.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<String> {
        let args: Vec<&str> = ["exec", pod, "--"].iter().chain(command).copied().collect();
        Ok(self.ctl(&args)?.ok()?.stdout)
    }

    /// Imports the demo image unless the cluster has it.
    ///
    /// # Errors
    /// If the import fails.
    pub fn ensure_hello(&self) -> Result<()> {
        if self.ctl(&["get", "image", crate::HELLO])?.code == 0 {
            return Ok(());
        }
        let archive = crate::hello_archive(self, crate::HELLO)?;
        self.ctl(&["image", "import", archive.path().to_str().context("path")?])?.ok()?;
        Ok(())
    }

    /// Every process that runs a binary of this cluster, as (pid, name of the binary).
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn processes(&self) -> Result<Vec<(u32, String)>> {
        let bin = self.home.join("bin");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let Ok(exe) = fs::read_link(entry.path().join("exe")) else { continue };
            if exe.starts_with(&bin) {
                let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.push((pid, name.trim_end_matches(" (deleted)").to_owned()));
            }
        }
        Ok(found)
    }

    /// Kills a process with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// If it does not go.
    pub fn kill9(&self, pid: u32) -> Result<()> {
        let Some(target) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { bail!("pid {pid}") };
        rustix::process::kill_process(target, rustix::process::Signal::KILL).with_context(|| format!("kill {pid}"))?;
        eventually(&format!("{pid} gone"), 10, || {
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let dead = state.is_empty() || state.rsplit(')').next().is_some_and(|s| s.trim_start().starts_with('Z'));
            // The first thread of a process is a zombie before the others have ended: until then its files and locks are held.
            let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
            let gone = dead && threads <= 1;
            ensure!(gone, "it lives");
            Ok(())
        })
    }
}

fn brief(pods: &[Value]) -> String {
    let line = |p: &Value| {
        format!("{} {} {} {}", p["meta"]["name"], p["status"]["phase"], p["status"]["reason"], p["status"]["message"])
    };
    pods.iter().map(line).collect::<Vec<_>>().join("; ")
}
