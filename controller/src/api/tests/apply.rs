use super::*;
use strata_proto::{cluster::apply_response::Outcome, types::WorkloadStatus};
use tonic::Code;

#[tokio::test]
async fn a_workload_is_created_with_defaults_then_unchanged_then_configured() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    let created = apply(&mut client, workload("web", None)).await.unwrap();
    assert_eq!(created.outcome(), Outcome::Created);
    let object = created.object.unwrap();
    let first = object.meta.clone().unwrap();
    assert_eq!((first.generation, workload_of(&object).spec.as_ref().unwrap().replicas), (1, Some(1)));
    assert!(first.uid.len() == 36 && first.created.is_some() && first.revision > 0);

    let same = apply(&mut client, workload("web", None)).await.unwrap();
    assert_eq!(same.outcome(), Outcome::Unchanged);
    assert_eq!(same.object.unwrap().meta.unwrap().revision, first.revision, "nothing was written");

    let scaled = apply(&mut client, workload("web", Some(5))).await.unwrap();
    assert_eq!((scaled.outcome(), scaled.object.unwrap().meta.unwrap().generation), (Outcome::Configured, 2));
    let kept = apply(&mut client, workload("web", None)).await.unwrap();
    assert_eq!(kept.outcome(), Outcome::Unchanged, "absent replicas keep the present number");
    assert_eq!(workload_of(&kept.object.unwrap()).spec.as_ref().unwrap().replicas, Some(5));
}

#[tokio::test]
async fn status_and_what_others_added_stay() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    let mut object = apply(&mut client, workload("web", Some(2))).await.unwrap().object.unwrap();
    object.meta.as_mut().unwrap().labels.insert("other".into(), "tool".into());
    let Some(object::Kind::Workload(w)) = &mut object.kind else { panic!() };
    w.status = Some(WorkloadStatus { next_ordinal: 7, ..WorkloadStatus::default() });
    cluster.put(object).await;

    let mut mine = workload("web", Some(2));
    mine.meta.as_mut().unwrap().labels.insert("mine".into(), "1".into());
    let Some(object::Kind::Workload(w)) = &mut mine.kind else { panic!() };
    w.status = Some(WorkloadStatus { next_ordinal: 99, ..WorkloadStatus::default() });
    let done = apply(&mut client, mine).await.unwrap();
    assert_eq!(done.outcome(), Outcome::Configured);
    let object = done.object.unwrap();
    let meta = object.meta.clone().unwrap();
    assert_eq!((meta.generation, meta.labels.len()), (1, 2), "labels are no spec");
    assert_eq!(workload_of(&object).status.as_ref().unwrap().next_ordinal, 7);
}

#[tokio::test]
async fn a_label_that_an_apply_leaves_out_goes() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    let labelled = |labels: &[&str]| {
        let mut object = workload("web", Some(1));
        let meta = object.meta.as_mut().unwrap();
        meta.labels = labels.iter().map(|l| ((*l).to_owned(), "x".to_owned())).collect();
        meta.annotations = meta.labels.clone();
        object
    };
    let keys = |object: &Object| {
        let mut keys: Vec<String> = object.meta.as_ref().unwrap().labels.keys().cloned().collect();
        keys.sort();
        keys.join(",")
    };
    let mut first = apply(&mut client, labelled(&["a", "b"])).await.unwrap().object.unwrap();
    first.meta.as_mut().unwrap().labels.insert("theirs".into(), "x".into());
    cluster.put(first).await;
    let second = apply(&mut client, labelled(&["b", "c"])).await.unwrap();
    assert_eq!(second.outcome(), Outcome::Configured);
    let second = second.object.unwrap();
    assert_eq!(keys(&second), "b,c,theirs");
    assert!(!second.meta.as_ref().unwrap().annotations.contains_key("a"));
    assert_eq!(apply(&mut client, labelled(&["b", "c"])).await.unwrap().outcome(), Outcome::Unchanged);
    // What get prints, edited.
    let mut edited = second;
    edited.meta.as_mut().unwrap().labels.remove("theirs");
    assert_eq!(keys(&apply(&mut client, edited).await.unwrap().object.unwrap()), "b,c");
}

#[tokio::test]
async fn a_revision_is_a_condition() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    let first = apply(&mut client, workload("web", Some(1))).await.unwrap().object.unwrap().meta.unwrap().revision;
    let at = |revision, replicas| {
        let mut w = workload("web", Some(replicas));
        w.meta.as_mut().unwrap().revision = revision;
        w
    };
    apply(&mut client, at(first, 2)).await.unwrap();
    let refused = apply(&mut client, at(first, 3)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Aborted, "Conflict"));
    let mut absent = at(first, 1);
    absent.meta.as_mut().unwrap().name = "absent".into();
    assert_eq!(apply(&mut client, absent).await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn many_applies_of_one_object_at_once_all_succeed() {
    let cluster = Cluster::start().await;
    let client = cluster.objects().await;
    let applies = (1..=20u32).map(|n| {
        let mut client = client.clone();
        tokio::spawn(async move { apply(&mut client, workload("web", Some(n))).await })
    });
    for done in futures::future::join_all(applies).await {
        done.unwrap().unwrap();
    }
    let object = cluster.get(Kind::Workload, "default", "web").unwrap();
    assert_eq!(object.meta.as_ref().unwrap().generation, 20, "each was a change of its own");
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_path() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    let edit = |change: &dyn Fn(&mut Workload, &mut Meta)| {
        let mut object = workload("web", Some(1));
        let Some(object::Kind::Workload(w)) = &mut object.kind else { panic!() };
        change(w, object.meta.as_mut().unwrap());
        object
    };
    let container = |w: &mut Workload, change: &dyn Fn(&mut Container)| {
        change(&mut w.spec.as_mut().unwrap().template.as_mut().unwrap().containers[0]);
    };
    let cases: Vec<(Object, &str)> = vec![
        (edit(&|w, _| container(w, &|c| c.image = "UPPER".into())), "spec.template.containers[0].image"),
        (edit(&|w, _| container(w, &|c| c.pull_policy = 9)), "spec.template.containers[0].pullPolicy"),
        (
            edit(&|w, _| container(w, &|c| c.image_digest = fake_node::DIGEST.into())),
            "spec.template.containers[0].imageDigest",
        ),
        (edit(&|w, _| w.spec.as_mut().unwrap().mode = 1), "spec.replicas"),
        (edit(&|w, _| w.spec.as_mut().unwrap().replicas = Some(u32::MAX)), "spec.replicas"),
        (edit(&|_, m| m.name = "Web".into()), "meta.name"),
        (edit(&|_, m| m.name = "w".repeat(60)), "meta.name"),
        (edit(&|w, _| w.spec = None), "spec"),
        (Object { meta: meta("ns", "x"), kind: Some(object::Kind::Node(Node::default())) }, "meta.namespace"),
        (Object { meta: meta("", "x"), kind: None }, "kind"),
        (Object { meta: meta("", "x"), kind: Some(object::Kind::Template(Default::default())) }, "kind"),
        (pod("p", "node-1", &["c"], pod_status::Phase::Pending), "spec.node"),
    ];
    for (object, path) in cases {
        let status = apply(&mut client, object).await.expect_err(path);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().starts_with(&format!("{path}:")), "{path}: {}", status.message());
        assert_eq!(reason(&status), "Invalid");
    }
    let mut large = workload("web", Some(1));
    large.meta.as_mut().unwrap().annotations.insert("x".into(), "y".repeat(1 << 20));
    assert_eq!(reason(&apply(&mut client, large).await.unwrap_err()), "TooLarge");
    assert_eq!(cluster.state.store.snapshot().list(Kind::Workload, None).count(), 0);
}

#[tokio::test]
async fn dry_run_and_create_only() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    let request = |dry_run, create_only| ApplyRequest { object: Some(workload("web", None)), dry_run, create_only };
    let tried = client.apply(request(true, false)).await.unwrap().into_inner();
    assert_eq!(tried.outcome(), Outcome::Created);
    assert!(cluster.get(Kind::Workload, "default", "web").is_none());
    client.apply(request(false, true)).await.unwrap();
    let again = client.apply(request(false, true)).await.unwrap_err();
    assert_eq!((again.code(), reason(&again).as_str()), (Code::AlreadyExists, "AlreadyExists"));
}

#[tokio::test]
async fn pods_and_nodes_keep_what_is_the_controllers() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    cluster.put(pod("p", "node-1", &["c"], pod_status::Phase::Running)).await;
    cluster.put(node_object("node-1", 1, node_status::Phase::Ready)).await;
    // What get prints can be applied again.
    let present = (*cluster.get(Kind::Pod, "default", "p").unwrap()).clone();
    assert_eq!(apply(&mut client, present).await.unwrap().outcome(), Outcome::Unchanged);
    let moved = pod("p", "node-2", &["c"], pod_status::Phase::Running);
    assert_eq!(reason(&apply(&mut client, moved).await.unwrap_err()), "Immutable");
    let mut cordoned = node_object("node-1", 1, node_status::Phase::Lost);
    let Some(object::Kind::Node(node)) = &mut cordoned.kind else { panic!() };
    node.spec = Some(NodeSpec { unschedulable: true, ..NodeSpec::default() });
    let done = apply(&mut client, cordoned).await.unwrap().object.unwrap();
    let Some(object::Kind::Node(node)) = done.kind else { panic!() };
    assert_eq!((node.spec.as_ref().unwrap().index, node.spec.as_ref().unwrap().unschedulable), (1, true));
    assert_eq!(node.status.unwrap().phase(), node_status::Phase::Ready);
    let unknown = node_object("other", 1, node_status::Phase::Ready);
    assert_eq!(reason(&apply(&mut client, unknown).await.unwrap_err()), "NodeNotJoined");
}
