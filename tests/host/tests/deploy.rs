//! The files of `deploy/` that other programs read: systemd accepts the units; both daemons check their settings.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// The directory that this test's own program was built into.
fn binaries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned()
}

#[test]
fn systemd_accepts_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["strata-controller", "strata-agent"] {
        let text = fs::read_to_string(deploy().join(format!("systemd/{name}.service"))).unwrap();
        let installed = format!("/usr/bin/{name}");
        assert!(text.contains(&format!("ExecStart={installed} ")), "{text}");
        // The checker wants the programs to be there.
        let unit = dir.path().join(format!("{name}.service"));
        fs::write(&unit, text.replace(&installed, binaries().join(name).to_str().unwrap())).unwrap();
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
    let agent = fs::read_to_string(deploy().join("systemd/strata-agent.service")).unwrap();
    for line in ["KillMode=process", "Delegate=yes", "OOMPolicy=continue"] {
        assert!(agent.lines().any(|l| l == line), "{line}: else containers die with their agent");
    }
}

fn check(program: &str, config: &Path) -> (i32, String) {
    let output =
        Command::new(binaries().join(program)).arg("--config").arg(config).arg("--check-config").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), said)
}

#[test]
fn daemons_check_their_settings_without_starting() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.toml");
    for (program, good, wrong) in [
        ("strata-controller", "config/controller.toml", "state_dir = \"/x\"\nlisten = \"nowhere\"\n"),
        ("strata-agent", "config/agent.toml", "node = \"N\"\ncontroller = \"a:1\"\nstate_dir = \"/x\"\n"),
    ] {
        let (code, said) = check(program, &deploy().join(good));
        assert_eq!(code, 0, "{program}: {said}");
        fs::write(&bad, wrong).unwrap();
        let (code, said) = check(program, &bad);
        assert!(code != 0 && (said.contains("listen") || said.contains("node")), "{program}: {code} {said}");
        let (code, said) = check(program, &dir.path().join("absent.toml"));
        assert!(code != 0 && said.contains("absent.toml"), "{program}: {code} {said}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "checking has made something");
}
