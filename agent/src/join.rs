//! `strata-agent join CONTROLLER TOKEN`: makes a machine a node: its identity, its settings, and what to do next.

use crate::{
    config::{Config, ConfigError},
    identity, lock,
};
use anyhow::{Context, ensure};
use std::{
    fs::File,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a controller that does not answer is waited for.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The unit of `deploy/systemd`, where the package puts it.
const UNIT: &str = "/lib/systemd/system/strata-agent.service";

/// What a new node is told on its command line.
#[derive(Debug, clap::Args)]
pub struct JoinArguments {
    /// HOST:PORT of the controller
    #[arg(value_name = "CONTROLLER")]
    pub controller: String,
    /// A join token, from `ctl token create`; - reads it from standard input, so that no list of processes shows it
    #[arg(value_name = "TOKEN")]
    pub token: String,
    /// The node's name; by default the machine's host name
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where the agent keeps everything
    #[arg(long, value_name = "DIR", default_value = "/var/lib/strata/agent")]
    pub state_dir: PathBuf,
    /// Where node and peer API listen
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// The address at which the others reach this machine
    #[arg(long, value_name = "IP")]
    pub advertise: Option<IpAddr>,
    /// Where Prometheus finds metrics
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// The cgroup of the pods, for several agents on one machine
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// The first host id of the pods, for several agents on one machine
    #[arg(long, value_name = "N")]
    pub id_start: Option<u32>,
    /// A label of the node, for selectors; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
}

/// Joins, writes the settings and says what comes next. Settings that are there already are not touched unless they are the same.
///
/// # Errors
/// In words for people.
pub fn perform(arguments: &JoinArguments, config_path: &Path) -> anyhow::Result<()> {
    let token = match arguments.token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).context("reading the token from standard input")?,
        token => token.to_owned(),
    };
    let node = match &arguments.node {
        Some(node) => node.clone(),
        None => host_name()?,
    };
    let text = settings(arguments, &node)?;
    let config = Config::parse(config_path, &text, |_| None)?;
    let present = std::fs::read_to_string(config_path).ok();
    if let Some(present) = &present {
        ensure!(
            *present == text,
            "{} is there already and says something else: remove it, or name another file with --config",
            config_path.display()
        );
    }
    // Not while an agent works with the directory.
    let _lock = lock::take(&config.state_dir)?;
    if identity::load(&config.state_dir, &node)?.is_none() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let joining = identity::join(&config.controller, &node, token.trim(), &config.state_dir);
        let joined = runtime.block_on(async { tokio::time::timeout(JOIN_TIMEOUT, joining).await });
        joined.with_context(|| {
            format!("nobody answers at {} within {} s", config.controller, JOIN_TIMEOUT.as_secs())
        })??;
    }
    if present.is_none() {
        write(config_path, &text).with_context(|| format!("writing {}", config_path.display()))?;
    }
    println!("node {node} has joined; its identity is in {}", config.state_dir.join("identity").display());
    println!("settings: {}", config_path.display());
    if Path::new(UNIT).exists() && config_path == Path::new("/etc/strata/agent.toml") {
        println!("next: systemctl enable --now strata-agent");
    } else {
        println!("next: strata-agent --config {}", config_path.display());
    }
    Ok(())
}

fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("reading the host name")?;
    Ok(name.trim().to_lowercase())
}

/// The settings' text: what differs from the defaults, and where all others are described.
fn settings(arguments: &JoinArguments, node: &str) -> Result<String, ConfigError> {
    let mut table = toml::Table::new();
    let mut put = |key: &str, value: Option<toml::Value>| {
        if let Some(value) = value {
            table.insert(key.to_owned(), value);
        }
    };
    let text = |value: String| Some(toml::Value::String(value));
    put("node", text(node.to_owned()));
    put("controller", text(arguments.controller.clone()));
    put("state_dir", text(arguments.state_dir.display().to_string()));
    put("listen", arguments.listen.and_then(|a| text(a.to_string())));
    put("advertise", arguments.advertise.and_then(|a| text(a.to_string())));
    put("metrics_listen", arguments.metrics_listen.and_then(|a| text(a.to_string())));
    put("cgroup_parent", arguments.cgroup_parent.clone().and_then(text));
    put("id_start", arguments.id_start.map(|n| toml::Value::Integer(n.into())));
    let mut labels = toml::Table::new();
    for label in &arguments.labels {
        let Some((key, value)) = label.split_once('=') else {
            return Err(ConfigError::Value { key: "labels", why: format!("{label:?} is not KEY=VALUE") });
        };
        labels.insert(key.to_owned(), toml::Value::String(value.to_owned()));
    }
    put("labels", (!labels.is_empty()).then_some(toml::Value::Table(labels)));
    Ok(format!(
        "# Written by strata-agent join. Every setting is described in agent.toml of the documentation.\n{table}"
    ))
}

/// Whole or not at all: the file appears with its text.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let part = path.with_extension("toml.part");
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o644).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        join: JoinArguments,
    }

    fn parsed(line: &str) -> Result<Config, String> {
        let arguments = Line::parse_from(line.split(' ')).join;
        let text = settings(&arguments, "n1").map_err(|e| e.to_string())?;
        Config::parse(Path::new("agent.toml"), &text, |_| None).map_err(|e| format!("{e}\n{text}"))
    }

    #[test]
    fn the_settings_are_what_the_agent_reads() {
        let config = parsed(
            "join 10.0.0.1:7600 strata.x --listen 10.0.0.2:7071 --advertise 10.0.0.2 --metrics-listen 10.0.0.2:9464 --cgroup-parent a/b --id-start 131072 --label zone=a --label disk=ssd --state-dir /s",
        );
        let config = config.unwrap();
        assert_eq!((config.node.as_str(), config.controller.as_str()), ("n1", "10.0.0.1:7600"));
        assert_eq!((config.id_start, config.labels.len(), config.token), (131_072, 2, None));
        assert!(parsed("join 10.0.0.1:7600 t").is_ok());
        assert!(parsed("join nowhere t").unwrap_err().contains("HOST:PORT"));
        assert!(parsed("join a:1 t --label x").unwrap_err().contains("KEY=VALUE"));
    }
}
