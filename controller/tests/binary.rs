//! The program itself: settings, lock, signals.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

fn controller(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strata-controller"));
    command
        .arg("--config")
        .arg(config)
        .env_remove("STRATA_LOG")
        .env("NO_COLOR", "1")
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Reads its log until it serves.
fn wait_until_serving(child: &mut Child) -> BufReader<std::process::ChildStderr> {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it served");
    }
    log
}

fn terminate(mut child: Child, mut log: BufReader<std::process::ChildStderr>) {
    let killed = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    std::io::copy(&mut log, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success(), "SIGTERM is an order, not an error");
}

#[test]
fn starts_once_and_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("controller.toml");
    let state = dir.path().join("state");
    std::fs::write(&config, format!("state_dir = {state:?}\nlisten = \"127.0.0.1:0\"\n")).unwrap();
    let checked = controller(&config).arg("--check-config").output().unwrap();
    assert!(checked.status.success());
    assert!(!state.exists(), "checking touches nothing");

    let mut first = controller(&config).spawn().unwrap();
    let log = wait_until_serving(&mut first);
    for file in ["admin.toml", "bootstrap-token", "pki/ca.pem"] {
        assert!(state.join(file).exists(), "{file}");
    }
    let second = controller(&config).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another controller uses"));
    terminate(first, log);

    let mut again = controller(&config).spawn().unwrap();
    let log = wait_until_serving(&mut again);
    terminate(again, log);
}

#[test]
fn settings_that_are_not_valid_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("controller.toml");
    std::fs::write(&config, "state_dir = \"/nowhere\"\nlisten_to = 1\n").unwrap();
    let checked = controller(&config).arg("--check-config").output().unwrap();
    assert_eq!(checked.status.code(), Some(1));
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(said.contains("listen_to") && said.contains("line 2"), "{said}");
}
