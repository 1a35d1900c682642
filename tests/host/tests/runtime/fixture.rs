//! A node (zygote, cgroup parent) and pods on it, with a root file system of busybox in a plain id-mapped directory.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{OpenTreeFlags, open_tree};
use strata_runtime::cgroup::{CgroupRoot, ContainerCgroup, Limits, PodCgroup};
use strata_runtime::plan::{HostFacts, plan_init};
use strata_runtime::spec::{BindMount, ContainerRequest, UserFiles, container_spec};
use strata_runtime::{
    ExecRequest, ExecStdio, Exit, Process, Result, SandboxRequest, ShimClient, ShimEvent, StartRequest, Zygote, logs,
};
use tokio::sync::mpsc;

pub const ID_BASE: u32 = 7 << 16;
const PATIENCE: Duration = Duration::from_secs(20);
static NODES: AtomicU32 = AtomicU32::new(0);

pub fn sh(script: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), script.into()]
}

pub fn shim() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target")
        .join(format!("{}-unknown-linux-gnu/static/strata-shim", std::env::consts::ARCH));
    let path = std::env::var_os("STRATA_SHIM").map_or(built, PathBuf::from);
    assert!(path.exists(), "{} is not there: run deploy/build", path.display());
    path
}

pub struct Node {
    dir: tempfile::TempDir,
    pub zygote: Zygote,
    pub cgroups: CgroupRoot,
    pub cgroup_parent: String,
}

impl Node {
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let dir = tempfile::tempdir().unwrap();
        let zygote = strata_runtime::zygote::attach(dir.path(), &shim()).unwrap();
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let cgroup_parent = format!("strata-test-{}-{number}", std::process::id());
        let cgroups = CgroupRoot::detect(&cgroup_parent).unwrap();
        Self { dir, zygote, cgroups, cgroup_parent }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.zygote.stop().unwrap();
        self.cgroups.remove().unwrap();
    }
}

pub struct Pod<'a> {
    node: &'a Node,
    name: String,
    dir: PathBuf,
    client: Option<ShimClient>,
    /// How long the zygote took.
    pub made_in: Duration,
    pub events: mpsc::Receiver<ShimEvent>,
    pub sandbox_pid: u32,
    sandbox: strata_runtime::Sandbox,
    pub limits: Limits,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub read_only_root: bool,
    pub tty: bool,
    pub add_capabilities: Vec<String>,
    pub log_limit_bytes: u64,
    pub binds: Vec<(PathBuf, PathBuf, bool)>,
}

pub struct Run {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

impl<'a> Pod<'a> {
    pub async fn new(node: &'a Node, name: &str) -> Self {
        let dir = node.dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        make_root(&dir.join("root"));
        let cgroup = PodCgroup::create(&node.cgroups, name).unwrap();
        let request = SandboxRequest {
            pod_dir: dir.clone(),
            hostname: name.into(),
            id_base: ID_BASE,
            sysctls: vec![],
            cgroups: cgroup.shim().unwrap().join_fds().unwrap(),
        };
        let begun = Instant::now();
        let sandbox = node.zygote.create_sandbox(request).await.unwrap();
        let made_in = begun.elapsed();
        let (client, state) = ShimClient::connect(&dir).await.unwrap();
        assert_eq!(state.pid, sandbox.pid);
        let events = client.events().unwrap();
        Self {
            node,
            name: name.into(),
            dir,
            client: Some(client),
            made_in,
            events,
            sandbox_pid: sandbox.pid,
            sandbox,
            limits: Limits::default(),
            user: None,
            working_dir: None,
            read_only_root: false,
            tty: false,
            add_capabilities: vec![],
            log_limit_bytes: logs::DEFAULT_LIMIT_BYTES,
            binds: vec![],
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.clone()
    }

    pub fn cgroup(&self) -> ContainerCgroup {
        ContainerCgroup::existing(&PodCgroup::existing(&self.node.cgroups, &self.name).unwrap(), "c").unwrap()
    }

    fn mapped(&self, path: &Path) -> OwnedFd {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(rustix::fs::CWD, path, flags).unwrap();
        strata_sys::readonly::map_ids(mount.as_fd(), self.sandbox.userns.as_fd()).unwrap();
        mount
    }

    pub fn request(&self, name: &str, args: Vec<String>) -> StartRequest {
        let root = self.mapped(&self.root());
        let bind = |(source, target, read_only): &(PathBuf, PathBuf, bool)| BindMount {
            source: source.clone(),
            target: target.clone(),
            read_only: *read_only,
        };
        let wanted = ContainerRequest {
            command: args,
            user: self.user.clone(),
            working_dir: self.working_dir.clone(),
            hostname: self.name.clone(),
            read_only_root: self.read_only_root,
            tty: self.tty,
            add_capabilities: self.add_capabilities.clone(),
            mounts: self.binds.iter().map(bind).collect(),
            ..ContainerRequest::default()
        };
        let spec = container_spec(&wanted, &UserFiles::read(root.as_fd()).unwrap()).unwrap();
        let plan = plan_init(&spec, &HostFacts::observe()).unwrap();
        let pod = PodCgroup::create(&self.node.cgroups, &self.name).unwrap();
        let cgroup = ContainerCgroup::create(&pod, name, &self.limits).unwrap();
        let [log_a, log_b] = logs::open(&self.log_dir(), name).unwrap();
        StartRequest {
            name: name.into(),
            plan,
            overlay: root,
            cgroups: cgroup.join_fds().unwrap(),
            binds: self.binds.iter().map(|(source, ..)| self.mapped(source)).collect(),
            log_a: log_a.into(),
            log_b: log_b.into(),
            log_limit_bytes: self.log_limit_bytes,
            stdin: None,
            keeps_stdin: false,
        }
    }

    pub async fn start_as(&self, name: &str, args: Vec<String>) -> Result<Process> {
        self.client().start(self.request(name, args)).await
    }

    pub async fn start(&self, args: Vec<String>) -> Result<Process> {
        self.start_as("c", args).await
    }

    pub async fn exit_of(&mut self, name: &str) -> Exit {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap();
            match event {
                ShimEvent::Exited { container, exit } if container == name => return exit,
                ShimEvent::Exited { .. } => {}
                ShimEvent::Gone => panic!("the shim has gone"),
            }
        }
    }

    /// Runs a container to its end, in the place of an earlier one of the name.
    pub async fn run_as(&mut self, name: &str, args: Vec<String>) -> Run {
        if self.client().signal(name, 9).await.is_ok() {
            self.exit_of(name).await;
        }
        for path in logs::paths(&self.log_dir(), name) {
            std::fs::remove_file(path).ok();
        }
        self.start_as(name, args).await.unwrap();
        let exit = self.exit_of(name).await;
        let mut entries = logs::read(&self.log_dir(), name, logs::ReadOptions::default());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(entry) = entries.recv().await {
            let entry = entry.unwrap();
            if entry.stderr { &mut stderr } else { &mut stdout }.extend(entry.bytes());
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { exit, stdout: text(stdout), stderr: text(stderr) }
    }

    pub async fn run(&mut self, args: Vec<String>) -> Run {
        self.run_as("c", args).await
    }

    pub fn client(&self) -> &ShimClient {
        self.client.as_ref().unwrap()
    }

    /// What a dying agent does to its connection.
    pub fn disconnect(&mut self) {
        self.client = None;
    }

    pub fn kill_shim(&self) {
        strata_sys::process::pidfd_signal(self.sandbox.pidfd.as_fd(), 9).unwrap();
        ended(&self.sandbox.pidfd);
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        strata_sys::process::pidfd_signal(self.sandbox.pidfd.as_fd(), 9).ok();
        ended(&self.sandbox.pidfd);
        PodCgroup::existing(&self.node.cgroups, &self.name).unwrap().remove().unwrap();
    }
}

/// Kills a process that is not a child and waits for its end.
pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    ended(&pidfd);
}

/// Waits for an event, not for ever.
pub async fn within<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event).await.unwrap()
}

/// Waits on a pidfd.
pub fn ended(pidfd: &OwnedFd) {
    let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "a process did not end");
}

/// Waits for something that a container does in its own time, without an event to wait on.
pub async fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn pipes(container: &str, args: &[&str]) -> (ExecRequest, File, File) {
    let (out_read, stdout) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (err_read, stderr) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdin = File::open("/dev/null").unwrap().into();
    let request = ExecRequest {
        container: container.into(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        env: vec![],
        cwd: None,
        user: None,
        stdio: ExecStdio::Pipes { stdin, stdout, stderr },
    };
    (request, out_read.into(), err_read.into())
}

pub async fn exec(client: &ShimClient, container: &str, args: &[&str]) -> (i32, String, String) {
    let (request, mut out, mut err) = pipes(container, args);
    let exec = client.exec(request).await.unwrap();
    let exit = tokio::time::timeout(PATIENCE, exec.exit).await.unwrap().unwrap();
    let read = |file: &mut File| {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    };
    (exit.code, read(&mut out), read(&mut err))
}

pub struct Terminal(File);

impl Terminal {
    pub fn new(master: &OwnedFd) -> Self {
        Self(master.try_clone().unwrap().into())
    }

    pub fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    pub fn read_until(&mut self, part: &str) -> String {
        let mut text = String::new();
        while !text.contains(part) {
            let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)).unwrap();
            assert_eq!(ready, 1, "no {part:?} in {text:?}");
            let mut buffer = [0; 1024];
            let size = self.0.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..size]));
        }
        text
    }
}

fn make_root(root: &Path) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let list = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|a| *a != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::copy(probe(), root.join("bin/probe")).unwrap();
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\n").unwrap();
}

/// A static program that tries system calls and prints what the kernel says; compiled once per run.
fn probe() -> &'static Path {
    static PROBE: std::sync::OnceLock<(tempfile::TempDir, PathBuf)> = std::sync::OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("probe");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtime/probe.c");
        let done =
            std::process::Command::new("cc").args(["-O1", "-static", "-o"]).arg(&out).arg(source).status().unwrap();
        assert!(done.success());
        (dir, out)
    };
    &PROBE.get_or_init(make).1
}
