//! The controller's store on a disk that fills up (a small tmpfs): commits are refused with words, nothing acknowledged is lost, and it goes on
//! when there is space again.
#![allow(clippy::unwrap_used, clippy::panic)]

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::{fs, path::PathBuf};
use strata_proto::types::Kind;
use strata_store::{Change, Condition, Store, StoreError, backend::Sled, conformance};

/// A tmpfs that goes with its value.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes},mode=0700")).unwrap();
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount("tmpfs", dir.path(), "tmpfs", flags, Some(options.as_c_str())).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.dir.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.dir.path(), UnmountFlags::DETACH).unwrap();
    }
}

fn change(n: usize) -> Vec<Change> {
    vec![Change::put(conformance::workload(&format!("w{n}"), 50_000), Condition::None)]
}

#[tokio::test]
async fn a_disk_that_fills_up_refuses_commits_until_there_is_space_again() {
    let disk = SmallDisk::new(128 << 20);
    let open = || Store::open(Box::new(Sled::open(disk.path("store")).unwrap())).unwrap();
    let store = open();
    for n in 0..20 {
        store.commit(change(n)).await.unwrap();
    }
    // Something else takes the space.
    let ballast = usize::try_from(disk.free_bytes()).unwrap() - (20 << 20);
    fs::write(disk.path("ballast"), vec![0; ballast]).unwrap();
    for n in 20..30 {
        let refused = store.commit(change(n)).await.unwrap_err();
        assert!(matches!(refused, StoreError::DiskFull(_)), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains("nearly full") && text.contains("free some space"), "{text}");
    }
    assert_eq!(store.snapshot().list(Kind::Workload, None).count(), 20, "readers go on");
    fs::remove_file(disk.path("ballast")).unwrap();
    store.commit(change(20)).await.unwrap();
    store.close().await;
    let store = open();
    assert_eq!(store.snapshot().list(Kind::Workload, None).count(), 21);

    // The store fills the disk by itself.
    let mut kept = 21;
    let refused = loop {
        match store.commit(change(kept)).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 10_000, "a disk of 128 MiB took them all");
    };
    assert!(matches!(refused, StoreError::DiskFull(_)), "{refused:?}");
    assert_eq!(store.status().failed, "");
    store.close().await;
    let store = open();
    assert_eq!(store.snapshot().list(Kind::Workload, None).count(), kept);
    store.close().await;
}
