//! The database's file can no longer grow in the midst of a write: committers are told, nothing acknowledged is lost, the process ends cleanly.
//! (A disk that fills up is noticed before: see tests/host.)
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;
use strata_proto::types::Kind;
use strata_store::{Change, Condition, Key, Store, StoreError, backend::Sled, conformance};

const DIR: &str = "STRATA_STORE_BROKEN_DIR";
/// The size of the database's file at which writes fail.
const FILE_KIB: u32 = 6 << 10;

/// The child, whose files cannot grow above a bound. Does nothing when run as a test.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = Store::open(Box::new(Sled::open(dir).unwrap())).unwrap();
    for n in 0..100_000u64 {
        let change = Change::put(conformance::workload(&format!("w{n}"), 20_000), Condition::Absent);
        match store.commit(vec![change]).await {
            Ok(_) => println!("\nack {n}"),
            Err(error) => {
                println!("\nrefused {} {error}", error.reason());
                break;
            }
        }
    }
    let again = store.commit(vec![Change::put(conformance::workload("late", 1), Condition::None)]).await;
    assert!(matches!(again, Err(StoreError::Failed(_))), "{again:?}");
    assert!(matches!(store.failed().await, StoreError::Failed(_)));
    assert!(store.snapshot().get(&Key::new(Kind::Workload, "default", "w0")).is_some());
    store.close().await;
    println!("\nended");
}

#[tokio::test]
async fn a_write_error_is_told_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    // Above the bound the kernel answers EFBIG to a process that ignores SIGXFSZ.
    let script = format!("trap '' XFSZ; ulimit -f {FILE_KIB}; exec \"$0\" --exact child --nocapture --test-threads=1");
    let shell =
        Command::new("bash").args(["-c", &script]).arg(std::env::current_exe().unwrap()).env(DIR, dir.path()).output();
    let output = shell.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = |word: &str| text.lines().filter_map(|l| l.strip_prefix(word)).map(str::to_owned).collect::<Vec<_>>();
    let (acks, refused) = (lines("ack "), lines("refused "));
    assert!(acks.len() > 20, "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(refused.len(), 1, "{text}");
    assert!(refused[0].contains("failed:") && refused[0].contains("restart the controller"), "{}", refused[0]);
    assert!(text.contains("\nended"), "{text}{}", String::from_utf8_lossy(&output.stderr));

    let store = Store::open(Box::new(Sled::open(dir.path()).unwrap())).unwrap();
    for n in acks {
        assert!(store.snapshot().get(&Key::new(Kind::Workload, "default", format!("w{n}"))).is_some(), "w{n} is lost");
    }
    store.commit(vec![Change::put(conformance::workload("late", 1), Condition::None)]).await.unwrap();
    store.close().await;
}
