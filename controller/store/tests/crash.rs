//! kill -9 at any moment: what was acknowledged is there, and no group is there by half.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};
use strata_proto::types::Kind;
use strata_store::{Change, Condition, Key, Store, backend::Sled, conformance};

const DIR: &str = "STRATA_STORE_CRASH_DIR";
const ROUNDS: usize = 25;
/// Objects of one commit; some commits are larger than a batch of the backend.
const SIZES: [usize; 5] = [1, 3, 20, 150, 700];
const SETS: usize = 8;

/// The child: commits without end and prints what was acknowledged. Does nothing when run as a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = Store::open(Box::new(Sled::open(dir).unwrap())).unwrap();
    println!("\nready");
    let writers = (0..SETS).map(|set| tokio::spawn(write(store.clone(), set)));
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// Commits sets of objects that all carry the same token, or removes all of them.
async fn write(store: Store, set: usize) {
    for token in 0u64.. {
        let size = SIZES[set % SIZES.len()];
        let namespace = format!("set-{set}");
        let gone = token % 7 == 6;
        let changes = (0..size).map(|i| {
            let mut pod = conformance::pod(&namespace, &format!("p{i}"), "n");
            pod.meta.as_mut().unwrap().annotations.insert("token".into(), "x".repeat(set * 40) + &token.to_string());
            if gone { Change::delete(Key::of(&pod), Condition::None) } else { Change::put(pod, Condition::None) }
        });
        let done = store.commit(changes.collect()).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "ack {set} {} {gone}", done.revision).unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn kill_9_loses_nothing_acknowledged_and_leaves_no_half_group() {
    let dir = tempfile::tempdir().unwrap();
    let mut highest = 0;
    let mut total = 0;
    for round in 0..ROUNDS {
        let (acks, count) = run_and_kill(dir.path(), 5 + round * 23 % 190);
        total += count;
        let store = Store::open(Box::new(Sled::open(dir.path()).unwrap())).unwrap();
        let snapshot = store.snapshot();
        for set in 0..SETS {
            let namespace = format!("set-{set}");
            let pods: Vec<_> = snapshot.list(Kind::Pod, Some(&namespace)).collect();
            let revisions: Vec<u64> = pods.iter().map(|p| p.meta.as_ref().unwrap().revision).collect();
            let (first, last) = (revisions.iter().min().copied(), revisions.iter().max().copied());
            let mut tokens: Vec<_> = pods.iter().map(|p| &p.meta.as_ref().unwrap().annotations["token"]).collect();
            tokens.dedup();
            assert!(tokens.len() <= 1, "round {round}: set {set} is there by half: {tokens:?}");
            assert!(
                pods.is_empty() || pods.len() == SIZES[set % SIZES.len()],
                "round {round}: set {set} has {}",
                pods.len()
            );
            if let (Some(first), Some(last)) = (first, last) {
                assert_eq!(last - first + 1, pods.len() as u64, "round {round}: set {set} is of one commit");
            }
            if let Some((acked, gone)) = acks.get(&set) {
                // A later commit may have got onto the disk without an answer; if nothing did, this is what must be there.
                match last {
                    Some(last) => assert!(last >= *acked, "round {round}: set {set} went back from {acked} to {last}"),
                    // Removed by what was acknowledged, or by one that was not.
                    None => assert!(*gone || removed_after(&acks, set), "round {round}: set {set} is gone"),
                }
                highest = highest.max(*acked);
            }
        }
        assert!(snapshot.revision() >= highest, "revisions went back");
        drop(snapshot);
        store.close().await;
    }
    assert!(total > ROUNDS * 5, "{total} acknowledgements prove little");
    println!("{total} acknowledged commits in {ROUNDS} rounds");
}

/// A set may be gone without an acknowledgement only if the commit after the acknowledged one removes it. Writers count from 0 in each round, so the
/// caller cannot know the token: the number of acknowledgements of the set tells.
fn removed_after(acks: &BTreeMap<usize, (u64, bool)>, set: usize) -> bool {
    acks.contains_key(&(set + 1000))
}

/// Runs the child until it has acknowledged this many commits, kills it, and returns the last acknowledgement of each set. Key `set + 1000` is there
/// if the commit after the last acknowledged one of the set removes it.
fn run_and_kill(dir: &Path, acks: usize) -> (BTreeMap<usize, (u64, bool)>, usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut last = BTreeMap::new();
    let mut counts = [0usize; SETS];
    let mut seen = 0;
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let ["ack", set, revision, gone] = words[..] else { continue };
        // A line that was cut off by the kill was not read to its end by anybody.
        let (Ok(set), Ok(revision), Ok(gone)) = (set.parse::<usize>(), revision.parse(), gone.parse()) else {
            continue;
        };
        last.insert(set, (revision, gone));
        counts[set] += 1;
        seen += 1;
        if seen >= acks && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself");
    for (set, count) in counts.iter().enumerate() {
        if count % 7 == 6 {
            last.insert(set + 1000, (0, true));
        }
    }
    (last, seen)
}
