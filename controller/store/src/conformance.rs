//! The suite that every backend passes: call [`run`] with a function that opens the backend on the same data again.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use crate::{Change, Condition, Key, Store, StoreError, WatchEnd, backend::Backend, limits};
use std::{future::Future, pin::pin};
use strata_proto::types::{Kind, Meta, Object, Pod, PodSpec, Workload, WorkloadStatus, object};
use tokio_stream::StreamExt as _;

/// Opens the backend; called again after the store on it was closed.
pub type Open<'a> = &'a dyn Fn() -> Box<dyn Backend>;

/// A pod of workload `w` on this node.
pub fn pod(namespace: &str, name: &str, node: &str) -> Object {
    Object {
        meta: Some(Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() }),
        kind: Some(object::Kind::Pod(Pod {
            spec: Some(PodSpec { node: node.into(), workload: "w".into(), ..PodSpec::default() }),
            status: None,
        })),
    }
}

/// A workload whose status message is this long.
pub fn workload(name: &str, bytes: usize) -> Object {
    let status = WorkloadStatus { message: "x".repeat(bytes), ..WorkloadStatus::default() };
    Object {
        meta: Some(Meta { namespace: "default".into(), name: name.into(), ..Meta::default() }),
        kind: Some(object::Kind::Workload(Workload { spec: None, status: Some(status) })),
    }
}

/// Every promise of the store that a backend can break.
pub async fn run(open: Open<'_>) {
    commits_are_all_or_nothing(open).await;
    what_is_acknowledged_is_there_after_a_restart(open).await;
    unlogged_status_is_seen_but_not_kept(open).await;
    revisions_never_go_back(open).await;
    every_size_survives(open).await;
    pods_keep_their_indexes(open).await;
    watchers_see_every_change_in_order(open).await;
}

fn revision(object: &Object) -> u64 {
    object.meta.as_ref().unwrap().revision
}

async fn commits_are_all_or_nothing(open: Open<'_>) {
    let store = Store::open(open()).unwrap();
    let first = store.commit(vec![Change::put(workload("all-a", 1), Condition::Absent)]).await.unwrap();
    let a = Key::new(Kind::Workload, "default", "all-a");
    let refused = store
        .commit(vec![
            Change::put(workload("all-b", 1), Condition::Absent),
            Change::put(workload("all-a", 2), Condition::Revision(first.revision + 1)),
        ])
        .await;
    let Err(StoreError::Conflict { key, found }) = refused else { panic!("{refused:?}") };
    assert_eq!((key, found), (a.clone(), Some(first.revision)));
    assert!(store.snapshot().get(&Key::new(Kind::Workload, "default", "all-b")).is_none());
    let again =
        store.commit(vec![Change::put(workload("all-a", 2), Condition::Revision(first.revision))]).await.unwrap();
    assert!(again.revision > first.revision);
    assert_eq!(revision(&again.objects[0]), again.revision);
    let gone = store.commit(vec![Change::delete(a.clone(), Condition::None)]).await.unwrap();
    assert_eq!(gone.objects.len(), 1);
    let nothing = store.commit(vec![Change::delete(a, Condition::None)]).await.unwrap();
    assert!(nothing.objects.is_empty());
    let large = store.commit(vec![Change::put(workload("large", 2 << 20), Condition::None)]).await;
    assert!(matches!(large, Err(StoreError::TooLarge { .. })));
    store.close().await;
}

async fn what_is_acknowledged_is_there_after_a_restart(open: Open<'_>) {
    // Closed at different moments: right after the commit, and after checkpoints.
    let mut expected = std::collections::BTreeMap::new();
    for round in 0..4 {
        let store = Store::open(open()).unwrap();
        let now: std::collections::BTreeMap<_, _> = store
            .snapshot()
            .list(Kind::Pod, Some("restart"))
            .map(|o| (o.meta.as_ref().unwrap().name.clone(), revision(&o)))
            .collect();
        assert_eq!(now, expected, "round {round}");
        for i in 0..150 {
            let name = format!("p{}", (i * 7 + round * 13) % 200);
            if i % 5 == 4 {
                store
                    .commit(vec![Change::delete(Key::new(Kind::Pod, "restart", &name), Condition::None)])
                    .await
                    .unwrap();
                expected.remove(&name);
            } else {
                let done = store.commit(vec![Change::put(pod("restart", &name, "n"), Condition::None)]).await.unwrap();
                expected.insert(name, done.revision);
            }
        }
        store.close().await;
    }
}

async fn unlogged_status_is_seen_but_not_kept(open: Open<'_>) {
    let store = Store::open(open()).unwrap();
    let key = Key::new(Kind::Workload, "default", "ephemeral");
    let mut watch = store.watch(0).unwrap();
    let change = Change { durable: false, ..Change::put(workload("ephemeral", 3), Condition::Absent) };
    let done = store.commit(vec![change]).await.unwrap();
    assert_eq!(revision(&store.snapshot().get(&key).unwrap()), done.revision);
    assert_eq!(watch.next().await.unwrap().unwrap().key, key);
    store.close().await;
    let store = Store::open(open()).unwrap();
    assert!(store.snapshot().get(&key).is_none());
    assert!(store.snapshot().revision() >= done.revision);
    store.close().await;
}

async fn revisions_never_go_back(open: Open<'_>) {
    let mut last = 0;
    for _ in 0..3 {
        let store = Store::open(open()).unwrap();
        for durable in [true, false, false] {
            let change = Change { durable, ..Change::put(workload("growing", 1), Condition::None) };
            let done = store.commit(vec![change]).await.unwrap();
            assert!(done.revision > last, "{} after {last}", done.revision);
            last = done.revision;
        }
        store.close().await;
    }
}

async fn every_size_survives(open: Open<'_>) {
    let sizes = [0, 1, 3_300, 3_399, 3_400, 3_401, 10_000, 700_000];
    let store = Store::open(open()).unwrap();
    let changes = sizes.iter().map(|s| Change::put(workload(&format!("size-{s}"), *s), Condition::None)).collect();
    store.commit(changes).await.unwrap();
    store.close().await;
    // Once from what the first close left, once from what a second checkpoint of it left.
    for shrink in [false, true] {
        let store = Store::open(open()).unwrap();
        for size in sizes {
            let key = Key::new(Kind::Workload, "default", format!("size-{size}"));
            let object = store.snapshot().get(&key).unwrap();
            let Some(object::Kind::Workload(w)) = &object.kind else { panic!("{object:?}") };
            assert_eq!(w.status.as_ref().unwrap().message.len(), size);
            let change = Change::put((*object).clone(), Condition::Revision(revision(&object)));
            store.commit(vec![change]).await.unwrap();
            if shrink {
                store.commit(vec![Change::delete(key, Condition::None)]).await.unwrap();
            }
        }
        store.close().await;
    }
    let store = Store::open(open()).unwrap();
    assert!(!store.snapshot().list(Kind::Workload, None).any(|o| o.meta.as_ref().unwrap().name.starts_with("size-")));
    store.close().await;
}

async fn pods_keep_their_indexes(open: Open<'_>) {
    let store = Store::open(open()).unwrap();
    let changes = (0..130)
        .map(|i| Change::put(pod("index", &format!("p{i}"), if i % 2 == 0 { "even" } else { "odd" }), Condition::None));
    store.commit(changes.collect()).await.unwrap();
    store.commit(vec![Change::put(pod("index", "p0", "odd"), Condition::None)]).await.unwrap();
    store.close().await;
    let store = Store::open(open()).unwrap();
    let before = store.snapshot();
    assert_eq!((before.pods_of_node("even").count(), before.pods_of_node("odd").count()), (64, 66));
    assert_eq!(before.pods_of_workload("index", "w").count(), 130);
    store
        .commit(
            (0..130).map(|i| Change::delete(Key::new(Kind::Pod, "index", format!("p{i}")), Condition::None)).collect(),
        )
        .await
        .unwrap();
    assert_eq!(before.pods_of_node("even").count(), 64, "a snapshot never changes");
    assert_eq!(
        store.snapshot().pods_of_node("even").count() + store.snapshot().pods_of_workload("index", "w").count(),
        0
    );
    store.close().await;
}

async fn watchers_see_every_change_in_order(open: Open<'_>) {
    let store = Store::open(open()).unwrap();
    let start = store.snapshot().revision();
    let mut live = store.watch(0).unwrap();
    let commits = (0..300u32).map(|i| {
        let store = &store;
        async move {
            store
                .commit(vec![Change::put(pod("watch", &format!("p{}", i % 10), "n"), Condition::None)])
                .await
                .unwrap()
                .revision
        }
    });
    let revisions: Vec<u64> = join_all(commits).await;
    let last = *revisions.iter().max().unwrap();
    let mut later = store.watch(start).unwrap();
    let mut middle = store.watch(start + 100).unwrap();
    for expected in start + 1..=last {
        assert_eq!(live.next().await.unwrap().unwrap().revision, expected);
        assert_eq!(later.next().await.unwrap().unwrap().revision, expected);
        if expected > start + 100 {
            assert_eq!(middle.next().await.unwrap().unwrap().revision, expected);
        }
    }
    assert!(store.watch(last + 1).is_err(), "a revision of the future is not of this store");
    store.close().await;
    assert!(live.next().await.is_none(), "watches end with the store");
    // A store that was opened again has no history.
    let store = Store::open(open()).unwrap();
    assert!(store.watch(start).is_err());
    store.close().await;
}

/// A slow watcher is ended and slows nobody. Not of the backend's making, so run once.
pub async fn a_slow_watcher_is_ended(open: Open<'_>) {
    let store = Store::open(open()).unwrap();
    let mut slow = store.watch(0).unwrap();
    let start = store.snapshot().revision();
    let per_commit = limits::COMMIT_CHANGES_MAX;
    let commits = (limits::WATCH_SLICES + 1) * limits::WATCH_SLICE_EVENTS / per_commit + 2;
    for _ in 0..commits {
        let change = Change { durable: false, ..Change::put(pod("slow", "p", "n"), Condition::None) };
        store.commit(vec![change; per_commit]).await.unwrap();
    }
    assert_eq!(slow.next().await.unwrap().unwrap_err(), WatchEnd::Lagged);
    assert!(slow.next().await.is_none());
    let compacted = store.watch(start + 1).err().unwrap();
    assert!(compacted.oldest > start + 1);
    assert!(store.watch(compacted.oldest).is_ok());
    store.close().await;
}

async fn join_all<F: Future<Output = u64>>(futures: impl Iterator<Item = F>) -> Vec<u64> {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    let mut done = vec![None; pending.len()];
    let all = std::future::poll_fn(|cx| {
        for (future, slot) in pending.iter_mut().zip(done.iter_mut()) {
            if slot.is_none()
                && let std::task::Poll::Ready(r) = future.as_mut().poll(cx)
            {
                *slot = Some(r);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    pin!(all).await;
    done.into_iter().flatten().collect()
}
