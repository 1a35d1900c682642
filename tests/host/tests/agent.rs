//! A whole agent on the real kernel: a process of its own in a network namespace of its own, its controller played by the test.
//! Needs root, busybox (static) and iproute2, and the programs that deploy/build makes.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code)] // trouble.rs uses the rest
#[path = "agent/lab.rs"]
mod lab;

use lab::{Agent, Controller, archive, assignment, exec, import, logs, template};
use std::{path::Path, process::Command, thread};
use strata_proto::{
    dispatch::{Assignments, PodReport},
    node::LogsRequest,
};
use strata_runtime::cgroup::CgroupRoot;

/// Runs a test in a network namespace that ends with it.
fn apart<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        // One thread: everything it opens and starts is in that namespace.
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    thread.join().unwrap();
}

fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn reason(report: &PodReport, reason: &str) -> bool {
    report.status.as_ref().is_some_and(|s| s.containers.iter().any(|c| c.reason == reason))
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_agent_runs_pods_survives_and_leaves_nothing() {
    apart(|| async {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let cgroup_parent = format!("strata-test-agent-{}", std::process::id());
        let mut controller = Controller::start(&dir.path().join("ca")).await;
        let agent = Agent::start(dir.path(), &controller, &cgroup_parent);
        let mut c = controller.accept().await;
        let mut api = controller.node_api(&c.hello).await;
        let image = import(&mut api, archive("strata/test:1")).await;

        let script = "echo hello; echo once >> /data; exec sleep 1000";
        let frame = Assignments {
            full: true,
            generation: 1,
            pods: vec![assignment("u1", "web", 2), assignment("u2", "none", 3), assignment("u3", "hog", 4)],
            templates: vec![
                template("web", &image, &["sh", "-c", script], 0),
                template("none", &image, &["/no/such/program"], 0),
                template("hog", &image, &["sh", "-c", "tail /dev/zero"], 16 << 20),
            ],
            ..Default::default()
        };
        c.frame(frame).await;
        let first = c.running("u1").await;
        let pid = first.containers[0].pid;
        assert_eq!((first.attempt, first.address.as_str()), (0, "10.97.16.2"));
        assert_eq!(logs(&mut api, "u1").await, "hello\n");
        assert_eq!(exec(&mut api, "u1", &["cat", "/data"], None, false).await, ("once\n".into(), String::new(), 0));
        assert_eq!(
            exec(&mut api, "u1", &["sh", "-c", "cat; echo e >&2; exit 7"], Some("in"), false).await,
            ("in".into(), "e\n".into(), 7)
        );
        let (out, _, code) = exec(&mut api, "u1", &["stty", "size"], None, true).await;
        assert_eq!((out.trim(), code), ("24 80", 0), "a terminal with a size");
        assert_eq!(exec(&mut api, "u1", &["nothing"], None, false).await.2, 127);
        let ping = Command::new("busybox").args(["ping", "-c", "1", "-W", "5", "10.97.16.2"]).output().unwrap();
        assert!(ping.status.success(), "the node reaches its pod");
        let mut stranger = controller.node_api_as(&c.hello, &controller.admin()).await;
        let refused =
            stranger.logs(LogsRequest { pod_uid: "u1".into(), container: "main".into(), ..Default::default() }).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::PermissionDenied);

        // What cannot start or grows too large says so, and is tried again.
        if let Some(report) = Some(c.report("u3", "OOMKilled", |p| reason(p, "OOMKilled")).await) {
            assert_eq!(report.status.unwrap().containers[0].last_exit.as_ref().unwrap().exit_code, 137);
        }
        let report = c.report("u2", "StartError", |p| reason(p, "StartError")).await;
        assert_eq!(report.status.unwrap().containers[0].last_exit.as_ref().unwrap().exit_code, 127);

        // kill -9 of the agent: the next one finds the same process.
        agent.kill();
        drop((c, api));
        let agent = Agent::start(dir.path(), &controller, &cgroup_parent);
        let mut c = controller.accept().await;
        let told = c.hello.pods.iter().find(|p| p.uid == "u1").unwrap().status.clone().unwrap();
        assert_eq!((told.containers[0].pid, told.containers[0].restarts, told.attempt), (pid, 0, 0));
        let mut api = controller.node_api(&c.hello).await;
        assert_eq!(exec(&mut api, "u1", &["cat", "/data"], None, false).await.0, "once\n");

        // kill -9 of the shim: the pod starts anew and keeps its writable layer.
        kill(parent_of(pid));
        c.report("u1", "attempt 1", |p| p.status.as_ref().is_some_and(|s| s.attempt == 1 && s.ready)).await;
        assert_eq!(exec(&mut api, "u1", &["cat", "/data"], None, false).await.0, "once\nonce\n");

        // Removed: nothing of the pods is left, the layer is.
        let full = Assignments { full: true, generation: 2, ..Default::default() };
        c.frame(full).await;
        c.all_gone(&["u1", "u2", "u3"]).await;
        let cgroups = CgroupRoot::detect(&cgroup_parent).unwrap();
        assert_eq!(cgroups.pods(), Vec::<String>::new());
        assert_eq!(names(&state.join("pods")), Vec::<String>::new());
        assert!(names(&state.join("layers")).iter().any(|n| n.starts_with("sha256-")));

        agent.stop();
        strata_runtime::zygote::attach(&state, &lab::shim()).unwrap().stop().unwrap();
        cgroups.remove().unwrap();
    });
}
