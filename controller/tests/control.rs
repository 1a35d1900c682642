//! The whole controller in one process: API, loops and sessions over real mutual TLS, with agents that only pretend to run pods.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "control/agent.rs"]
mod agent;
#[path = "control/cluster.rs"]
mod cluster;
#[path = "control/storage.rs"]
mod storage;

use agent::Agent;
use cluster::Cluster;
use std::collections::{BTreeMap, BTreeSet};
use strata_controller::objects::{meta, node_status, pod_spec, pod_status, workload_status};
use strata_proto::types::{Kind, node_status::Phase as NodePhase, pod_status::Phase};
use strata_store::{Key, Snapshot};

fn workload() -> Key {
    Key::new(Kind::Workload, "default", "web")
}

/// Pods of the workload that are neither ended nor being removed: uid to node.
fn live(snapshot: &Snapshot) -> BTreeMap<String, String> {
    snapshot
        .pods_of_workload("default", "web")
        .filter(|p| meta(p).deleted.is_none() && !strata_controller::objects::is_ended(pod_status(p)))
        .map(|p| (meta(&p).uid.clone(), pod_spec(&p).node.clone()))
        .collect()
}

fn ready(snapshot: &Snapshot, count: u32) -> bool {
    snapshot.get(&workload()).is_some_and(|w| {
        let s = workload_status(&w);
        s.ready == count && s.replicas == count && s.updated == count && s.desired == count
    })
}

fn on(pods: &BTreeMap<String, String>, node: &str) -> usize {
    pods.values().filter(|n| *n == node).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_runs_and_what_is_deleted_goes() {
    let cluster = Cluster::start(20_000).await;
    let (a, b) = (Agent::new("a"), Agent::new("b"));
    a.connect(&cluster).await;
    b.connect(&cluster).await;
    cluster.apply("web", "web:1", 4).await;
    let snapshot = cluster.wait("4 pods run", |s| ready(s, 4)).await;
    let pods = live(&snapshot);
    assert_eq!((on(&pods, "a"), on(&pods, "b")), (2, 2), "spread");
    let addresses: BTreeSet<String> = snapshot.list(Kind::Pod, None).map(|p| pod_status(&p).address.clone()).collect();
    assert_eq!(addresses, ["10.64.16.2", "10.64.16.3", "10.64.32.2", "10.64.32.3"].map(String::from).into());
    assert_eq!(a.templates_received() + b.templates_received(), 2, "each node gets the template once");
    assert_eq!(a.asked() + b.asked(), 1, "one question for one image");
    assert_eq!(a.peers(), ["b"]);
    let nodes: Vec<_> = snapshot.list(Kind::Node, None).collect();
    cluster
        .wait("accounts", |s| nodes.iter().all(|n| s.get(&Key::of(n)).is_some_and(|n| node_status(&n).pods == 2)))
        .await;

    // A new revision replaces them one after the other; the address of a removed pod is free again once it is gone.
    cluster.apply("web", "web:2", 4).await;
    let snapshot = cluster
        .wait("the new revision runs", |s| {
            ready(s, 4) && s.list(Kind::Pod, None).count() == 4 && live(s).keys().all(|uid| !pods.contains_key(uid))
        })
        .await;
    assert!(snapshot.list(Kind::Pod, None).all(|p| meta(&p).name.starts_with("web-") && pod_spec(&p).ordinal >= 4));

    cluster.delete(&workload()).await;
    cluster.wait("all is gone", |s| s.get(&workload()).is_none() && s.list(Kind::Pod, None).count() == 0).await;
    assert_eq!((a.pods(), b.pods()), (vec![], vec![]));
    strata_controller::loops::cleanup::sweep(&cluster.bare_control(), 0).await.unwrap();
    assert_eq!(cluster.store.snapshot().list(Kind::Template, None).count(), 0);
    assert_eq!(cluster.store.snapshot().list(Kind::Event, None).count(), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_lost_node_are_replaced_and_stopped_on_its_return() {
    let cluster = Cluster::start(1_000).await;
    let (a, b) = (Agent::new("a"), Agent::new("b"));
    a.connect(&cluster).await;
    b.connect(&cluster).await;
    cluster.apply("web", "web:1", 4).await;
    let before = live(&cluster.wait("4 pods run", |s| ready(s, 4)).await);
    let stranded: BTreeSet<String> = before.iter().filter(|(_, n)| *n == "b").map(|(u, _)| u.clone()).collect();

    b.kill().await;
    let unknown =
        |s: &Snapshot, phase| s.get(&Key::new(Kind::Node, "", "b")).is_some_and(|n| node_status(&n).phase() == phase);
    let snapshot = cluster.wait("the node is doubted", |s| unknown(s, NodePhase::Unknown)).await;
    assert_eq!(live(&snapshot), before, "nothing is replaced before the lease has ended");
    let snapshot = cluster.wait("its pods run elsewhere", |s| ready(s, 4) && on(&live(s), "a") == 4).await;
    assert!(unknown(&snapshot, NodePhase::Lost));
    let predecessors: BTreeSet<String> =
        snapshot.list(Kind::Pod, None).map(|p| pod_spec(&p).predecessor.clone()).filter(|p| !p.is_empty()).collect();
    assert_eq!(predecessors, stranded);

    assert_eq!(b.pods().len(), 2, "the lost node still runs them");
    b.connect(&cluster).await;
    b.wait_for_pods(0).await;
    let snapshot = cluster.wait("it is ready again", |s| unknown(s, NodePhase::Ready)).await;
    assert_eq!(on(&live(&snapshot), "a"), 4, "nothing moves back by itself");
    let lost: BTreeSet<String> = snapshot
        .list(Kind::Pod, None)
        .filter(|p| pod_status(p).phase() == Phase::Lost)
        .map(|p| meta(&p).uid.clone())
        .collect();
    assert_eq!(lost, stranded, "what was given away stays lost, whatever the node says");
    cluster.stop().await;
}

/// A controller once marked its nodes as unheard of while the first ones had said Hello already: they stayed Unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_back_at_once_after_a_restart_are_ready() {
    let cluster = Cluster::start_on_disk(30_000).await;
    let agents: Vec<Agent> = (0..24).map(|n| Agent::new(&format!("n{n:02}"))).collect();
    let all_ready = |s: &Snapshot| {
        let phases: Vec<_> = s.list(Kind::Node, None).map(|o| node_status(&o).phase()).collect();
        phases.len() == 24 && phases.iter().all(|p| *p == NodePhase::Ready)
    };
    futures::future::join_all(agents.iter().map(|a| a.connect(&cluster))).await;
    cluster.wait("all are ready", all_ready).await;
    let cluster = cluster.restart().await;
    // The last ones of the list first: they are the ones that a late beginning meets.
    futures::future::join_all(agents.iter().rev().map(|a| a.connect(&cluster))).await;
    cluster.wait("all are ready again", all_ready).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_controller_loses_and_replaces_nothing() {
    let cluster = Cluster::start_on_disk(3_000).await;
    let (a, b) = (Agent::new("a"), Agent::new("b"));
    a.connect(&cluster).await;
    b.connect(&cluster).await;
    cluster.apply("web", "web:1", 4).await;
    let before = live(&cluster.wait("4 pods run", |s| ready(s, 4)).await);

    let cluster = cluster.restart().await;
    assert_eq!(live(&cluster.store.snapshot()), before, "all pods are known after the restart");
    // One node is back and reports; of the other nothing is known, so nothing is done that its state would have to tell.
    a.connect(&cluster).await;
    cluster.wait("half of it is seen", |s| s.get(&workload()).is_some_and(|w| workload_status(&w).ready == 2)).await;
    cluster.apply("web", "web:1", 3).await;
    let scaled = |s: &Snapshot| s.get(&workload()).is_some_and(|w| workload_status(&w).desired == 3);
    assert_eq!(live(&cluster.wait("the new number is seen", scaled).await), before, "which one is too many?");
    b.connect(&cluster).await;
    let after = live(&cluster.wait("all of it is seen", |s| ready(s, 3)).await);
    assert!(after.iter().all(|(uid, node)| before.get(uid) == Some(node)), "of the same pods as before");
    assert_eq!((a.started(), b.started()), (2, 2), "no node started anything again");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_says_why() {
    let cluster = Cluster::start(20_000).await;
    cluster.apply("web", "missing:1", 1).await;
    let says = |s: &Snapshot, reason: &str| s.get(&workload()).is_some_and(|w| workload_status(&w).reason == reason);
    cluster.wait("nobody to ask", |s| says(s, "NoNodes")).await;
    let a = Agent::new("a");
    a.connect(&cluster).await;
    let snapshot = cluster.wait("no such image", |s| says(s, "ImageNotFound")).await;
    assert_eq!(snapshot.pods_of_workload("default", "web").count(), 0);
    // The same name comes into the cluster by an import: that is enough.
    cluster.import("docker.io/library/missing:1").await;
    cluster.wait("it runs", |s| ready(s, 1)).await;

    cluster
        .apply_with("web", "web:1", 2, |t| {
            t.node_selector.insert("disk".into(), "ssd".into());
            t.containers[0].requests = Some(strata_proto::types::Resources { cpu_millis: 500, ..Default::default() });
        })
        .await;
    let snapshot = cluster.wait("no node fits", |s| says(s, "Unschedulable")).await;
    let message = workload_status(&snapshot.get(&workload()).unwrap()).message.clone();
    assert!(message.contains("1 node: 1 does not match disk=ssd"), "{message}");
    let mut b = Agent::new("b");
    b.label("disk", "ssd");
    b.connect(&cluster).await;
    let snapshot = cluster.wait("a node that fits", |s| ready(s, 2) && on(&live(s), "b") == 2).await;
    let account = node_status(&snapshot.get(&Key::new(Kind::Node, "", "b")).unwrap()).allocated;
    assert_eq!(account.map(|a| a.cpu_millis), Some(1_000));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_speaks_for_itself_only_and_once() {
    let cluster = Cluster::start(20_000).await;
    let (a, b) = (Agent::new("a"), Agent::new("b"));
    a.connect(&cluster).await;
    cluster.apply("web", "web:1", 1).await;
    let before = live(&cluster.wait("it runs", |s| ready(s, 1)).await);
    b.connect(&cluster).await;
    let uid = before.keys().next().unwrap().clone();
    b.report(&uid, Phase::Failed).await;
    b.report_layer("sha256:1111111111111111111111111111111111111111111111111111111111111111").await;
    let b_key = Key::new(Kind::Node, "", "b");
    let snapshot =
        cluster.wait("b is heard", |s| s.get(&b_key).is_some_and(|n| node_status(&n).layers.len() == 1)).await;
    assert_eq!(live(&snapshot), before, "and not believed about a's pod");

    let twin = Agent::new("a");
    twin.connect(&cluster).await;
    a.wait_for_end().await;
    assert_eq!(a.refused().as_deref(), Some("Superseded"));
    twin.wait_for_pods(1).await;

    let admin = cluster.session_as_admin().await;
    assert_eq!(admin.code(), tonic::Code::PermissionDenied);
    cluster.stop().await;
}
