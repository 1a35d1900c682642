use super::*;
use fake_node::DIGEST;
use futures::stream;
use strata_proto::{
    cluster::{ExecRequest, ExecStart, LogsRequest, PullRequest, exec_request},
    node::{ImportChunk, ImportStart, PullProgress, exec_output, import_chunk},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn logs(pod: &str, container: &str, follow: bool) -> LogsRequest {
    LogsRequest { pod: pod.into(), container: container.into(), follow, ..LogsRequest::default() }
}

#[tokio::test]
async fn logs_pass_through_and_end_on_the_node_when_the_client_goes() {
    let cluster = Cluster::start().await;
    let mut node = cluster.node("n1").await;
    cluster.put(pod("web-0", "n1", &["c"], pod_status::Phase::Running)).await;
    let mut client = cluster.cluster().await;
    let mut stream = client.logs(logs("web-0", "", false)).await.unwrap().into_inner();
    let mut text = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        text.extend(chunk.data);
    }
    assert_eq!(text, b"line 0\nline 1\nline 2\n");
    assert_eq!(*node.seen.lock().unwrap(), ["logs uid-web-0 c"]);
    let mut follow = client.logs(logs("web-0", "c", true)).await.unwrap().into_inner();
    follow.message().await.unwrap().unwrap();
    drop(follow);
    assert_eq!(node.ended.recv().await, Some("logs"));
}

#[tokio::test]
async fn what_cannot_be_relayed_says_why() {
    let cluster = Cluster::start().await;
    let node = cluster.node("n1").await;
    cluster.put(pod("waiting", "", &["c"], pod_status::Phase::Pending)).await;
    cluster.put(pod("two", "n1", &["a", "b"], pod_status::Phase::Running)).await;
    cluster.put(pod("lost", "n9", &["c"], pod_status::Phase::Running)).await;
    cluster.put(pod("over", "n1", &["c"], pod_status::Phase::Exited)).await;
    cluster.put(node_object("dead", 1, node_status::Phase::Ready)).await;
    cluster.put(pod("cut-off", "dead", &["c"], pod_status::Phase::Running)).await;
    // A node whose certificate is another's.
    cluster.put(node_object("liar", node.port, node_status::Phase::Ready)).await;
    cluster.put(pod("fooled", "liar", &["c"], pod_status::Phase::Running)).await;
    let mut client = cluster.cluster().await;
    for (pod, container, code, word, text) in [
        ("absent", "", Code::NotFound, "NotFound", "Pod default/absent"),
        ("waiting", "", Code::FailedPrecondition, "PodNotAssigned", "Pending: Unschedulable"),
        ("two", "", Code::InvalidArgument, "ContainerAmbiguous", "a, b"),
        ("two", "x", Code::NotFound, "ContainerNotFound", "a, b"),
        ("lost", "", Code::Unavailable, "NodeUnreachable", "n9"),
        ("cut-off", "", Code::Unavailable, "NodeUnreachable", "dead"),
        ("fooled", "", Code::Unavailable, "NodeUnreachable", "liar"),
    ] {
        let status = client.logs(logs(pod, container, false)).await.expect_err(pod);
        assert_eq!((status.code(), reason(&status).as_str()), (code, word), "{pod}: {status:?}");
        assert!(status.message().contains(text), "{pod}: {}", status.message());
    }
    let status = client.exec(stream::iter([exec_start("over")])).await.unwrap_err();
    assert_eq!(reason(&status), "PodEnded");
    let status = client.exec(stream::empty()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(node.seen.lock().unwrap().is_empty());
}

fn exec_start(pod: &str) -> ExecRequest {
    let start = ExecStart { pod: pod.into(), command: vec!["cat".into()], stdin: true, ..ExecStart::default() };
    ExecRequest { message: Some(exec_request::Message::Start(start)) }
}

#[tokio::test]
async fn exec_carries_both_directions_and_the_exit_code() {
    let cluster = Cluster::start().await;
    let node = cluster.node("n1").await;
    cluster.put(pod("web-0", "n1", &["c"], pod_status::Phase::Running)).await;
    let (send, input) = mpsc::channel(1);
    send.send(exec_start("web-0")).await.unwrap();
    let mut output = cluster.cluster().await.exec(ReceiverStream::new(input)).await.unwrap().into_inner();
    for n in 0..50u8 {
        let data = vec![n; 1000];
        send.send(ExecRequest { message: Some(exec_request::Message::Stdin(data.clone())) }).await.unwrap();
        assert_eq!(output.message().await.unwrap().unwrap().message, Some(exec_output::Message::Stdout(data)));
    }
    send.send(ExecRequest { message: Some(exec_request::Message::StdinClosed(true)) }).await.unwrap();
    let Some(exec_output::Message::Exit(exit)) = output.message().await.unwrap().unwrap().message else { panic!() };
    assert_eq!(exit.code, 3);
    assert!(output.message().await.unwrap().is_none());
    assert_eq!(*node.seen.lock().unwrap(), ["exec uid-web-0 c [\"cat\"]"]);
}

fn import_chunk(message: import_chunk::Message) -> ImportChunk {
    ImportChunk { message: Some(message) }
}

#[tokio::test]
async fn an_import_goes_to_the_emptiest_node_and_is_recorded() {
    let cluster = Cluster::start().await;
    let refused = cluster.cluster().await.import_image(stream::iter([start("x")])).await.unwrap_err();
    assert_eq!(reason(&refused), "NoReadyNode");
    let busy = cluster.node("n1").await;
    let free = cluster.node("n2").await;
    cluster.put(pod("p", "n1", &["c"], pod_status::Phase::Running)).await;
    let data = (0..40).map(|_| import_chunk(import_chunk::Message::Data(vec![7; 100_000].into())));
    let end = import_chunk(import_chunk::Message::End(true));
    let archive = [start("shop/web:2")].into_iter().chain(data).chain([end]).collect::<Vec<_>>();
    let answer = cluster.cluster().await.import_image(stream::iter(archive)).await.unwrap().into_inner();
    assert_eq!(answer.images[0].meta.as_ref().unwrap().name, "docker.io/shop/web:2");
    let object = cluster.get(Kind::Image, "", "docker.io/shop/web:2").unwrap();
    let Some(object::Kind::Image(image)) = &object.kind else { panic!() };
    assert_eq!(
        (image.spec.as_ref().unwrap().digest.as_str(), image.status.as_ref().unwrap().nodes.as_slice()),
        (DIGEST, &["n2".to_owned()][..])
    );
    assert_eq!(*free.seen.lock().unwrap(), ["import 4000000"]);
    assert!(busy.seen.lock().unwrap().is_empty());
}

fn start(name: &str) -> ImportChunk {
    import_chunk(import_chunk::Message::Start(ImportStart { name: name.into() }))
}

/// Begins an import whose first bytes have arrived at the node; the sender keeps it open.
async fn begin_import(
    cluster: &Cluster,
    node: &mut FakeNode,
) -> (mpsc::Sender<ImportChunk>, tokio::task::JoinHandle<Result<(), Status>>) {
    let (send, chunks) = mpsc::channel(1);
    let mut client = cluster.cluster().await;
    let call = tokio::spawn(async move { client.import_image(ReceiverStream::new(chunks)).await.map(|_| ()) });
    send.send(start("x")).await.unwrap();
    send.send(import_chunk(import_chunk::Message::Data(vec![1; 10].into()))).await.unwrap();
    assert_eq!(node.ended.recv().await, Some("importing"));
    (send, call)
}

/// Every place among the relayed streams is free again: all of them can be taken.
async fn all_relays_free(cluster: &Cluster) {
    let all = u32::try_from(crate::api::limits::RELAYS_MAX).unwrap();
    drop(cluster.state.relays.acquire_many(all).await.unwrap());
}

#[tokio::test]
async fn an_import_that_breaks_off_is_cancelled_on_the_node_not_ended() {
    let cluster = Cluster::start().await;
    let mut node = cluster.node("n1").await;
    // The client goes away in the middle: the server sees the same end as of a whole stream.
    let (_send, call) = begin_import(&cluster, &mut node).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(node.ended.recv().await, Some("import"), "its call was cancelled");
    all_relays_free(&cluster).await;
    // It ends its stream early.
    let (send, call) = begin_import(&cluster, &mut node).await;
    drop(send);
    assert!(call.await.unwrap().is_err());
    assert_eq!(node.ended.recv().await, Some("import"), "the node refused it");
    all_relays_free(&cluster).await;
    assert!(node.seen.lock().unwrap().is_empty(), "taken for a whole archive");
}

async fn pull(cluster: &Cluster, image: &str, all_nodes: bool) -> (Vec<PullProgress>, Option<Status>) {
    let request = PullRequest { image: image.into(), all_nodes };
    let mut stream = cluster.cluster().await.pull_image(request).await.unwrap().into_inner();
    let mut steps = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(step)) => steps.push(step),
            Ok(None) => return (steps, None),
            Err(status) => return (steps, Some(status)),
        }
    }
}

#[tokio::test]
async fn a_pull_resolves_once_and_goes_by_digest_elsewhere() {
    let cluster = Cluster::start().await;
    let nodes = [cluster.node("n1").await, cluster.node("n2").await, cluster.node("n3").await];
    let (steps, error) = pull(&cluster, "a/b:1", true).await;
    assert!(error.is_none(), "{error:?}");
    let mut done: Vec<_> = steps.iter().filter(|s| s.step == "Done").map(|s| s.node.clone()).collect();
    done.sort();
    assert_eq!(done, ["n1", "n2", "n3"]);
    let seen: Vec<_> = nodes.iter().map(|n| n.seen.lock().unwrap().join(",")).collect();
    let pinned = format!("pull docker.io/a/b@{DIGEST}");
    assert_eq!(seen, ["pull docker.io/a/b:1", &pinned, &pinned]);
    let object = cluster.get(Kind::Image, "", "docker.io/a/b:1").unwrap();
    let Some(object::Kind::Image(image)) = &object.kind else { panic!() };
    assert_eq!(image.status.as_ref().unwrap().nodes.len(), 3);
}

#[tokio::test]
async fn a_pull_that_fails_says_where_and_why() {
    let cluster = Cluster::start().await;
    let _nodes = [cluster.node("n1").await, cluster.node("n2").await];
    let (_, error) = pull(&cluster, "a/missing:1", false).await;
    let error = error.unwrap();
    assert_eq!(reason(&error), "PullFailed");
    assert!(error.message().contains("n1") && error.message().contains("no such manifest"), "{}", error.message());
    assert!(cluster.get(Kind::Image, "", "docker.io/a/missing:1").is_none());
    let (_, error) = pull(&cluster, "a/partial:1", true).await;
    let error = error.unwrap();
    assert_eq!(reason(&error), "PullIncomplete");
    assert!(error.message().contains("n2"), "{}", error.message());
    assert!(cluster.get(Kind::Image, "", "docker.io/a/partial:1").is_some());
}
