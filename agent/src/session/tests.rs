//! Sessions of whole agents (ledger, pods, session; a fake world) with a fake controller over real mutual TLS.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::{
    fake::{Connection, Controller, World, assignment, exit, template},
    ledger::Ledger,
    pods::Setup,
    world::Clock,
};
use strata_proto::{
    dispatch::{
        Assignments, Peer, Peers, ResolveImage, agent_message::Message as Up, controller_message::Message as Down,
    },
    types::{pod_spec, pod_status::Phase, pod_template::RestartPolicy},
};
use tokio::task::JoinHandle;

struct Agent {
    pods: Arc<Pods<World>>,
    task: JoinHandle<Result<(), SessionError>>,
}

struct Rig {
    dir: tempfile::TempDir,
    world: World,
    controller: Controller,
    boot_id: String,
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, world: World::new(), controller: Controller::start().await, boot_id: "boot-1".into() }
    }

    async fn agent_as(&self, identity: Identity) -> Agent {
        let ledger = Arc::new(Ledger::open(self.dir.path()).unwrap());
        let world = Arc::new(self.world.clone());
        if let Ok(subnet) = ledger.session().unwrap().subnet.parse() {
            crate::world::Network::set_subnet(&*world, subnet).await.unwrap();
        }
        let setup = Setup {
            world: world.clone(),
            ledger: ledger.clone(),
            node: "n1".into(),
            boot_id: self.boot_id.clone(),
            sandboxes_max: 100,
        };
        let pods = Arc::new(Pods::start(setup).await.unwrap());
        let node = Node {
            controller: self.controller.address.clone(),
            name: "n1".into(),
            advertise: None,
            port: 7071,
            boot_id: self.boot_id.clone(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            capacity: types::Resources { cpu_millis: 1000, ..Default::default() },
            cgroup: "v2".into(),
        };
        let session = Session { node, identity, pods: pods.clone(), world, ledger, up: watch::Sender::new(false) };
        Agent { pods, task: tokio::spawn(async move { session.keep().await }) }
    }

    async fn agent(&self) -> Agent {
        self.agent_as(self.controller.node("n1")).await
    }

    /// An agent, its session, and one running pod "u1".
    async fn up(&mut self, policy: RestartPolicy) -> (Agent, Connection) {
        let agent = self.agent().await;
        let mut c = self.controller.accept().await;
        c.frame(full(1, &["u1"], policy)).await;
        c.acked(1).await;
        c.running("u1").await;
        (agent, c)
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(self.dir.path()).unwrap()
    }
}

impl Agent {
    /// As kill -9: nothing is said to anybody.
    fn kill(self) {
        self.task.abort();
    }
}

fn full(generation: u64, uids: &[&str], policy: RestartPolicy) -> Assignments {
    Assignments {
        full: true,
        generation,
        pods: uids.iter().zip(2..).map(|(u, i)| assignment(u, "r1", i)).collect(),
        templates: vec![template("r1", policy, "run")],
        ..Default::default()
    }
}

fn delta(base: u64, pods: Vec<strata_proto::dispatch::Assignment>, removed: &[&str]) -> Assignments {
    let removed = removed.iter().map(ToString::to_string).collect();
    Assignments { base, generation: base + 1, pods, removed, ..Default::default() }
}

#[tokio::test]
async fn an_assignment_becomes_a_running_pod_that_is_told_of() {
    let mut rig = Rig::new().await;
    let agent = rig.agent().await;
    let mut c = rig.controller.accept().await;
    assert_eq!((c.hello.boot_id.as_str(), c.hello.port, c.hello.reset_layers), ("boot-1", 7071, true));
    assert_eq!(c.hello.labels["zone"], "a");
    assert_eq!(c.hello.address, "127.0.0.1", "the address that reaches the controller");
    c.frame(full(7, &["u1", "u2"], RestartPolicy::Always)).await;
    c.acked(7).await;
    assert_eq!(rig.ledger().session().unwrap().generation, 7, "in the ledger before it is acknowledged");
    let status = c.running("u1").await.status.unwrap();
    assert_eq!((status.node.as_str(), status.address.as_str(), status.attempt), ("n1", "10.64.16.2", 0));
    let container = &status.containers[0];
    assert_eq!((container.image.as_str(), container.pid), ("docker.io/a/b:1", rig.world.pid("u1", "main").unwrap()));
    assert!(agent.pods.assignment("u1").is_some());
    agent.kill();
}

#[tokio::test]
async fn a_new_agent_finds_the_running_containers_and_the_ends_in_between() {
    let mut rig = Rig::new().await;
    let (agent, _c) = rig.up(RestartPolicy::Always).await;
    let pid = rig.world.pid("u1", "main").unwrap();
    agent.kill();
    drop(_c);
    let agent = rig.agent().await;
    let c = rig.controller.accept().await;
    let told = c.hello.pods[0].status.clone().unwrap();
    assert_eq!(
        (told.phase(), told.attempt, told.containers[0].pid),
        (Phase::Running, 0, pid),
        "told in the first message"
    );
    assert_eq!(rig.world.pid("u1", "main"), Some(pid));

    agent.kill();
    drop(c);
    rig.world.advance(5_000);
    rig.world.end("u1", "main", 3);
    let agent = rig.agent().await;
    let mut c = rig.controller.accept().await;
    let told = c.hello.pods[0].status.clone().unwrap();
    let last = told.containers[0].last_exit.clone().unwrap();
    assert_eq!((told.phase(), last.exit_code, told.ready), (Phase::Running, 3, false));
    rig.world.advance(1_000);
    let report = c.running("u1").await;
    assert_eq!((report.status.as_ref().unwrap().containers[0].restarts, report.status.unwrap().attempt), (1, 0));
    agent.kill();
}

#[tokio::test]
async fn a_start_that_was_not_noted_is_found_and_not_repeated() {
    let mut rig = Rig::new().await;
    let (agent, c) = rig.up(RestartPolicy::Never).await;
    agent.kill();
    drop(c);
    // The record as it was before the start was noted; meanwhile the process has ended, too.
    let path = rig.dir.path().join("pods/u1/record.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["containers"][0]["run"] = "not_started".into();
    record["containers"][0]["starts"] = 0.into();
    std::fs::write(&path, record.to_string()).unwrap();
    rig.world.advance(10);
    rig.world.end("u1", "main", 0);
    let agent = rig.agent().await;
    let mut c = rig.controller.accept().await;
    let ended = |p: &strata_proto::dispatch::PodReport| p.status.as_ref().is_some_and(|s| s.phase() == Phase::Exited);
    if !ended(&c.hello.pods[0]) {
        c.report("u1", "Exited", ended).await;
    }
    let starts = rig.world.kernel().done.iter().filter(|d| d.starts_with("start u1")).count();
    assert_eq!(starts, 1, "a pod that never restarts ran once");
    agent.kill();
}

#[tokio::test]
async fn pods_live_on_without_a_controller() {
    let mut rig = Rig::new().await;
    let (agent, c) = rig.up(RestartPolicy::Always).await;
    agent.kill();
    drop(c);
    // Nobody listens any more; the next agent starts all the same.
    let address = std::mem::replace(&mut rig.controller, Controller::start().await).address.clone();
    assert_ne!(address, rig.controller.address);
    let agent = rig.agent_as(Identity::default()).await;
    let mut changes = agent.pods.board().changes();
    rig.world.end("u1", "main", 1);
    let restarts =
        |agent: &Agent| agent.pods.board().get("u1").and_then(|r| r.status).map_or(0, |s| s.containers[0].restarts);
    let mut waiting = agent.pods.board().get("u1").unwrap();
    while waiting.status.as_ref().unwrap().containers[0].state() == types::container_status::State::Running {
        changes.changed().await.unwrap();
        waiting = agent.pods.board().get("u1").unwrap();
    }
    assert_eq!(waiting.status.unwrap().containers[0].reason, "Error");
    rig.world.advance(1_000);
    while restarts(&agent) == 0 {
        changes.changed().await.unwrap();
    }
    agent.kill();
}

#[tokio::test]
async fn pods_that_a_full_frame_does_not_name_go_and_not_before() {
    let mut rig = Rig::new().await;
    let (agent, c) = rig.up(RestartPolicy::Always).await;
    agent.kill();
    drop(c);
    std::fs::create_dir_all(rig.dir.path().join("pods/orphan")).unwrap();
    let agent = rig.agent().await;
    let mut c = rig.controller.accept().await;
    assert!(rig.world.pid("u1", "main").is_some());
    assert!(rig.dir.path().join("pods/orphan").exists());
    c.frame(full(9, &["u2"], RestartPolicy::Always)).await;
    let report = c.report("u1", "gone", |p| p.gone).await;
    assert_eq!(report.status.unwrap().phase(), Phase::Exited);
    assert!(rig.world.pid("u1", "main").is_none() && !rig.world.kernel().writable.contains("u1"));
    assert!(!rig.dir.path().join("pods/u1").exists());
    let orphan = rig.dir.path().join("pods/orphan");
    if orphan.exists() {
        c.report("orphan", "gone", |p| p.gone).await;
    }
    assert!(!orphan.exists());
    agent.kill();
}

#[tokio::test]
async fn a_gap_is_answered_with_resync_once_and_deltas_wait_for_the_full_frame() {
    let mut rig = Rig::new().await;
    let (agent, mut c) = rig.up(RestartPolicy::Always).await;
    c.frame(delta(5, vec![assignment("u5", "r1", 9)], &["u1"])).await;
    c.frame(delta(6, vec![], &["u1"])).await;
    c.until("resync", |m| matches!(m, Up::Resync(_)).then_some(())).await;
    c.frame(full(7, &["u1", "u3"], RestartPolicy::Always)).await;
    let mut resyncs = 0;
    c.until("ack of 7", |m| {
        resyncs += usize::from(matches!(m, Up::Resync(_)));
        matches!(m, Up::Ack(a) if a.generation == 7).then_some(())
    })
    .await;
    assert_eq!(resyncs, 0, "asked once");
    assert!(agent.pods.assignment("u5").is_none() && rig.world.pid("u1", "main").is_some());
    c.frame(delta(7, vec![assignment("u4", "r1", 5)], &[])).await;
    c.acked(8).await;
    agent.kill();
}

#[tokio::test]
async fn a_stopped_pod_keeps_address_and_writable_layer_and_starts_again_as_a_new_attempt() {
    let mut rig = Rig::new().await;
    let (agent, mut c) = rig.up(RestartPolicy::Always).await;
    let mut a = assignment("u1", "r1", 2);
    a.set_desired(pod_spec::Desired::Stopped);
    c.frame(delta(1, vec![a.clone()], &[])).await;
    let report = c.report("u1", "Exited", |p| p.status.as_ref().is_some_and(|s| s.phase() == Phase::Exited)).await;
    assert_eq!(report.status.unwrap().address, "10.64.16.2");
    assert!(rig.world.kernel().writable.contains("u1") && rig.world.kernel().sandboxes.is_empty());
    a.set_desired(pod_spec::Desired::Run);
    c.frame(delta(2, vec![a], &[])).await;
    assert_eq!(c.running("u1").await.status.unwrap().attempt, 1);
    agent.kill();
}

#[tokio::test]
async fn a_dead_shim_is_a_new_attempt_that_keeps_the_writable_layer() {
    let mut rig = Rig::new().await;
    let (agent, mut c) = rig.up(RestartPolicy::Always).await;
    rig.world.kill_sandbox("u1");
    c.report("u1", "attempt 1", |p| p.status.as_ref().is_some_and(|s| s.attempt == 1)).await;
    assert!(rig.world.kernel().writable.contains("u1"));
    rig.world.advance(1_000);
    assert_eq!(c.running("u1").await.status.unwrap().attempt, 1);
    agent.kill();
}

#[tokio::test]
async fn after_a_reboot_pods_start_again_in_place_without_their_writable_layers() {
    let mut rig = Rig::new().await;
    let (agent, c) = rig.up(RestartPolicy::Always).await;
    agent.kill();
    drop(c);
    rig.world.reboot();
    rig.boot_id = "boot-2".into();
    let agent = rig.agent().await;
    let mut c = rig.controller.accept().await;
    assert_eq!(c.hello.boot_id, "boot-2");
    rig.world.advance(1_000);
    let status = c.running("u1").await.status.unwrap();
    assert_eq!((status.attempt, status.address.as_str()), (1, "10.64.16.2"));
    let kernel = rig.world.kernel();
    let after: Vec<&String> = kernel.done.iter().skip_while(|d| *d != "reboot").collect();
    assert_eq!(after, ["reboot", "sweep but 1", "make u1 attempt 1", "start u1 main"]);
    drop(kernel);
    agent.kill();
}

#[tokio::test]
async fn stop_waits_for_the_grace_period_and_then_kills() {
    let mut rig = Rig::new().await;
    let agent = rig.agent().await;
    let mut c = rig.controller.accept().await;
    let mut frame = full(1, &["u1"], RestartPolicy::Always);
    frame.templates = vec![template("r1", RestartPolicy::Always, "stubborn")];
    c.frame(frame).await;
    c.running("u1").await;
    c.frame(delta(1, vec![], &["u1"])).await;
    c.report("u1", "Stopping", |p| p.status.as_ref().is_some_and(|s| s.phase() == Phase::Stopping)).await;
    assert!(rig.world.pid("u1", "main").is_some());
    rig.world.advance(10_000);
    c.report("u1", "gone", |p| p.gone).await;
    let done = rig.world.kernel().done.clone();
    assert!(done.ends_with(&["signal u1 main".into(), "kill u1 main".into()]), "{done:?}");
    agent.kill();
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let mut rig = Rig::new().await;
    let agent = rig.agent().await;
    rig.world.kernel().image_trouble =
        Some(crate::world::Trouble::new("ImageNotFound", "docker.io/a/b:1 is in no registry"));
    let mut c = rig.controller.accept().await;
    c.frame(full(1, &["u1"], RestartPolicy::Always)).await;
    c.report("u1", "ImageNotFound", |p| p.status.as_ref().is_some_and(|s| s.reason == "ImageNotFound")).await;
    rig.world.kernel().image_trouble = None;
    let mut failed = exit(127, rig.world.unix_ms());
    failed.reason = "StartError".into();
    rig.world.kernel().start_trouble = Some(failed);
    rig.world.advance(1_000);
    let report = c.report("u1", "StartError", |p| p.status.as_ref().is_some_and(|s| s.reason == "StartError")).await;
    assert_eq!(report.status.unwrap().containers[0].last_exit.as_ref().unwrap().exit_code, 127);
    rig.world.kernel().start_trouble = None;
    rig.world.advance(1_000);
    c.running("u1").await;
    agent.kill();
}

#[tokio::test]
async fn references_are_resolved_and_peers_become_routes() {
    let mut rig = Rig::new().await;
    let agent = rig.agent().await;
    let mut c = rig.controller.accept().await;
    c.send(Down::Resolve(ResolveImage { id: 4, image: "known".into() })).await;
    c.send(Down::Resolve(ResolveImage { id: 5, image: "unknown".into() })).await;
    c.send(Down::Resolve(ResolveImage { id: 6, image: "UPPER".into() })).await;
    let mut seen = std::collections::BTreeMap::new();
    c.until("three replies", |m| {
        if let Up::Resolved(r) = m {
            seen.insert(r.id, (r.reason, r.image.is_some()));
        }
        (seen.len() == 3).then_some(())
    })
    .await;
    assert_eq!(seen[&4], (String::new(), true));
    assert_eq!(seen[&5], ("ImageNotFound".into(), false));
    assert_eq!(seen[&6], ("InvalidImageName".into(), false));

    let peer = Peer { node: "n2".into(), address: "10.0.0.2".into(), subnet: "10.64.32.0/20".into(), port: 7071 };
    let nonsense = Peer { node: "n3".into(), address: "here".into(), ..peer.clone() };
    c.send(Down::Peers(Peers { peers: vec![peer, nonsense] })).await;
    // The network's task has no answer of its own: its effect is waited for.
    tokio::time::timeout(Duration::from_secs(10), async {
        while rig.world.kernel().peers.len() != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    agent.kill();
}

#[tokio::test]
async fn heartbeats_come_and_a_broken_stream_is_begun_again() {
    let mut rig = Rig::new().await;
    let (agent, mut c) = rig.up(RestartPolicy::Always).await;
    c.until("heartbeat", |m| matches!(m, Up::Heartbeat(_)).then_some(())).await;
    drop(c);
    let c = rig.controller.accept().await;
    assert_eq!(c.hello.pods.len(), 1, "everything is told again");
    agent.kill();
}

#[tokio::test]
async fn a_foreign_certificate_is_an_error_of_the_settings() {
    let rig = Rig::new().await;
    let foreign = strata_transport::pki::Ca::create().unwrap().issue(strata_transport::Role::Node, "n1").unwrap();
    let agent = rig.agent_as(foreign).await;
    let end = tokio::time::timeout(Duration::from_secs(10), agent.task).await.unwrap().unwrap();
    assert!(matches!(end, Err(SessionError::Identity(_))), "{end:?}");
}

#[tokio::test]
async fn joining_makes_an_identity_once_and_a_wrong_token_none() {
    use crate::identity::{IdentityError, join, load};
    let rig = Rig::new().await;
    let fingerprint = rig.controller.ca.fingerprint().unwrap();
    let token = |fingerprint: &str, secret: &str| {
        let mut token = strata_transport::token::JoinToken::create(fingerprint).unwrap();
        token.secret = secret.into();
        token.to_string()
    };
    let state = tempfile::tempdir().unwrap();
    let good = "5".repeat(64);
    let controller = Controller::start_with(strata_transport::pki::Ca::create().unwrap(), &good).await;
    let own = controller.ca.fingerprint().unwrap();
    assert!(load(state.path(), "n1").unwrap().is_none());
    let wrong = join(&controller.address, "n1", &token(&own, &"6".repeat(64)), state.path()).await.unwrap_err();
    assert!(matches!(wrong, IdentityError::Refused { .. }), "{wrong}");
    let foreign = join(&controller.address, "n1", &token(&fingerprint, &good), state.path()).await.unwrap_err();
    assert!(matches!(foreign, IdentityError::Transport(_)), "{foreign}");
    assert!(load(state.path(), "n1").unwrap().is_none(), "nothing half-made");
    let identity = join(&controller.address, "n1", &token(&own, &good), state.path()).await.unwrap();
    assert_eq!(load(state.path(), "n1").unwrap(), Some(identity));
    assert!(matches!(load(state.path(), "n2"), Err(IdentityError::OtherNode { .. })));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(state.path().join("identity/key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn probes_decide_what_is_ready_and_a_new_agent_takes_their_word_until_it_has_asked_itself() {
    let mut rig = Rig::new().await;
    rig.world.kernel().unhealthy.insert("well".into());
    let agent = rig.agent().await;
    let mut c = rig.controller.accept().await;
    let mut frame = full(1, &["u1"], RestartPolicy::Always);
    let pod = frame.templates[0].spec.as_mut().unwrap().pod.as_mut().unwrap();
    let exec = types::ExecCheck { command: vec!["well".into()] };
    let check = Some(types::probe::Check::Exec(exec));
    let probe = types::Probe { check, failure_threshold: 1, success_threshold: 2, ..Default::default() };
    pod.containers[0].readiness = Some(probe);
    c.frame(frame).await;
    let unready = |p: &strata_proto::dispatch::PodReport| {
        p.status.as_ref().is_some_and(|s| s.phase() == Phase::Running && !s.ready && s.reason == "Unready")
    };
    let told = c.report("u1", "not ready", unready).await.status.unwrap();
    assert!(told.message.contains("not well"), "{}", told.message);
    rig.world.kernel().unhealthy.clear();
    let world = rig.world.clone();
    let ticks = tokio::spawn(async move {
        loop {
            world.advance(10_000);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    c.running("u1").await;
    ticks.abort();
    agent.kill();
    drop(c);
    let _agent = rig.agent().await;
    let mut c = rig.controller.accept().await;
    // One good answer, which is all there can be by now, is not enough to become ready.
    assert!(c.hello.pods[0].status.as_ref().unwrap().ready, "what was ready stays so");
    rig.world.kernel().unhealthy.insert("well".into());
    rig.world.advance(10_000);
    c.report("u1", "not ready any more", unready).await;
}
