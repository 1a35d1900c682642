//! A whole agent in trouble: its disk fills up while it pulls and while containers write, pods are removed in the midst of a pull,
//! many containers end at once. Needs root, busybox (static), iproute2, e2fsprogs and the programs that deploy/build makes.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code)]
#[path = "image/fixture.rs"]
mod fixture;
#[allow(dead_code)]
#[path = "image/http.rs"]
mod http;
#[allow(dead_code)]
#[path = "agent/lab.rs"]
mod lab;

use fixture::{Image, gzip, noise, tar};
use http::{Server, serve};
use lab::{Agent, Controller, Session, archive, assignment, busybox_layer, exec, import, logs, template};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};
use strata_proto::{
    dispatch::{Assignments, PodReport, Template},
    node::node_client::NodeClient,
    types,
};
use strata_runtime::cgroup::CgroupRoot;
use tonic::transport::Channel;

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

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An ext4 file system of its own, at `dir/state`.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(dir: &Path, size_bytes: u64) -> Self {
        let (image, at) = (dir.join("disk"), dir.join("state"));
        File::create(&image).unwrap().set_len(size_bytes).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        fs::create_dir(&at).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        Self(at)
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Takes all the space there is.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.0.join("ballast")).unwrap();
        for block in [1 << 20, 4096] {
            while std::io::Write::write_all(&mut file, &vec![1; block]).is_ok() {}
        }
        file.sync_all().ok();
    }

    fn give_back(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").args(["-R", "-l"]).arg(&self.0));
    }
}

/// A registry's image: busybox and so many bytes of noise.
fn image(noise_bytes: usize, seed: u64) -> Image {
    let (first, second) = (busybox_layer(), tar(&[("noise", &noise(noise_bytes, seed))], &[]));
    Image::new(&[(first.clone(), gzip(&first)), (second.clone(), gzip(&second))])
}

/// As the controller pins it.
fn from_registry(server: &Server, image: &Image, revision: &str, command: &[&str]) -> Template {
    let layer = |(id, blob): (_, &strata_model::Digest)| types::LayerInfo {
        diff_id: ToString::to_string(id),
        size_bytes: image.blobs[&blob.to_string()].len() as u64,
    };
    let spec = types::ImageSpec {
        digest: image.digest().to_string(),
        layers: image.diff_ids.iter().zip(&image.layer_blobs).map(layer).collect(),
        ..Default::default()
    };
    let mut template = template(revision, &spec, command, 0);
    let pinned = &mut template.spec.as_mut().unwrap().images[0];
    (pinned.from_registry, pinned.name) = (true, server.name().to_string());
    template
}

fn full(generation: u64, pods: &[(&str, &str, u32)], templates: Vec<Template>) -> Assignments {
    let pods = pods.iter().map(|(uid, revision, index)| assignment(uid, revision, *index)).collect();
    Assignments { full: true, generation, pods, templates, ..Default::default() }
}

fn has_reason(report: &PodReport, reason: &str) -> bool {
    report.status.as_ref().is_some_and(|s| s.reason == reason)
}

/// Names in a directory that no finished thing has.
fn unfinished(state: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs =
        vec![state.join("layers"), state.join("blobs"), state.join("images"), state.join("pods"), state.join("ledger")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if [".new-", ".gone-", ".tmp-", ".writing-"]
                .iter()
                .any(|p| entry.file_name().to_string_lossy().starts_with(p))
            {
                found.push(entry.path());
            } else if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    found
}

/// Looks until it is so.
async fn eventually(what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match look() {
            Ok(()) => return,
            Err(still) => assert!(tokio::time::Instant::now() < end, "{what}: {still}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What an agent and the pods of a node hold of the kernel.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    fds: usize,
    mounts: usize,
    cgroups: Vec<String>,
    veths: usize,
    pods: usize,
    shims: usize,
}

fn held(agent: u32, state: &Path, cgroups: &CgroupRoot) -> Held {
    let links = Command::new("ip").args(["-o", "link", "show", "type", "veth"]).output().unwrap().stdout;
    let shims = fs::read_dir("/proc").unwrap().filter(|e| {
        let path = e.as_ref().unwrap().path();
        let ours = fs::read_link(path.join("exe")).is_ok_and(|exe| exe.ends_with("strata-shim"));
        let group = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
        ours && cgroups.pods().iter().any(|pod| group.contains(pod))
    });
    Held {
        fds: fs::read_dir(format!("/proc/{agent}/fd")).unwrap().count(),
        mounts: fs::read_to_string(format!("/proc/{agent}/mounts")).unwrap().lines().count(),
        cgroups: cgroups.pods(),
        veths: String::from_utf8(links).unwrap().lines().count(),
        pods: fs::read_dir(state.join("pods")).unwrap().count(),
        shims: shims.count(),
    }
}

/// No more than before; a connection or a cached descriptor more or less is no leak, and mounts of the machine come and go with other tests.
fn no_more(now: &Held, before: &Held) -> Result<(), String> {
    let like = Held { fds: before.fds, mounts: before.mounts, cgroups: now.cgroups.clone(), ..*now };
    let rest = like == Held { cgroups: now.cgroups.clone(), ..*before } && now.cgroups == before.cgroups;
    if rest && now.fds <= before.fds + 3 && now.mounts <= before.mounts {
        Ok(())
    } else {
        Err(format!("{now:?}, before {before:?}"))
    }
}

struct Rig {
    dir: tempfile::TempDir,
    cgroup_parent: String,
    /// Lives as long as the agent wants to reach it.
    _controller: Controller,
    agent: Option<Agent>,
}

impl Rig {
    async fn start(dir: tempfile::TempDir, name: &str, settings: &str) -> (Self, Session, NodeClient<Channel>) {
        let cgroup_parent = format!("strata-test-{name}-{}", std::process::id());
        let mut controller = Controller::start(&dir.path().join("ca")).await;
        let agent = Some(Agent::start_with(dir.path(), &controller, &cgroup_parent, settings));
        let session = controller.accept().await;
        let api = controller.node_api(&session.hello).await;
        (Self { dir, cgroup_parent, _controller: controller, agent }, session, api)
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn cgroups(&self) -> CgroupRoot {
        CgroupRoot::detect(&self.cgroup_parent).unwrap()
    }

    fn agent(&self) -> u32 {
        self.agent.as_ref().unwrap().pid()
    }

    fn end(mut self) {
        self.agent.take().unwrap().stop();
        let state = self.state();
        strata_runtime::zygote::attach(&state, &lab::shim()).unwrap().stop().unwrap();
        self.cgroups().remove().unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the agent's last lines:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

#[test]
fn a_full_disk_holds_up_what_needs_room_and_nothing_else() {
    apart(|| async {
        let dir = tempfile::tempdir().unwrap();
        let disk = SmallDisk::new(dir.path(), 96 << 20);
        let big = image(24 << 20, 5);
        let server = Server::registry(big.clone()).await;
        let settings = format!("insecure_registries = [{:?}]", server.address);
        let (rig, mut c, mut api) = Rig::start(dir, "full", &settings).await;
        let small = import(&mut api, archive("strata/test:1")).await;

        // It counts in memory, and talks more than its log may hold.
        let talk =
            "n=0; while :; do n=$((n+1)); echo $n > /dev/shm/n; echo a line of the log that takes some room: $n; done";
        // It takes all the space there is, and goes on.
        let hog = "dd if=/dev/zero of=/hog bs=64k 2> /dev/null; exec sleep 1000";
        let templates = vec![
            template("talk", &small, &["sh", "-c", talk], 0),
            template("hog", &small, &["sh", "-c", hog], 0),
            template("late", &small, &["sleep", "1000"], 0),
            from_registry(&server, &big, "big", &["sleep", "1000"]),
        ];
        let (u1, u2, u3, u4) = (("u1", "talk", 2), ("u2", "hog", 3), ("u3", "big", 4), ("u4", "late", 5));
        c.frame(full(1, &[u1, u2], templates.clone())).await;
        let talker = c.all_running(&["u1", "u2"]).await[0].containers[0].pid;
        eventually("the hog has taken all", || match disk.free_bytes() {
            free if free < 1 << 20 => Ok(()),
            free => Err(format!("{free} bytes are free")),
        })
        .await;
        disk.fill();

        // What is new waits, and says why; what runs does not notice, though its log finds no room.
        c.frame(full(2, &[u1, u2, u3, u4], templates.clone())).await;
        let told = c.report("u3", "DiskFull", |p| has_reason(p, "DiskFull")).await.status.unwrap();
        assert!(told.message.contains("free space"), "{}", told.message);
        let count = async |api: &mut NodeClient<Channel>| -> u64 {
            exec(api, "u1", &["cat", "/dev/shm/n"], None, false).await.0.trim().parse().unwrap_or(0)
        };
        let first = count(&mut api).await;
        let mut second = first;
        for _ in 0..100 {
            second = count(&mut api).await;
            if second > first + 1_000 {
                break;
            }
        }
        assert!(second > first + 1_000, "a container waits for its log: {first}, {second}");
        assert_eq!(
            unfinished(&rig.state()).iter().filter(|p| !p.starts_with(rig.state().join("pods"))).collect::<Vec<_>>(),
            Vec::<&PathBuf>::new()
        );

        // A full disk does not keep the pod that fills it from being removed, which gives the room back.
        disk.give_back();
        disk.fill();
        c.frame(full(3, &[u1, u3, u4], templates.clone())).await;
        c.all_gone(&["u2"]).await;
        // All by itself.
        for status in c.all_running(&["u3", "u4"]).await {
            assert!(status.reason.is_empty(), "{status:?}");
        }
        assert_eq!(unfinished(&rig.state()), Vec::<PathBuf>::new());
        let still = exec(&mut api, "u1", &["sh", "-c", "echo $PPID; cat /proc/1/stat"], None, false).await;
        assert!(still.2 == 0 && fs::metadata(format!("/proc/{talker}")).is_ok(), "the talker was started again");
        let log = logs(&mut api, "u1").await;
        let last = log.lines().last().unwrap_or_default().to_owned();
        assert!(last.contains("takes some room"), "the log goes on with whole lines: {last:?}");

        c.frame(full(4, &[], vec![])).await;
        c.all_gone(&["u1", "u3", "u4"]).await;
        rig.end();
        drop(disk);
    });
}

#[test]
fn a_pod_that_is_removed_while_its_image_comes_leaves_nothing() {
    apart(|| async {
        let dir = tempfile::tempdir().unwrap();
        let wanted = image(4 << 20, 7);
        let (served, slow) = (wanted.clone(), wanted.layer_blobs[1].to_string());
        let asked = AtomicUsize::new(0);
        // The first to ask for the second layer waits for ever.
        let server = Server::start(move |a| match serve(&served, a) {
            answer if a.path.contains(&slow) && asked.fetch_add(1, Ordering::SeqCst) == 0 => answer.stall(1 << 20),
            answer => answer,
        })
        .await;
        let settings = format!("insecure_registries = [{:?}]", server.address);
        let (rig, mut c, _api) = Rig::start(dir, "pull", &settings).await;
        c.frame(full(1, &[], vec![])).await;
        let before = held(rig.agent(), &rig.state(), &rig.cgroups());
        let templates = || vec![from_registry(&server, &wanted, "web", &["sleep", "1000"])];
        c.frame(full(2, &[("u1", "web", 2), ("u2", "web", 3)], templates())).await;
        eventually("the layer is asked for", || match server.count(&wanted.layer_blobs[1].to_string()) {
            0 => Err("not yet".into()),
            _ => Ok(()),
        })
        .await;
        c.frame(full(3, &[], vec![])).await;
        c.all_gone(&["u1", "u2"]).await;
        eventually("the pull is given up", || match server.left.load(Ordering::SeqCst) {
            0 => Err("the connection is still open".into()),
            _ => Ok(()),
        })
        .await;
        let (agent, state, cgroups) = (rig.agent(), rig.state(), rig.cgroups());
        eventually("nothing is left", || match unfinished(&state) {
            left if !left.is_empty() => Err(format!("{left:?}")),
            _ => no_more(&held(agent, &state, &cgroups), &before),
        })
        .await;
        // The next one is not held up by it.
        c.frame(full(4, &[("u3", "web", 4)], templates())).await;
        c.running("u3").await;
        c.frame(full(5, &[], vec![])).await;
        c.all_gone(&["u3"]).await;
        rig.end();
    });
}

#[test]
fn containers_that_end_at_once_or_all_the_time_leak_nothing() {
    const PODS: u32 = 100;
    apart(|| async {
        let (rig, mut c, mut api) = Rig::start(tempfile::tempdir().unwrap(), "ends", "[capacity]\npods = 200").await;
        let small = import(&mut api, archive("strata/test:1")).await;
        let mut once = template("once", &small, &["sh", "-c", "read x < /dev/shm/never 2> /dev/null; exit 0"], 0);
        once.spec.as_mut().unwrap().pod.as_mut().unwrap().restart_policy =
            types::pod_template::RestartPolicy::Never.into();
        let flap = template("flap", &small, &["sh", "-c", "exit 3"], 0);
        let templates = vec![once, flap];
        // What is kept for good once a first pod has run is no leak.
        c.frame(full(1, &[("warm", "once", 1_000)], templates.clone())).await;
        c.report("warm", "ended", |p| p.status.as_ref().is_some_and(|s| s.phase() == types::pod_status::Phase::Exited))
            .await;
        c.frame(full(2, &[], templates.clone())).await;
        c.all_gone(&["warm"]).await;
        let (agent, state, cgroups) = (rig.agent(), rig.state(), rig.cgroups());
        let before = held(agent, &state, &cgroups);

        let names: Vec<String> = (0..PODS).map(|n| format!("p{n}")).collect();
        let pods: Vec<(&str, &str, u32)> = names
            .iter()
            .zip(0..)
            .map(|(uid, n)| (uid.as_str(), if n % 10 == 0 { "flap" } else { "once" }, n + 2))
            .collect();
        c.frame(full(3, &pods, templates.clone())).await;
        let flapping: Vec<&str> = pods.iter().filter(|p| p.1 == "flap").map(|p| p.0).collect();
        let twice = |p: &PodReport| p.status.as_ref().is_some_and(|s| s.containers[0].restarts >= 2);
        c.report_all(&flapping, "restarted twice", twice).await;
        let ended = pods.len() - flapping.len();
        eventually("those that ended for good keep no sandbox", || match held(agent, &state, &cgroups) {
            now if now.shims == flapping.len() && now.veths == before.veths + flapping.len() => Ok(()),
            now => Err(format!("{ended} have ended: {now:?}")),
        })
        .await;
        c.frame(full(4, &[], vec![])).await;
        c.all_gone(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        eventually("nothing is left", || no_more(&held(agent, &state, &cgroups), &before)).await;
        rig.end();
    });
}
