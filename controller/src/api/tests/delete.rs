use super::*;
use fake_node::{DIGEST, image};
use strata_proto::{
    cluster::DeleteRequest,
    types::{Namespace, PinnedImage, Template, TemplateSpec},
};
use tonic::Code;

async fn delete(
    client: &mut ObjectsClient<Channel>,
    kind: Kind,
    name: &str,
    force: bool,
) -> Result<Option<Object>, Status> {
    let request = DeleteRequest { kind: kind.into(), name: name.into(), force, ..DeleteRequest::default() };
    client.delete(request).await.map(|r| r.into_inner().object)
}

#[tokio::test]
async fn workloads_and_pods_are_marked_for_their_owners() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    apply(&mut client, workload("web", Some(1))).await.unwrap();
    let marked = delete(&mut client, Kind::Workload, "web", false).await.unwrap().unwrap();
    assert!(marked.meta.as_ref().unwrap().deleted.is_some());
    let again = delete(&mut client, Kind::Workload, "web", false).await.unwrap().unwrap();
    assert_eq!(again, marked, "a second delete changes nothing");
    assert_eq!(reason(&apply(&mut client, workload("web", Some(2))).await.unwrap_err()), "BeingDeleted");
    let absent = delete(&mut client, Kind::Workload, "absent", false).await.unwrap_err();
    assert_eq!((absent.code(), reason(&absent).as_str()), (Code::NotFound, "NotFound"));
    let request = DeleteRequest { kind: Kind::Workload.into(), name: "web".into(), revision: 1, ..Default::default() };
    assert_eq!(client.delete(request).await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn a_namespace_is_named_when_it_is_missing_and_goes_only_when_empty() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    let inside = |name: &str| {
        let mut object = workload("web", Some(1));
        object.meta.as_mut().unwrap().namespace = name.into();
        object
    };
    let refused = apply(&mut client, inside("shop")).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "NamespaceNotFound"));
    assert!(refused.message().contains("kind: Namespace"), "{}", refused.message());
    let namespace = Object { meta: meta("", "shop"), kind: Some(object::Kind::Namespace(Namespace::default())) };
    apply(&mut client, namespace).await.unwrap();
    apply(&mut client, inside("shop")).await.unwrap();
    let refused = delete(&mut client, Kind::Namespace, "shop", false).await.unwrap_err();
    assert_eq!(reason(&refused), "NotEmpty");
    apply(&mut client, inside("shop")).await.unwrap();
    cluster
        .state
        .store
        .commit(vec![Change::delete(Key::new(Kind::Workload, "shop", "web"), Condition::None)])
        .await
        .unwrap();
    delete(&mut client, Kind::Namespace, "shop", false).await.unwrap();
    assert!(cluster.get(Kind::Namespace, "", "shop").is_none());
    assert_eq!(reason(&delete(&mut client, Kind::Namespace, "default", false).await.unwrap_err()), "Protected");
}

#[tokio::test]
async fn an_image_in_use_is_kept_unless_forced_and_goes_from_the_nodes() {
    let cluster = Cluster::start().await;
    let node = cluster.node("n1").await;
    let mut client = cluster.objects().await;
    super::super::record_image(&cluster.state.store, "a/b:1", image(), "n1").await.unwrap();
    let pinned = PinnedImage { name: "docker.io/a/b:1".into(), digest: DIGEST.into(), ..PinnedImage::default() };
    let spec = TemplateSpec { pod: Some(template(&["c"])), images: vec![pinned], ..Default::default() };
    let kind = object::Kind::Template(Template { spec: Some(spec) });
    cluster.put(Object { meta: meta("", "rev"), kind: Some(kind) }).await;
    let mut user = pod("web-0", "n1", &["c"], pod_status::Phase::Running);
    let Some(object::Kind::Pod(p)) = &mut user.kind else { panic!() };
    p.spec.as_mut().unwrap().template_revision = "rev".into();
    cluster.put(user).await;
    let refused = delete(&mut client, Kind::Image, "a/b:1", false).await.unwrap_err();
    assert_eq!(reason(&refused), "InUse");
    assert!(refused.message().contains("Pod default/web-0"), "{}", refused.message());
    delete(&mut client, Kind::Image, "a/b:1", true).await.unwrap();
    assert_eq!(*node.seen.lock().unwrap(), [format!("remove {DIGEST}")]);
}

#[tokio::test]
async fn a_node_that_is_alive_stays() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    cluster.put(node_object("n1", 1, node_status::Phase::Ready)).await;
    assert_eq!(reason(&delete(&mut client, Kind::Node, "n1", false).await.unwrap_err()), "NodeReady");
    cluster.put(node_object("n1", 1, node_status::Phase::Lost)).await;
    delete(&mut client, Kind::Node, "n1", false).await.unwrap();
    assert!(cluster.get(Kind::Node, "", "n1").is_none());
    assert_eq!(reason(&delete(&mut client, Kind::Template, "x", false).await.unwrap_err()), "Internal");
}
