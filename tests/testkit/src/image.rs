//! Images made from what Debian ships, and registries to pull them from.

use crate::{Cluster, Run, eventually};
use anyhow::{Context, Result};
use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::{NamedTempFile, TempDir};

/// The demo image: three layers, busybox and a static web server in it.
pub const HELLO: &str = "docker.io/library/hello:1";

/// An OCI archive of the demo image under this name.
///
/// # Errors
/// If the script that makes it fails.
pub fn hello_archive(cluster: &Cluster, name: &str) -> Result<NamedTempFile> {
    let file = tempfile::Builder::new().suffix(".tar").tempfile()?;
    let mut command = Command::new(cluster.repo().join("deploy/examples/hello/image"));
    command.arg(cluster.home().join("bin/strata-hello")).arg(file.path()).arg(name);
    Run::of(command, "")?.ok()?;
    Ok(file)
}

/// Copies an OCI archive into a registry. `creds` is `user:password` or "".
///
/// # Errors
/// If skopeo fails.
pub fn push(archive: &NamedTempFile, to: &str, creds: &str) -> Result<()> {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]);
    if !creds.is_empty() {
        command.args(["--dest-creds", creds]);
    }
    command.arg(format!("oci-archive:{}", archive.path().display())).arg(format!("docker://{to}"));
    Run::of(command, "")?.ok()?;
    Ok(())
}

/// A running Debian docker-registry; it ends with the value.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// `HOST:PORT`.
    pub address: String,
    /// Where it keeps its blobs.
    pub dir: TempDir,
}

impl Registry {
    /// Starts one at this address; with `user` and `password`, only for them.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(address: &str, login: Option<(&str, &str)>) -> Result<Self> {
        let dir = TempDir::new()?;
        let root = dir.path().display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: \"{address}\"}}\n"
        );
        if let Some((user, password)) = login {
            let output = Command::new("htpasswd").args(["-Bbn", user, password]).output().context("htpasswd")?;
            fs::write(dir.path().join("htpasswd"), output.stdout)?;
            config += &format!("auth: {{htpasswd: {{realm: strata, path: {root}/htpasswd}}}}\n");
        }
        fs::write(dir.path().join("config.yml"), config)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("docker-registry")?;
        let registry = Self { child, address: address.to_owned(), dir };
        eventually("the registry listens", 20, || {
            TcpStream::connect_timeout(&address.parse()?, Duration::from_secs(1))?;
            Ok(())
        })?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
