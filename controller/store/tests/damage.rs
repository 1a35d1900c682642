//! A damaged store is refused or complete, whatever was damaged: never is an acknowledged change lost, or one that was undone back, without a word.
//!
//! Each seed makes a history of commits, with a copy of the database's file from its middle; then each of many damages is done to a copy of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};
use strata_proto::{
    store,
    types::{Kind, Object},
};
use strata_store::{
    Change, Condition, Key, Snapshot, Store,
    backend::{Appended, Backend, BackendError, Loaded, Sled},
    conformance,
};

/// Seeds of the histories; each that ever failed is kept.
const SEEDS: [u64; 4] = [3, 4, 5, 6];
/// Random damages to each history, beside those at fixed places.
const DAMAGES: usize = 14;

/// Changes the bytes of a file; `false`: it is to be removed.
type Edit = fn(&mut Vec<u8>) -> bool;
/// Objects as they must be: their revisions and what is in them.
type State = BTreeMap<Key, (u64, String)>;

struct Random(u64);

impl Random {
    /// A number below `bound` (xorshift64*).
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

/// A database that no checkpoint shortens the log of, as long as `hold` says so.
struct Held {
    sled: Sled,
    hold: bool,
}

impl Backend for Held {
    fn load(&self) -> Result<Loaded, BackendError> {
        self.sled.load()
    }

    fn append(&self, group: &[store::Change]) -> Result<Appended, BackendError> {
        self.sled.append(group)
    }

    fn reserve(&self, revision: u64) -> Result<(), BackendError> {
        self.sled.reserve(revision)
    }

    fn checkpoint(&self, snapshot: &Snapshot, dirty: &[Key], position: u64) -> Result<(), BackendError> {
        if self.hold { Ok(()) } else { self.sled.checkpoint(snapshot, dirty, position) }
    }
}

fn state(objects: impl Iterator<Item = impl Borrow<Object>>) -> State {
    let entry = |o: &Object| (Key::of(o), (o.meta.as_ref().unwrap().revision, format!("{o:?}")));
    objects.map(|o| entry(o.borrow())).collect()
}

/// What a store does in its life, in several sessions of which some end without a checkpoint. Returns what must be there afterwards.
async fn live(dir: &Path, middle: &Path, random: &mut Random) -> State {
    let sessions = 1 + random.below(3);
    let names = 20 + random.below(400);
    let mut last = State::new();
    for session in 0..sessions {
        let hold = random.below(2) == 0;
        let store = Store::open(Box::new(Held { sled: Sled::open(dir).unwrap(), hold })).unwrap();
        for _ in 0..20 + random.below(250) {
            let mut changes = Vec::new();
            for _ in 0..1 + random.below(4) * random.below(4) {
                let name = format!("o{}", random.below(names));
                let object = match random.below(3) {
                    0 => conformance::workload(&name, 1 + random.below(9_000)),
                    _ => conformance::pod("default", &name, "n"),
                };
                changes.push(match random.below(5) {
                    0 => Change::delete(Key::of(&object), Condition::None),
                    _ => Change::put(object, Condition::None),
                });
            }
            store.commit(changes).await.unwrap();
        }
        last = state(store.snapshot().list(Kind::Unspecified, None));
        store.close().await;
        if session == 0 {
            fs::copy(dir.join("db"), middle).unwrap();
        }
    }
    last
}

/// One way to damage a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Cut {
        at: usize,
    },
    Invert {
        at: usize,
        bytes: usize,
    },
    Zero {
        at: usize,
        bytes: usize,
    },
    Flip {
        at: usize,
        bit: u8,
    },
    /// Writes that never reached the disk: this part is as it was in the middle of the history.
    Lose {
        at: usize,
        bytes: usize,
    },
    Swap {
        at: usize,
        with: usize,
        bytes: usize,
    },
}

impl Damage {
    fn draw(random: &mut Random, length: usize) -> Self {
        let at = random.below(length);
        let bytes = [1, 64, 512, 4096, 16_384, 65_536][random.below(6)];
        let block = at / 4096 * 4096;
        match random.below(8) {
            0 => Self::Cut { at },
            1 => Self::Invert { at, bytes },
            2 | 3 => Self::Zero { at: block, bytes: bytes.max(512) },
            4 => Self::Flip { at, bit: u8::try_from(random.below(8)).unwrap() },
            5 | 6 => Self::Lose { at: block, bytes: bytes.max(4096) },
            _ => Self::Swap { at: block, with: random.below(length) / 4096 * 4096, bytes: 4096 },
        }
    }

    fn apply(self, file: &mut Vec<u8>, middle: &[u8]) {
        let length = file.len();
        let range = |at: usize, bytes: usize| at.min(length)..(at + bytes).min(length);
        match self {
            Self::Cut { at } => file.truncate(at),
            Self::Invert { at, bytes } => file[range(at, bytes)].iter_mut().for_each(|b| *b ^= 0x5a),
            Self::Zero { at, bytes } => file[range(at, bytes)].fill(0),
            Self::Flip { at, bit } => file[at] ^= 1 << bit,
            Self::Lose { at, bytes } => {
                for place in range(at, bytes) {
                    file[place] = middle.get(place).copied().unwrap_or(0);
                }
            }
            Self::Swap { at, with, bytes } => {
                for n in 0..bytes {
                    if at + n < length && with + n < length {
                        file.swap(at + n, with + n);
                    }
                }
            }
        }
    }
}

/// What is in the store in this directory, or why it is refused.
fn load(dir: &Path) -> Result<State, String> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let loaded = Sled::open(dir).and_then(|s| s.load()).map_err(|e| e.to_string())?;
        Ok(state(loaded.objects.into_iter().map(|o| o.object.unwrap())))
    }));
    opened.unwrap_or_else(|_| Err("it panicked".into()))
}

/// [`load`] of a copy whose file `name` was changed; `false`: it is to be removed.
fn reopen(from: &Path, name: &str, damage: &dyn Fn(&mut Vec<u8>) -> bool) -> Result<State, String> {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let file = copy.path().join(name);
    let mut bytes = fs::read(&file).unwrap();
    if damage(&mut bytes) {
        fs::write(&file, bytes).unwrap()
    } else {
        fs::remove_file(&file).unwrap()
    }
    load(copy.path())
}

/// Nothing, or what is wrong with this outcome.
fn judge(outcome: Result<State, String>, expected: &State) -> Option<String> {
    match outcome {
        Ok(state) if state == *expected => None,
        Ok(state) => {
            let wrong = expected.iter().filter(|(key, value)| state.get(key) != Some(value)).count();
            let more = state.keys().filter(|key| !expected.contains_key(key)).count();
            Some(format!("opened with {wrong} of {} objects lost or old, and {more} that were deleted", expected.len()))
        }
        Err(text) if text.contains("damaged") && text.contains("backup") => None,
        Err(text) => Some(text),
    }
}

#[tokio::test]
async fn a_damaged_store_is_refused_or_complete() {
    let mut wrong = Vec::new();
    let mut refused = 0;
    let first: u64 = std::env::var("STRATA_STORE_DAMAGE_SEED").map_or(0, |s| s.parse().unwrap());
    for seed in SEEDS.map(|s| s + first) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let dir = tempfile::tempdir().unwrap();
        let middle = tempfile::NamedTempFile::new().unwrap();
        let expected = live(dir.path(), middle.path(), &mut random).await;
        assert_eq!(judge(reopen(dir.path(), "db", &|_| true), &expected), None, "seed {seed}: undamaged");
        let middle = fs::read(middle.path()).unwrap();
        let length = usize::try_from(fs::metadata(dir.path().join("db")).unwrap().len()).unwrap();
        // The end of the log is where damage looks most like a crash.
        let fixed = [50, 90, 95, 98].map(|percent| Damage::Invert { at: length * percent / 100, bytes: 4096 });
        let old = Damage::Lose { at: 0, bytes: usize::MAX / 2 };
        let drawn: Vec<_> = (0..DAMAGES).map(|_| Damage::draw(&mut random, length)).collect();
        for damage in fixed.into_iter().chain([old]).chain(drawn) {
            let outcome = reopen(dir.path(), "db", &|bytes| {
                damage.apply(bytes, &middle);
                true
            });
            refused += usize::from(outcome.is_err());
            if let Some(what) = judge(outcome, &expected) {
                wrong.push(format!("seed {seed}, {length} bytes, {damage:?}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(refused > SEEDS.len() * 3, "only {refused} damages were noticed: the test proves little");
}

/// A store with ten workloads of some size and seventy pods, closed after a checkpoint if `checkpoint`.
async fn small(dir: &Path, checkpoint: bool) -> State {
    let store = Store::open(Box::new(Held { sled: Sled::open(dir).unwrap(), hold: !checkpoint })).unwrap();
    for n in 0..10 {
        let workload = conformance::workload(&format!("w{n}"), 50_000);
        let pods = (0..7).map(|p| conformance::pod("default", &format!("p{n}-{p}"), "n"));
        let changes = pods.chain([workload]).map(|o| Change::put(o, Condition::None)).collect();
        store.commit(changes).await.unwrap();
    }
    let last = state(store.snapshot().list(Kind::Unspecified, None));
    store.close().await;
    last
}

/// Changes the database behind the store's back.
fn raw(dir: &Path, change: impl FnOnce(&sled::Db)) {
    let db = sled::open(dir).unwrap();
    change(&db);
    db.flush().unwrap();
}

#[tokio::test]
async fn the_files_beside_the_database_can_be_damaged_too() {
    for checkpoint in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let expected = small(dir.path(), checkpoint).await;
        let files = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_file());
        for name in files.map(|e| e.file_name().into_string().unwrap()) {
            let damages: [(&str, Edit); 4] = [
                ("removed", |_| false),
                ("emptied", |bytes| {
                    bytes.clear();
                    true
                }),
                ("zeroed", |bytes| {
                    bytes.fill(0);
                    true
                }),
                ("flipped", |bytes| {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0x10;
                    true
                }),
            ];
            for (what, damage) in damages {
                assert_eq!(judge(reopen(dir.path(), &name, &damage), &expected), None, "{name} {what}");
            }
        }
        let refusal = reopen(dir.path(), "acknowledged", &|_| false).unwrap_err();
        assert!(refusal.contains("acknowledged position is gone"), "{refusal}");
    }
}

#[tokio::test]
async fn chunks_that_are_lost_or_back_from_the_dead_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let expected = small(dir.path(), true).await;
    // One workload's chunk goes as a whole: nothing that is left looks incomplete.
    let (mut id, mut taken) = (Vec::new(), Vec::new());
    raw(dir.path(), |db| {
        let chunks = db.open_tree("chunks").unwrap();
        let first = chunks.first().unwrap().unwrap().0;
        id = first[..first.len() - 12].to_vec();
        taken = chunks.scan_prefix(&id).map(Result::unwrap).collect();
        for (key, _) in &taken {
            chunks.remove(key).unwrap();
        }
    });
    let refusal = load(dir.path()).unwrap_err();
    assert!(refusal.contains("damaged") && refusal.contains("are there"), "{refusal}");
    let put_back = |id: &[u8]| {
        raw(dir.path(), |db| {
            for (key, value) in &taken {
                let key = [id, &key[key.len() - 12..]].concat();
                db.open_tree("chunks").unwrap().insert(key, value).unwrap();
            }
        });
    };
    put_back(&id);
    assert_eq!(load(dir.path()).unwrap(), expected);
    // One that was deleted is there again.
    *id.last_mut().unwrap() += 100;
    put_back(&id);
    let refusal = load(dir.path()).unwrap_err();
    assert!(refusal.contains("damaged") && refusal.contains("are there"), "{refusal}");
}

#[tokio::test]
async fn a_log_or_a_reservation_that_went_back_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let expected = small(dir.path(), false).await;
    let mut last = Vec::new();
    raw(dir.path(), |db| {
        let log = db.open_tree("log").unwrap();
        last = log.scan_prefix(10u64.to_be_bytes()).map(Result::unwrap).collect();
        assert!(last.len() > 10);
        for (key, _) in &last {
            log.remove(key).unwrap();
        }
    });
    let refusal = load(dir.path()).unwrap_err();
    assert!(refusal.contains("damaged") && refusal.contains("group 10 was acknowledged"), "{refusal}");
    // A seal that is missing looks like a crash, but was acknowledged.
    raw(dir.path(), |db| {
        for (key, value) in &last[..last.len() - 1] {
            db.open_tree("log").unwrap().insert(key, value).unwrap();
        }
    });
    for _ in 0..2 {
        let refusal = load(dir.path()).unwrap_err();
        assert!(refusal.contains("group 10 was acknowledged"), "the refusal changes nothing: {refusal}");
    }
    raw(dir.path(), |db| {
        let (key, value) = last.last().unwrap();
        db.open_tree("log").unwrap().insert(key, value).unwrap();
    });
    assert_eq!(load(dir.path()).unwrap(), expected);
    raw(dir.path(), |db| {
        db.open_tree("meta").unwrap().insert("reserved", &7u64.to_be_bytes()).unwrap();
    });
    let refusal = load(dir.path()).unwrap_err();
    assert!(refusal.contains("damaged") && refusal.contains("reserved up to 7"), "{refusal}");
}

#[tokio::test]
async fn a_crash_before_the_acknowledgement_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path(), false).await;
    let file = dir.path().join("acknowledged");
    let older = fs::read(&file).unwrap();
    let expected = small(dir.path(), false).await;
    assert_ne!(fs::read(&file).unwrap(), older);
    // The group is on disk, the file still says what was before.
    fs::write(&file, older).unwrap();
    assert_eq!(load(dir.path()).unwrap(), expected);
    // And it goes on from there.
    let expected = small(dir.path(), true).await;
    assert_eq!(load(dir.path()).unwrap(), expected);
}

#[tokio::test]
async fn a_store_of_the_first_level_opens_and_is_guarded_from_then_on() {
    for checkpoint in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let expected = small(dir.path(), checkpoint).await;
        let acknowledged = dir.path().join("acknowledged");
        let as_of_level_1 = || {
            raw(dir.path(), |db| {
                let meta = db.open_tree("meta").unwrap();
                meta.remove("digest").unwrap();
                meta.insert("level", &1u64.to_be_bytes()).unwrap();
            });
        };
        as_of_level_1();
        fs::remove_file(&acknowledged).unwrap();
        assert_eq!(load(dir.path()).unwrap(), expected);
        assert_eq!(load(dir.path()).unwrap(), expected);
        // The upgrade was cut off after the file was made.
        as_of_level_1();
        assert_eq!(load(dir.path()).unwrap(), expected);
        fs::remove_file(&acknowledged).unwrap();
        assert!(load(dir.path()).unwrap_err().contains("acknowledged position is gone"));
    }
}

#[tokio::test]
async fn a_first_start_that_was_cut_off_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(Sled::open(dir.path()).unwrap());
    // Neither the level in the database nor the file that promises one was written yet.
    raw(dir.path(), |db| db.open_tree("meta").unwrap().clear().unwrap());
    fs::remove_file(dir.path().join("store-level")).unwrap();
    let expected = small(dir.path(), true).await;
    assert_eq!(load(dir.path()).unwrap(), expected);
    // With something acknowledged it is no first start.
    raw(dir.path(), |db| db.open_tree("meta").unwrap().clear().unwrap());
    fs::remove_file(dir.path().join("store-level")).unwrap();
    assert!(load(dir.path()).unwrap_err().contains("empty although"));
}

#[tokio::test]
async fn what_is_left_of_an_older_version_of_a_chunk_does_no_harm_later() {
    let dir = tempfile::tempdir().unwrap();
    let workload = conformance::workload("large", 900_000);
    let key = Key::of(&workload);
    let put = async || {
        let store = Store::open(Box::new(Sled::open(dir.path()).unwrap())).unwrap();
        store.commit(vec![Change::put(workload.clone(), Condition::None)]).await.unwrap();
        store.close().await;
    };
    put().await;
    let mut old = Vec::new();
    raw(dir.path(), |db| old = db.open_tree("chunks").unwrap().iter().map(Result::unwrap).collect());
    put().await;
    // The removal of the older version was cut off after its first hundred pieces.
    raw(dir.path(), |db| {
        for (key, value) in &old[100..] {
            db.open_tree("chunks").unwrap().insert(key, value).unwrap();
        }
    });
    let store = Store::open(Box::new(Sled::open(dir.path()).unwrap())).unwrap();
    store.commit(vec![Change::delete(key, Condition::None)]).await.unwrap();
    store.close().await;
    assert_eq!(load(dir.path()).unwrap(), State::new());
}
