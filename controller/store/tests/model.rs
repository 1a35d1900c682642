//! Any sequence of commits and restarts leaves what a simple model says.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use std::collections::BTreeMap;
use strata_proto::types::{Kind, Object, object};
use strata_store::{
    Change, Condition, Key, Store, StoreError,
    backend::{Backend, Memory, Sled},
    conformance,
};

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<One>),
    Restart,
}

#[derive(Debug, Clone)]
struct One {
    kind: bool,
    name: u8,
    what: What,
    condition: Wanted,
}

#[derive(Debug, Clone)]
enum What {
    Put { bytes: usize, durable: bool },
    Delete,
    Check,
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Nothing,
    Absent,
    Present,
    Stale,
}

fn one() -> impl Strategy<Value = One> {
    let bytes = prop_oneof![4 => 0usize..200, 1 => 3_000usize..9_000, 1 => Just(100_000)];
    let what = prop_oneof![
        5 => (bytes, prop::bool::weighted(0.7)).prop_map(|(bytes, durable)| What::Put { bytes, durable }),
        3 => Just(What::Delete),
        1 => Just(What::Check),
    ];
    let condition = prop_oneof![6 => Just(Wanted::Nothing), 1 => Just(Wanted::Absent), 2 => Just(Wanted::Present), 1 => Just(Wanted::Stale)];
    (any::<bool>(), 0u8..70, what, condition).prop_map(|(kind, name, what, condition)| One {
        kind,
        name,
        what,
        condition,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let commit = prop::collection::vec(one(), 1..12).prop_map(Step::Commit);
    prop::collection::vec(prop_oneof![6 => commit, 1 => Just(Step::Restart)], 1..60)
}

/// The possible states of an object after a restart: revision, `None` if absent.
type Kept = BTreeMap<Key, Vec<Option<u64>>>;

fn object(one: &One, bytes: usize) -> Object {
    let name = format!("o{}", one.name);
    let mut object = if one.kind { conformance::pod("default", &name, "n") } else { conformance::workload(&name, 0) };
    object.meta.as_mut().unwrap().annotations.insert("fill".into(), "x".repeat(bytes));
    object
}

fn revision(object: &Object) -> u64 {
    object.meta.as_ref().unwrap().revision
}

/// What is there: revision and size.
fn contents(store: &Store) -> BTreeMap<Key, (u64, usize)> {
    let snapshot = store.snapshot();
    let all = [Kind::Pod, Kind::Workload].map(|kind| snapshot.list(kind, None).collect::<Vec<_>>()).concat();
    let size = |o: &Object| o.meta.as_ref().unwrap().annotations["fill"].len();
    let pods = snapshot.pods_of_node("n").count();
    assert_eq!(pods, all.iter().filter(|o| matches!(o.kind, Some(object::Kind::Pod(_)))).count());
    all.iter().map(|o| (Key::of(o), (revision(o), size(o)))).collect()
}

async fn run(open: &dyn Fn() -> Box<dyn Backend>, steps: Vec<Step>) {
    let mut store = Store::open(open()).unwrap();
    let mut model: BTreeMap<Key, (u64, usize)> = BTreeMap::new();
    let mut kept = Kept::new();
    let mut highest = 0;
    for step in steps {
        match step {
            Step::Restart => {
                store.close().await;
                store = Store::open(open()).unwrap();
                let found = contents(&store);
                for (key, choices) in &kept {
                    let at = found.get(key).map(|(r, _)| *r);
                    assert!(choices.contains(&at), "{key}: {at:?} is none of {choices:?}");
                }
                assert!(found.keys().all(|k| kept.contains_key(k)));
                assert!(store.snapshot().revision() >= highest);
                kept = found.iter().map(|(k, (r, _))| (k.clone(), vec![Some(*r)])).collect();
                model = found;
            }
            Step::Commit(ones) => {
                let mut trial = model.clone();
                let mut trial_kept = kept.clone();
                let mut next = store.snapshot().revision();
                let mut refused = false;
                let mut changes = Vec::new();
                for one in &ones {
                    let key = Key::of(&object(one, 0));
                    let present = trial.get(&key).map(|(r, _)| *r);
                    let condition = match one.condition {
                        Wanted::Nothing => Condition::None,
                        Wanted::Absent => Condition::Absent,
                        Wanted::Present => Condition::Revision(present.unwrap_or(1)),
                        Wanted::Stale => Condition::Revision(present.unwrap_or(1) + 1),
                    };
                    refused |= match condition {
                        Condition::None => false,
                        Condition::Absent => present.is_some(),
                        Condition::Revision(r) => present != Some(r),
                    };
                    let choices = trial_kept.entry(key.clone()).or_insert_with(|| vec![None]);
                    changes.push(match one.what {
                        What::Check => Change::check(key, condition),
                        What::Put { bytes, durable } => {
                            next += 1;
                            if durable {
                                choices.clear();
                            }
                            choices.push(Some(next));
                            trial.insert(key, (next, bytes));
                            Change { durable, ..Change::put(object(one, bytes), condition) }
                        }
                        What::Delete => {
                            if trial.remove(&key).is_some() {
                                next += 1;
                                *choices = vec![None];
                            }
                            Change::delete(key, condition)
                        }
                    });
                }
                match store.commit(changes).await {
                    Ok(commit) => {
                        assert!(!refused, "a condition did not hold");
                        assert_eq!(commit.revision, next);
                        (model, kept, highest) = (trial, trial_kept, next);
                    }
                    Err(StoreError::Conflict { .. }) => assert!(refused, "every condition held"),
                    Err(error) => panic!("{error}"),
                }
                assert_eq!(contents(&store), model);
            }
        }
    }
    store.close().await;
}

fn on_runtime(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sled_does_as_the_model(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        on_runtime(run(&|| Box::new(Sled::open(dir.path()).unwrap()), steps));
    }

    #[test]
    fn memory_does_as_the_model(steps in steps()) {
        let memory = Memory::new();
        on_runtime(run(&|| Box::new(memory.clone()), steps));
    }
}
