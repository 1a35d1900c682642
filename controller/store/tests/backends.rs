//! Both backends pass the suite; what only sled can get wrong is here too.
#![allow(clippy::unwrap_used, clippy::panic)]

use strata_proto::types::Kind;
use strata_store::{
    Change, Condition, Key, Store, StoreError,
    backend::{Backend, BackendError, Memory, Sled},
    conformance,
};

#[tokio::test]
async fn memory_passes_the_suite() {
    let memory = Memory::new();
    conformance::run(&|| Box::new(memory.clone())).await;
    conformance::a_slow_watcher_is_ended(&|| Box::new(memory.clone())).await;
}

#[tokio::test]
async fn sled_passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(&|| Box::new(Sled::open(dir.path()).unwrap())).await;
    assert!(Sled::open(dir.path()).unwrap().alarm().is_none());
}

#[tokio::test]
async fn a_full_disk_is_an_error_that_says_so_and_goes_away() {
    let memory = Memory::new();
    let store = Store::open(Box::new(memory.clone())).unwrap();
    store.commit(vec![Change::put(conformance::workload("a", 1), Condition::None)]).await.unwrap();
    memory.set_full(true);
    let refused = store.commit(vec![Change::put(conformance::workload("b", 1), Condition::None)]).await.unwrap_err();
    assert!(matches!(refused, StoreError::DiskFull(_)) && refused.to_string().contains("nearly full"), "{refused}");
    assert_eq!(store.snapshot().list(Kind::Workload, None).count(), 1);
    memory.set_full(false);
    store.commit(vec![Change::put(conformance::workload("b", 1), Condition::None)]).await.unwrap();
    assert_eq!(store.status().failed, "");
}

#[tokio::test]
async fn after_a_disk_error_the_store_writes_no_more_and_still_reads() {
    let memory = Memory::new();
    let store = Store::open(Box::new(memory.clone())).unwrap();
    store.commit(vec![Change::put(conformance::workload("a", 1), Condition::None)]).await.unwrap();
    memory.break_disk();
    let change = || vec![Change::put(conformance::workload("a", 2), Condition::None)];
    assert!(matches!(store.commit(change()).await, Err(StoreError::Disk(_))));
    assert!(matches!(store.commit(change()).await, Err(StoreError::Failed(_))));
    assert!(matches!(store.failed().await, StoreError::Failed(_)));
    assert!(store.snapshot().get(&Key::new(Kind::Workload, "default", "a")).is_some());
}

#[tokio::test]
async fn damage_and_newer_levels_are_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Box::new(Sled::open(dir.path()).unwrap())).unwrap();
    store.commit(vec![Change::put(conformance::workload("a", 50_000), Condition::None)]).await.unwrap();
    assert!(matches!(Sled::open(dir.path()).err(), Some(BackendError::InUse { .. })));
    store.close().await;

    let raw = |change: &dyn Fn(&sled::Db)| {
        let db = sled::open(dir.path()).unwrap();
        change(&db);
        db.flush().unwrap();
    };
    let refusal = || Sled::open(dir.path()).and_then(|s| s.load()).err().map(|e| e.to_string()).unwrap();

    // A piece of a checkpointed chunk is gone.
    let kept = std::cell::RefCell::new(None);
    raw(&|db| {
        let chunks = db.open_tree("chunks").unwrap();
        let (key, value) = chunks.iter().nth(1).unwrap().unwrap();
        chunks.remove(&key).unwrap();
        kept.replace(Some((key, value)));
    });
    let text = refusal();
    assert!(text.contains("damaged") && text.contains("restore that directory from a backup"), "{text}");
    raw(&|db| {
        let (key, value) = kept.borrow_mut().take().unwrap();
        db.open_tree("chunks").unwrap().insert(key, value).unwrap();
    });
    assert_eq!(Sled::open(dir.path()).unwrap().load().unwrap().objects.len(), 1);

    // A group is missing in the middle of the log.
    raw(&|db| {
        let log = db.open_tree("log").unwrap();
        log.insert([u64::MAX.to_be_bytes().as_slice(), &0u32.to_be_bytes()].concat(), b"x").unwrap();
    });
    assert!(refusal().contains("the log has no group"), "{}", refusal());

    // A later release wrote it.
    raw(&|db| {
        db.open_tree("meta").unwrap().insert("level", &3u64.to_be_bytes()).unwrap();
    });
    assert!(refusal().contains("has level 3"), "{}", refusal());

    // The database is gone or empty, but the directory says there was one.
    raw(&|db| {
        for tree in ["meta", "log", "chunks"] {
            db.drop_tree(tree).unwrap();
        }
    });
    assert!(refusal().contains("empty although"), "{}", refusal());
    std::fs::remove_file(dir.path().join("db")).unwrap();
    assert!(refusal().contains("is gone"), "{}", refusal());
}
