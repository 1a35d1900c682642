//! What the tests of this topic stand on: a state directory, a mount namespace of the test's own, a user namespace.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use rustix::mount::{MoveMountFlags, move_mount};
use strata_layer::{LayerStore, Published, Result};
use strata_model::{Algorithm, Digest};

/// A directory, gone with the test; mounts made by the test's thread are its own and go with the thread.
pub struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Self {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
        nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .unwrap();
        let directory = tempfile::Builder::new().prefix("strata-layer-").tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn make(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn store(&self) -> LayerStore {
        LayerStore::open(&self.path("state")).unwrap()
    }

    /// Attaches a detached mount to a new directory.
    pub fn attach(&self, mount: &OwnedFd, name: &str) -> PathBuf {
        let place = self.make(name);
        move_mount(mount, "", rustix::fs::CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        place
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Mounts below hinder the removal of the directory: they go first, the deepest first.
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let base = self.directory.path().to_string_lossy().into_owned();
        let below: Vec<&str> =
            table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| p.starts_with(&base)).collect();
        for place in below.iter().rev() {
            let _detached = nix::mount::umount2(*place, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Writes a tar into the store in pieces of some size.
pub fn write_in(store: &LayerStore, tar: &[u8], piece: usize, expected: Option<&Digest>) -> Result<Published> {
    let mut writer = store.writer(Algorithm::Sha256)?;
    for piece in tar.chunks(piece) {
        writer.push(piece)?;
    }
    writer.finish(expected)
}

pub fn write(store: &LayerStore, tar: &[u8]) -> Result<Published> {
    write_in(store, tar, 1 << 16, Some(&Digest::of(tar)))
}

/// Streams a file's bytes into the store.
pub fn write_file(store: &LayerStore, tar: &Path) -> Published {
    let mut writer = store.writer(Algorithm::Sha256).unwrap();
    std::io::copy(&mut File::open(tar).unwrap(), &mut writer).unwrap();
    writer.finish(None).unwrap()
}

/// Runs a shell script that must succeed, in a directory.
pub fn sh(directory: &Path, script: &str) -> String {
    let output =
        Command::new("bash").args(["-euc", script]).current_dir(directory).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A user namespace with the map 0 -> 100000, alive with its process.
pub struct UserNamespace {
    child: Child,
    pub fd: File,
}

impl UserNamespace {
    pub fn new() -> Self {
        Self::with_map("0 100000 65536")
    }

    pub fn with_map(map: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(["--user", "sh", "-c", "echo ready; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        for kind in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{}/{kind}", child.id()), map).unwrap();
        }
        let fd = File::open(format!("/proc/{}/ns/user", child.id())).unwrap();
        Self { child, fd }
    }

    /// Runs a script as the namespace's root in the caller's mount namespace.
    pub fn sh(&self, directory: &Path, script: &str) -> String {
        let user = format!("--user=/proc/{}/ns/user", self.child.id());
        let output = Command::new("nsenter")
            .args([&user, "--setuid=0", "--setgid=0", "bash", "-euc", script])
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}
