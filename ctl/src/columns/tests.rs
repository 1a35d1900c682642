//! The tables, whole.
#![allow(clippy::unwrap_used)]

use crate::output::{Format, Number, render};
use strata_proto::{
    timestamp_of_ms,
    types::{
        Container, ContainerStatus, Event, EventSpec, Image, ImageSpec, ImageStatus, Kind, LayerInfo, Meta, Node,
        NodeSpec, NodeStatus, Object, Pod, PodSpec, PodStatus, PodTemplate, Resources, Workload, WorkloadSpec,
        WorkloadStatus, event_spec::Severity, node_status, object, pod_status::Phase,
    },
};

const NOW_MS: u64 = 1_800_000_000_000;

fn object(namespace: &str, name: &str, age_s: u64, kind: object::Kind) -> Object {
    let meta = Meta {
        namespace: namespace.into(),
        name: name.into(),
        created: Some(timestamp_of_ms(NOW_MS - age_s * 1000)),
        ..Default::default()
    };
    Object { meta: Some(meta), kind: Some(kind) }
}

fn template(image: &str) -> PodTemplate {
    PodTemplate { containers: vec![Container { image: image.into(), ..Default::default() }], ..Default::default() }
}

fn pods() -> Vec<Object> {
    let running = Pod {
        spec: Some(PodSpec { workload: "web".into(), node: "node-1".into(), ..Default::default() }),
        status: Some(PodStatus {
            phase: Phase::Running.into(),
            ready: true,
            address: "10.64.16.5".into(),
            containers: vec![ContainerStatus {
                ready: true,
                restarts: 2,
                image: "docker.io/library/hello:1".into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
    };
    let pending = Pod {
        spec: Some(PodSpec { template: Some(template("big:1")), ..Default::default() }),
        status: Some(PodStatus {
            reason: "Unschedulable".into(),
            message: "3 nodes: none has 64 CPUs".into(),
            ..Default::default()
        }),
    };
    vec![
        object("default", "web-0", 7500, object::Kind::Pod(running)),
        object("prod", "one-off", 5, object::Kind::Pod(pending)),
    ]
}

fn table(kind: Kind, objects: &[Object], format: Format, with_namespace: bool) -> String {
    render(kind, objects, Number::Many, format, with_namespace, NOW_MS).unwrap()
}

#[test]
fn pods_look_like_this() {
    insta::assert_snapshot!("pods", table(Kind::Pod, &pods(), Format::Table, false));
    insta::assert_snapshot!("pods_wide_all_namespaces", table(Kind::Pod, &pods(), Format::Wide, true));
    insta::assert_snapshot!("pods_names", table(Kind::Pod, &pods(), Format::Name, false));
}

#[test]
fn workloads_look_like_this() {
    let web = Workload {
        spec: Some(WorkloadSpec { replicas: Some(6), template: Some(template("hello:1")), ..Default::default() }),
        status: Some(WorkloadStatus { replicas: 6, desired: 6, ready: 4, updated: 5, ..Default::default() }),
    };
    let broken = Workload {
        spec: Some(WorkloadSpec { mode: 1, template: Some(template("nope:1")), ..Default::default() }),
        status: Some(WorkloadStatus {
            reason: "ImageNotFound".into(),
            message: "docker.io/library/nope:1:\nnot there".into(),
            ..Default::default()
        }),
    };
    let objects = [
        object("default", "web", 200, object::Kind::Workload(web)),
        object("default", "logger", 100_000, object::Kind::Workload(broken)),
    ];
    insta::assert_snapshot!("workloads", table(Kind::Workload, &objects, Format::Table, false));
    insta::assert_snapshot!("workloads_wide", table(Kind::Workload, &objects, Format::Wide, false));
}

#[test]
fn nodes_look_like_this() {
    let resources = |cpu_millis, gib: u64| Resources { cpu_millis, memory_bytes: gib << 30, pids: 0 };
    let node = Node {
        spec: Some(NodeSpec { subnet: "10.64.16.0/20".into(), ..Default::default() }),
        status: Some(NodeStatus {
            phase: node_status::Phase::Ready.into(),
            address: "192.0.2.7".into(),
            capacity: Some(resources(2000, 24)),
            allocated: Some(resources(500, 1)),
            layers: vec![LayerInfo { diff_id: "sha256:aa".into(), size_bytes: 5 << 20 }],
            pods: 2,
            layer_mount: "File".into(),
            architecture: "amd64".into(),
            version: "0.1.0".into(),
            ..Default::default()
        }),
    };
    let objects = [
        object("", "node-1", 3600, object::Kind::Node(node)),
        object("", "node-2", 60, object::Kind::Node(Node::default())),
    ];
    insta::assert_snapshot!("nodes", table(Kind::Node, &objects, Format::Table, false));
    insta::assert_snapshot!("nodes_wide", table(Kind::Node, &objects, Format::Wide, false));
}

#[test]
fn images_and_events_look_like_this() {
    let image = Image {
        spec: Some(ImageSpec {
            digest: format!("sha256:{}", "0123456789abcdef".repeat(4)),
            size_bytes: 7 << 20,
            layers: vec![LayerInfo::default(); 3],
            ..Default::default()
        }),
        status: Some(ImageStatus { nodes: vec!["node-1".into(), "node-3".into()] }),
    };
    let images = [object("", "docker.io/library/hello:1", 60, object::Kind::Image(image))];
    insta::assert_snapshot!("images", table(Kind::Image, &images, Format::Table, false));
    let event = Event {
        spec: Some(EventSpec {
            kind: "Pod".into(),
            name: "web-0".into(),
            severity: Severity::Warning.into(),
            reason: "OOMKilled".into(),
            message: "container main\nused 64 MiB".into(),
            source: "node-1".into(),
            count: 3,
            last: Some(timestamp_of_ms(NOW_MS - 30_000)),
            ..Default::default()
        }),
    };
    let events = [object("default", "e1", 600, object::Kind::Event(event))];
    insta::assert_snapshot!("events", table(Kind::Event, &events, Format::Table, false));
}

#[test]
fn json_is_an_array_for_lists_and_an_object_for_one() {
    let of = |objects: &[Object], number| {
        let text = render(Kind::Pod, objects, number, Format::Json, false, NOW_MS).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    assert_eq!(of(&pods()[..1], Number::One)["meta"]["name"], "web-0");
    assert_eq!(of(&pods()[..1], Number::Many)[0]["status"]["phase"], "Running");
    assert_eq!(of(&[], Number::Many), serde_json::json!([]));
}

#[test]
fn yaml_reads_back_as_the_same_document() {
    let text = render(Kind::Pod, &pods()[..1], Number::One, Format::Yaml, false, NOW_MS).unwrap();
    let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(value, strata_proto::document::to_json(&pods()[0]).unwrap());
}
