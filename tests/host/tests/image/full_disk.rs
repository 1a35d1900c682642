//! A state directory on a small file system of its own.

use crate::{
    fixture::{Image, gzip, noise, open, tar},
    http::Server,
    pull::pull,
};
use std::{fs::File, io, path::Path, process::Command};

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk");
        File::create(&image).unwrap().set_len(size_bytes).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        std::fs::create_dir(dir.path().join("at")).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir.path().join("at")));
        Self(dir)
    }
    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("at")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also what the layer store may have mounted below it goes.
        run(Command::new("umount").args(["-R"]).arg(self.path()));
    }
}

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn free_bytes(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_does_not_fit_says_so_and_gives_its_space_back() {
    let disk = SmallDisk::new(24 << 20);
    let (fits, too_big) = (tar(&[("noise", &noise(2 << 20, 5))], &[]), tar(&[("noise", &noise(40 << 20, 6))], &[]));
    let image = Image::new(&[(too_big.clone(), gzip(&too_big))]);
    let small = Image::new(&[(fits.clone(), gzip(&fits))]);
    let (big_server, small_server) = (Server::registry(image).await, Server::registry(small.clone()).await);
    let store = open(&disk.path());
    let before = free_bytes(&disk.path());
    let error = pull(&store, &big_server.client(), &big_server.name()).await.unwrap_err();
    assert_eq!(error.reason(), "DiskFull", "{error}");
    let after = free_bytes(&disk.path());
    assert!(after + (1 << 20) > before, "{before} bytes were free, now {after}");
    // The node goes on working with what fits.
    pull(&store, &small_server.client(), &small_server.name()).await.unwrap();
    // An archive that does not fit, likewise.
    let archive = io::Cursor::new(tar(&[("x", &noise(40 << 20, 8))], &[]));
    let error = store.import(archive, None).await.unwrap_err();
    assert_eq!(error.reason(), "DiskFull", "{error}");
    drop(store);
}
