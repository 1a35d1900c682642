//! `deploy/quickstart down` takes down what belongs to its home, wherever the binary lies, and leaves what does not.
//! Runs in network and mount namespaces of its own with its own /run, so it meets no other quickstart. Needs root and the shim that deploy/build makes.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn repo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn shim() -> PathBuf {
    let built = repo().join(format!("target/{}-unknown-linux-gnu/static/strata-shim", std::env::consts::ARCH));
    let path = std::env::var_os("STRATA_SHIM").map_or(built, PathBuf::from);
    assert!(path.exists(), "{} is not there: run deploy/build", path.display());
    path
}

/// The pids of zygotes that serve this directory.
fn zygotes(dir: &Path) -> Vec<u32> {
    let dir = dir.to_str().unwrap();
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("zygote") && line.split('\0').any(|arg| arg == dir)
    })
    .collect()
}

/// Starts a zygote from a copy of the shim; it leaves this session and stays.
fn start_zygote(program: &Path, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let status = Command::new(program).args(["zygote", "--socket"]).arg(dir).current_dir("/").status().unwrap();
    assert!(status.success());
    assert_eq!(zygotes(dir).len(), 1);
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn down_finds_processes_by_their_state_and_leaves_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (home, other) = (dir.path().join("home"), dir.path().join("home-of-another"));
    let elsewhere = dir.path().join("elsewhere/strata-shim");
    fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    fs::copy(shim(), &elsewhere).unwrap();
    fs::create_dir_all(home.join("bin")).unwrap();
    fs::write(home.join(".strata-quickstart"), "").unwrap();
    let inside = home.join("bin/strata-shim");
    fs::copy(shim(), &inside).unwrap();
    let homes = [home.join("node-1"), home.join("node-2")];
    start_zygote(&inside, &homes[0]);
    start_zygote(&elsewhere, &homes[1]);
    start_zygote(&elsewhere, &other);
    // An operator's process that merely looks at the home.
    let mut sleeper = Command::new("sleep").arg("1000").current_dir(&homes[0]).spawn().unwrap();

    let script = "mount -t tmpfs tmpfs /run; exec \"$0\" down";
    let down = Command::new("unshare")
        .args(["-nm", "--propagation", "private", "sh", "-c", script])
        .arg(repo().join("deploy/quickstart"))
        .env("STRATA_HOME", &home)
        .output()
        .unwrap();
    let left: Vec<Vec<u32>> = homes.iter().map(|h| zygotes(h)).collect();
    let others = zygotes(&other);
    left.iter().flatten().chain(&others).for_each(|pid| kill(*pid));
    let alive = sleeper.try_wait().unwrap().is_none();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert_eq!(left, [vec![], vec![]], "zygotes are left");
    assert_eq!(others.len(), 1, "the zygote of another home");
    assert!(alive, "a process that is not Strata's was ended");
    assert!(!home.exists());
}
