//! One node of the cluster: its agent, its state directory, its network namespace.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{fs, path::PathBuf, process::Command};

/// One node as `deploy/quickstart status --json` names it.
#[derive(Debug, Clone)]
pub struct Node {
    /// `node-1`.
    pub name: String,
    /// The agent's pid; 0 when it does not run.
    pub pid: u32,
    /// The network namespace.
    pub netns: String,
    /// The node's address.
    pub address: String,
    /// The data directory.
    pub state: PathBuf,
}

impl Node {
    /// Reads one entry of the status.
    ///
    /// # Errors
    /// If a field is missing.
    pub fn from_status(entry: &Value) -> Result<Self> {
        let text = |key: &str| entry[key].as_str().map(str::to_owned).with_context(|| format!("status has no {key}"));
        Ok(Self {
            name: text("name")?,
            pid: u32::try_from(entry["pid"].as_u64().context("pid")?)?,
            netns: text("netns")?,
            address: text("address")?,
            state: text("state")?.into(),
        })
    }

    /// A command inside the node's network namespace.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg(program);
        command
    }

    /// Names and SHA-256 sums of the layer files.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn layer_sums(&self) -> Result<Vec<String>> {
        let mut files: Vec<_> =
            fs::read_dir(self.state.join("layers"))?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        files.sort();
        let output = Command::new("sha256sum").args(&files).output()?;
        ensure!(output.status.success(), "sha256sum: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    /// Bytes the data directory takes on the disk, by its blocks.
    ///
    /// # Errors
    /// If `du` fails.
    pub fn disk_bytes(&self) -> Result<u64> {
        let output = Command::new("du").args(["-s", "--block-size=1"]).arg(&self.state).output()?;
        let text = String::from_utf8(output.stdout)?;
        text.split_whitespace().next().context("du printed nothing")?.parse().context(text.clone())
    }

    /// The host's ends of the pods' veths on this node.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn pod_links(&self) -> Result<Vec<String>> {
        let output = self.command("ip").args(["-o", "link", "show", "type", "veth"]).output()?;
        let text = String::from_utf8(output.stdout)?;
        let names = text.lines().filter_map(|l| l.split(": ").nth(1)).filter_map(|n| n.split('@').next());
        Ok(names.filter(|n| *n != "uplink").map(str::to_owned).collect())
    }
}
