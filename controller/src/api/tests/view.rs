use super::*;
use strata_proto::cluster::{GetRequest, ListRequest, WatchRequest};
use tonic::Code;

#[tokio::test]
async fn lists_come_in_portions_of_one_revision() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    let changes = (0..1200).map(|i| {
        let phase = if i < 100 { pod_status::Phase::Exited } else { pod_status::Phase::Running };
        let mut object = pod(&format!("p{i}"), "n", &["c"], phase);
        if i < 50 {
            object.meta.as_mut().unwrap().deleted = Some(strata_proto::timestamp_now());
        }
        if i % 2 == 0 {
            object.meta.as_mut().unwrap().labels.insert("even".into(), "yes".into());
        }
        Change::put(object, Condition::None)
    });
    cluster.state.store.commit(changes.collect()).await.unwrap();
    let request = |labels: &[(&str, &str)], ended| ListRequest {
        kind: Kind::Pod.into(),
        labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ended,
        ..ListRequest::default()
    };
    for (labels, ended, expected) in [
        (vec![], true, 1200),
        // Those that exited and were deleted have left; those that just exited have not.
        (vec![], false, 1150),
        (vec![("even", "yes")], true, 600),
        (vec![("even", "no")], true, 0),
    ] {
        let mut portions = client.list(request(&labels, ended)).await.unwrap().into_inner();
        let (mut count, mut revisions, mut messages) = (0, Vec::new(), 0);
        while let Some(portion) = portions.message().await.unwrap() {
            count += portion.objects.len();
            revisions.push(portion.revision);
            messages += 1;
        }
        revisions.dedup();
        assert_eq!((count, revisions.len()), (expected, 1));
        assert!(messages > expected / 501);
    }
    let absent = GetRequest { kind: Kind::Pod.into(), name: "absent".into(), ..GetRequest::default() };
    assert_eq!(client.get(absent).await.unwrap_err().code(), Code::NotFound);
    let no_kind = client.list(ListRequest::default()).await.unwrap_err();
    assert_eq!(no_kind.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_watch_begins_with_a_bookmark_and_sends_what_fits() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    let request = WatchRequest { kind: Kind::Workload.into(), namespace: "default".into(), from_revision: 0 };
    let mut watch = client.watch(request.clone()).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert!(first.bookmark && first.object.is_none());
    cluster.put(pod("p", "n", &["c"], pod_status::Phase::Running)).await;
    apply(&mut client, workload("web", Some(1))).await.unwrap();
    let change = watch.message().await.unwrap().unwrap();
    assert_eq!(change.object.unwrap().meta.unwrap().name, "web");
    // Resumed from the bookmark it is the same again.
    let mut again =
        client.watch(WatchRequest { from_revision: first.revision, ..request.clone() }).await.unwrap().into_inner();
    assert!(again.message().await.unwrap().unwrap().bookmark);
    assert_eq!(again.message().await.unwrap().unwrap().revision, change.revision);
    let refused = client.watch(WatchRequest { from_revision: u64::MAX, ..request }).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::OutOfRange, "Compacted"));
}

#[tokio::test]
async fn ten_thousand_watches_are_bounded_and_free_their_places() {
    let cluster = Cluster::start().await;
    let request = WatchRequest { kind: Kind::Pod.into(), ..WatchRequest::default() };
    let per_connection = server::STREAMS_MAX as usize;
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..10_000usize.div_ceil(per_connection) {
        let client = cluster.objects().await;
        let asked = (0..per_connection).map(|_| {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.watch(request).await }
        });
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(watch) => open.push(watch.into_inner()),
                Err(status) => {
                    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "Overloaded"));
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(open.len(), crate::api::limits::STREAMS_MAX);
    assert!(refused >= 10_000 - open.len());
    drop(open);
    let all = u32::try_from(crate::api::limits::STREAMS_MAX).unwrap();
    drop(cluster.state.streams.acquire_many(all).await.unwrap());
    cluster.objects().await.watch(request).await.unwrap();
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_ended_and_slows_nobody() {
    let cluster = Cluster::start().await;
    let mut slow = cluster.objects().await.watch(WatchRequest::default()).await.unwrap().into_inner();
    let mut large = workload("web", Some(1));
    large.meta.as_mut().unwrap().annotations.insert("filler".into(), "x".repeat(64 << 10));
    // More than the windows, buffers and queues of both sides hold.
    for _ in 0..2 * strata_store::limits::WATCH_SLICES {
        cluster.put(large.clone()).await;
    }
    let end = loop {
        match slow.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!((end.code(), reason(&end).as_str()), (Code::OutOfRange, "Lagged"));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_connection_lives() {
    let cluster = Cluster::start().await;
    let mut client = cluster.objects().await;
    let mut huge = workload("web", Some(1));
    huge.meta.as_mut().unwrap().annotations.insert("x".into(), "y".repeat(32 << 20));
    let status = apply(&mut client, huge).await.unwrap_err();
    assert!(!status.message().is_empty() && status.code() != Code::Ok, "{status:?}");
    apply(&mut client, workload("web", Some(1))).await.unwrap();
}
