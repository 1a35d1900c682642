//! Secrets and volumes, through the whole controller.

use crate::{agent::Agent, cluster::Cluster, live, on, ready};
use prost::Message as _;
use strata_controller::objects::{meta, template_spec, workload_status};
use strata_proto::types::{
    self, EnvVar, KeyRef, Kind, Object, SecretSpec, VolumeSource, VolumeSpec, env_var::From, object,
    volume_source::Source,
};
use strata_store::{Key, Snapshot};

fn secret(word: &str) -> object::Kind {
    let data = [("password".to_owned(), word.as_bytes().to_vec())].into();
    object::Kind::Secret(types::Secret { spec: Some(SecretSpec { data, ..SecretSpec::default() }), status: None })
}

fn lies_anywhere(snapshot: &Snapshot, word: &[u8]) -> bool {
    let kinds = [Kind::Workload, Kind::Pod, Kind::Node, Kind::Template, Kind::Event, Kind::Secret];
    let objects = kinds.iter().flat_map(|k| snapshot.list(*k, None).collect::<Vec<_>>());
    let mut bytes = objects.map(|o| Object::encode_to_vec(&o));
    bytes.any(|b| b.windows(word.len()).any(|w| w == word))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_goes_sealed_into_the_store_and_in_clear_only_to_its_nodes() {
    let cluster = Cluster::start(20_000).await;
    let (mut a, b) = (Agent::new("a"), Agent::new("b"));
    a.label("zone", "a");
    a.connect(&cluster).await;
    b.connect(&cluster).await;
    cluster
        .apply_with("web", "web:1", 1, |template| {
            template.node_selector = [("zone".to_owned(), "a".to_owned())].into();
            let key = KeyRef { name: "db".into(), key: "password".into(), optional: false };
            let from = Some(From::Secret(key));
            template.containers[0].env = vec![EnvVar { name: "PASSWORD".into(), value: String::new(), from }];
        })
        .await;
    let status = |s: &Snapshot| s.get(&crate::workload()).map(|w| workload_status(&w).clone()).unwrap_or_default();
    cluster.wait("it waits for its secret", |s| status(s).reason == "SecretNotFound").await;
    let answer = cluster.apply_object("db", secret("hunter2")).await;
    let Some(object::Kind::Secret(shown)) = answer.kind else { panic!() };
    let spec = shown.spec.unwrap();
    assert!(spec.data.is_empty() && spec.sealed.is_empty(), "answers carry no data");
    assert_eq!(shown.status.unwrap().keys, ["password"]);
    let first = cluster.wait("it runs", |s| ready(s, 1)).await;
    assert!(!lies_anywhere(&first, b"hunter2"));
    assert_eq!(a.secrets().len(), 1);
    assert_eq!(a.secrets()[0].1["password"], b"hunter2");
    assert_eq!(b.secrets(), vec![]);

    // Rotated: another revision, another pod; the same again: none.
    let old = status(&first).revision;
    cluster.apply_object("db", secret("hunter3")).await;
    let next = cluster.wait("it has rolled", |s| ready(s, 1) && status(s).revision != old).await;
    assert_eq!(a.secrets().last().unwrap().1["password"], b"hunter3");
    let revision = status(&next).revision;
    cluster.apply_object("db", secret("hunter3")).await;
    cluster.delete(&Key::new(Kind::Secret, "default", "db")).await;
    cluster.apply_object("unrelated", secret("x")).await;
    // What is gone or the same changes nothing; the loop has seen both once the next question of its is answered.
    cluster.apply("other", "other:1", 0).await;
    let other = Key::new(Kind::Workload, "default", "other");
    let seen = |s: &Snapshot| s.get(&other).is_some_and(|w| !workload_status(&w).revision.is_empty());
    let last = cluster.wait("the loop is past it", seen).await;
    assert_eq!(status(&last).revision, revision);
    let template = last.get(&strata_controller::objects::template_key(&revision)).unwrap();
    assert_eq!(template_spec(&template).unwrap().materials.len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_share_a_new_volume_meet_on_one_node() {
    let cluster = Cluster::start(20_000).await;
    let (a, b) = (Agent::new("a"), Agent::new("b"));
    a.connect(&cluster).await;
    b.connect(&cluster).await;
    cluster
        .apply_with("web", "web:1", 4, |template| {
            template.volumes = vec![VolumeSource { name: "v".into(), source: Some(Source::Volume("data".into())) }];
        })
        .await;
    let told = |s: &Snapshot| {
        let pods: Vec<_> = s.pods_of_workload("default", "web").collect();
        pods.len() == 4 && pods.iter().all(|p| strata_controller::objects::pod_status(p).reason == "VolumeNotFound")
    };
    cluster.wait("they wait for their volume", told).await;
    let volume = || object::Kind::Volume(types::Volume { spec: Some(VolumeSpec::default()), status: None });
    cluster.apply_object("data", volume()).await;
    let snapshot = cluster.wait("they run", |s| ready(s, 4)).await;
    let key = Key::new(Kind::Volume, "default", "data");
    let node = |s: &Snapshot| match &s.get(&key).unwrap().kind {
        Some(object::Kind::Volume(v)) => v.spec.as_ref().unwrap().node.clone(),
        _ => String::new(),
    };
    let bound = node(&snapshot);
    assert!(bound == "a" || bound == "b");
    assert_eq!(on(&live(&snapshot), &bound), 4);
    // Applied again it stays where it is.
    cluster.apply_object("data", volume()).await;
    assert_eq!(node(&cluster.store.snapshot()), bound);
    assert!(meta(&cluster.store.snapshot().get(&key).unwrap()).deleted.is_none());
    cluster.stop().await;
}
