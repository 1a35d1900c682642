//! Placing pods on nodes: tables of cases, and invariants against a scan of everything.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use std::collections::BTreeMap;
use strata_model::{Digest, Labels, Layer, Node, NodeName, NodePhase, ObjectName, Resources, Uid};
use strata_scheduler::{Placement, Request, Scheduler, Shape};

fn node(name: &str, cpu_millis: u64) -> Node {
    Node {
        name: NodeName::from_trusted(name),
        labels: Labels::new(),
        phase: NodePhase::Ready,
        unschedulable: false,
        draining: false,
        capacity: Resources { cpu_millis, memory_bytes: 1 << 30, pids: 0 },
        layers: vec![],
        subnet: "10.64.16.0/20".parse().unwrap(),
    }
}

fn labelled(mut node: Node, key: &str, value: &str) -> Node {
    node.labels.insert(key.into(), value.into());
    node
}

fn shape(cpu_millis: u64) -> Shape {
    Shape { cpu_millis, workload: Some(ObjectName::new("default", "web")), ..Shape::default() }
}

fn requests(shape: &Shape, count: usize) -> Vec<Request> {
    (0..count).map(|i| Request { uid: Uid::from_trusted(format!("{shape:?}-{i}")), shape: shape.clone() }).collect()
}

/// Node names, or the explanation, one after the other.
fn check(nodes: &[Node], requests: &[Request], expect: &[&str]) {
    let mut scheduler = Scheduler::new();
    for node in nodes {
        scheduler.set_node(node);
    }
    let got: Vec<String> = scheduler
        .place(requests)
        .iter()
        .map(|p| match p {
            Placement::Node(name) => name.to_string(),
            Placement::Nowhere(why) => why.to_string(),
        })
        .collect();
    assert_eq!(got, expect);
}

#[test]
fn pods_go_where_their_volumes_are() {
    let nodes = [node("a", 4000), node("b", 1000)];
    let at = |volumes: &[(&str, &str)]| Shape {
        volumes: volumes.iter().map(|(v, n)| ((*v).into(), NodeName::from_trusted(*n))).collect(),
        ..shape(600)
    };
    check(
        &nodes,
        &requests(&at(&[("data", "b")]), 2),
        &["b", "2 nodes: 1 lacks cpu (want 600m, at most 400m free), 1 does not have volume data, which is on b"],
    );
    let torn = "2 nodes: 1 does not have volume data, which is on b, 1 does not have volume logs, which is on a";
    check(&nodes, &requests(&at(&[("data", "b"), ("logs", "a")]), 1), &[torn]);
}

fn layer(n: u8) -> Layer {
    Layer { diff_id: Digest::of(&[n]), size_bytes: 1000 }
}

#[test]
fn replicas_reach_every_node_although_one_has_the_layers() {
    let mut a = node("a", 4000);
    let b = node("b", 4000);
    a.layers = vec![layer(1)];
    let want = shape(100).with_layers([layer(1)].iter());
    check(&[b.clone(), a.clone()], &requests(&want, 4), &["a", "b", "a", "b"]);
    let alone = Shape { workload: None, ..want };
    check(&[b, a], &requests(&alone, 3), &["a", "a", "a"]);
}

#[test]
fn what_asks_for_cpu_is_packed_and_what_asks_for_nothing_is_not() {
    let nodes = [node("a", 1000), node("b", 1000)];
    let cpu = Shape { workload: None, ..shape(400) };
    let why = "2 nodes: 2 lack cpu (want 400m, at most 200m free)";
    check(&nodes, &requests(&cpu, 5), &["a", "a", "b", "b", why]);
    let nothing = Shape { workload: None, ..shape(0) };
    check(&nodes, &requests(&nothing, 4), &["a", "b", "a", "b"]);
}

#[test]
fn explanations_count_what_nodes_lack() {
    let mut want = shape(500);
    want.selector.insert("disk".into(), "ssd".into());
    let ssd = |n: &str| labelled(node(n, 200), "disk", "ssd");
    check(
        &[ssd("a"), ssd("b"), node("c", 4000)],
        &requests(&want, 1),
        &["3 nodes: 2 lack cpu (want 500m, at most 200m free), 1 does not match disk=ssd"],
    );
    check(&[], &requests(&want, 1), &["there are no nodes: start an agent that joins this controller"]);
    let mut lost = node("a", 1000);
    lost.phase = NodePhase::Lost;
    let mut closed = node("b", 1000);
    closed.unschedulable = true;
    check(&[lost, closed], &requests(&shape(1), 1), &["2 nodes: 1 is not ready, 1 is closed for new pods"]);
    let big = Shape { memory_bytes: 2 << 30, ..shape(1) };
    check(&[node("a", 10)], &requests(&big, 1), &["1 node: 1 lacks memory (want 2Gi, at most 1Gi free)"]);
    let pinned = Shape { node: Some(NodeName::from_trusted("z")), ..shape(1) };
    check(&[node("a", 10)], &requests(&pinned, 1), &["1 node: 1 is not z, for which the pod was made"]);
}

#[test]
fn what_fits_exactly_fits_and_one_more_does_not() {
    for (memory_bytes, fits) in [(1 << 30, true), ((1 << 30) + 1, false)] {
        let mut scheduler = Scheduler::new();
        scheduler.set_node(&node("a", 10));
        let placed = scheduler.place(&requests(&Shape { memory_bytes, ..shape(10) }, 1));
        assert_eq!(matches!(placed[..], [Placement::Node(_)]), fits, "{memory_bytes}");
    }
}

#[test]
fn a_node_is_full_when_its_addresses_are() {
    let mut small = node("a", 0);
    small.subnet = "10.0.0.0/29".parse().unwrap();
    let mut got = vec!["a"; 5];
    got.push("1 node: 1 is full: no address is left for another pod");
    check(&[small], &requests(&shape(0), 6), &got);
}

#[test]
fn what_is_removed_is_free_again() {
    let mut scheduler = Scheduler::new();
    scheduler.set_node(&node("a", 1000));
    let pods = requests(&shape(1000), 2);
    assert_eq!(scheduler.place(&pods[..1]), [Placement::Node(NodeName::from_trusted("a"))]);
    assert!(matches!(scheduler.place(&pods[1..])[..], [Placement::Nowhere(_)]));
    assert!(scheduler.remove_pod(&pods[0].uid));
    assert_eq!(scheduler.place(&pods[1..]), [Placement::Node(NodeName::from_trusted("a"))]);
    assert_eq!(scheduler.allocated("a"), (Resources { cpu_millis: 1000, ..Resources::default() }, 1));
}

prop_compose! {
    fn some_request()(cpu in 0u64..600, memory in 0u64..4, zone in 0u8..3, workload in 0u8..3, layers in 0u8..4) -> Shape {
        let mut shape = Shape { cpu_millis: cpu, memory_bytes: memory << 28, ..Shape::default() };
        if zone > 0 { shape.selector.insert("zone".into(), zone.to_string()); }
        if workload > 0 { shape.workload = Some(ObjectName::new("default", format!("w{workload}"))); }
        let layers: Vec<Layer> = (0..layers).map(layer).collect();
        shape.with_layers(layers.iter())
    }
}

prop_compose! {
    fn some_node(i: usize)(cpu in 0u64..3000, zone in 1u8..3, ready in 0u8..5, held in 0u8..4) -> Node {
        let mut n = labelled(node(&format!("n{i}"), cpu), "zone", &zone.to_string());
        if ready == 0 { n.phase = NodePhase::Unknown; }
        n.layers = (0..held).map(layer).collect();
        n
    }
}

proptest! {
    #[test]
    fn never_beyond_capacity_and_always_the_best(
        nodes in (1usize..8).prop_flat_map(|n| (0..n).map(some_node).collect::<Vec<_>>()),
        shapes in prop::collection::vec(some_request(), 1..30),
    ) {
        let mut scheduler = Scheduler::new();
        for n in &nodes { scheduler.set_node(n); }
        let mut used: BTreeMap<String, Resources> = BTreeMap::new();
        let mut spread: BTreeMap<(ObjectName, String), u32> = BTreeMap::new();
        for (i, shape) in shapes.iter().enumerate() {
            let uid = Uid::from_trusted(i.to_string());
            let feasible = |n: &Node| {
                let left = |cap: u64, taken: u64| if cap == 0 { u64::MAX } else { cap.saturating_sub(taken) };
                let u = used.get(n.name.as_str()).copied().unwrap_or_default();
                n.phase == NodePhase::Ready
                    && shape.selector.iter().all(|(k, v)| n.labels.get(k) == Some(v))
                    && shape.cpu_millis <= left(n.capacity.cpu_millis, u.cpu_millis)
                    && shape.memory_bytes <= left(n.capacity.memory_bytes, u.memory_bytes)
            };
            let count = |n: &Node| shape.workload.as_ref()
                .and_then(|w| spread.get(&(w.clone(), n.name.to_string()))).copied().unwrap_or(0);
            let lacking = |n: &Node| shape.layers.iter().filter(|(d, _)| !n.layers.iter().any(|l| l.diff_id == *d)).count();
            let best = nodes.iter().filter(|n| feasible(n)).map(|n| (count(n), lacking(n))).min();
            match scheduler.place(&[Request { uid, shape: shape.clone() }]).pop().unwrap() {
                Placement::Nowhere(_) => prop_assert_eq!(best, None),
                Placement::Node(name) => {
                    let chosen = nodes.iter().find(|n| n.name == name).unwrap();
                    prop_assert!(feasible(chosen));
                    prop_assert_eq!(Some((count(chosen), lacking(chosen))), best);
                    let u = used.entry(name.to_string()).or_default();
                    *u = u.plus(shape.resources());
                    if let Some(w) = &shape.workload { *spread.entry((w.clone(), name.to_string())).or_default() += 1; }
                }
            }
        }
    }

    #[test]
    fn one_batch_of_one_shape_places_as_one_by_one(
        nodes in (1usize..8).prop_flat_map(|n| (0..n).map(some_node).collect::<Vec<_>>()),
        shape in some_request(), count in 1usize..40,
    ) {
        let (mut together, mut singly) = (Scheduler::new(), Scheduler::new());
        for n in &nodes { together.set_node(n); singly.set_node(n); }
        let pods = requests(&shape, count);
        let each: Vec<Placement> = pods.iter().flat_map(|p| singly.place(std::slice::from_ref(p))).collect();
        prop_assert_eq!(together.place(&pods), each);
    }
}
