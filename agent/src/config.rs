//! The agent's settings: TOML, then environment `STRATA_*` over it. Every key is documented in `deploy/config/agent.toml`.

mod check;
mod environment;

use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// Settings that have passed every check that needs no network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of this node; its certificate is bound to it.
    pub node: String,
    /// HOST:PORT of the controller.
    pub controller: String,
    /// Join token, for the first start only.
    pub token: Option<String>,
    /// A file with the join token.
    pub token_file: Option<PathBuf>,
    /// Everything the agent keeps lives below it.
    pub state_dir: PathBuf,
    /// Where the node API (for the controller) and the peer API (for agents) listen.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Address at which others reach `listen`; absent: the one that reaches the controller.
    pub advertise: Option<IpAddr>,
    /// Cgroup below which pods get theirs, without leading slash.
    #[serde(default = "default_cgroup_parent")]
    pub cgroup_parent: String,
    /// The strata-shim program; absent: beside the agent's own.
    pub shim: Option<PathBuf>,
    /// Name of the pods' bridge.
    #[serde(default = "default_bridge")]
    pub bridge: String,
    /// How the pods of other nodes are reached.
    #[serde(default)]
    pub overlay: Overlay,
    /// Labels of the node, for selectors.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// First host id of this node's pods.
    #[serde(default = "default_id_start")]
    pub id_start: u32,
    /// Registries (HOST or HOST:PORT) that are spoken to in plain HTTP.
    #[serde(default)]
    pub insecure_registries: Vec<String>,
    /// Credentials in docker's config.json form.
    pub registry_auth_file: Option<PathBuf>,
    /// What the node has; absent parts are detected.
    #[serde(default)]
    pub capacity: Capacity,
    /// The largest build context, in bytes of its tar.
    #[serde(default = "default_build_context_bytes_max")]
    pub build_context_bytes_max: u64,
    /// Where Prometheus finds metrics; absent: nowhere.
    pub metrics_listen: Option<SocketAddr>,
}

/// How the pods of other nodes are reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlay {
    /// By a route where the nodes share a link, else by VXLAN.
    #[default]
    Auto,
    /// By a route, always.
    Direct,
    /// By VXLAN, always.
    Vxlan,
}

impl From<Overlay> for strata_network::Overlay {
    fn from(overlay: Overlay) -> Self {
        match overlay {
            Overlay::Auto => Self::Auto,
            Overlay::Direct => Self::Direct,
            Overlay::Vxlan => Self::Vxlan,
        }
    }
}

/// Overrides of what is detected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Sandboxes at the same time.
    pub pods: Option<u32>,
}

/// Sandboxes at the same time where the settings do not say: what one bridge takes (1,023 ports), less some.
pub const PODS_DEFAULT: u32 = 1000;

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 7071))
}
fn default_cgroup_parent() -> String {
    "strata".into()
}
fn default_bridge() -> String {
    "strata0".into()
}
fn default_build_context_bytes_max() -> u64 {
    strata_build::limits::CONTEXT_BYTES_DEFAULT
}
fn default_id_start() -> u32 {
    1 << 20
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the settings {path}: {source}; name the file with --config")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, a value of the wrong type.
    #[error("{path}: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What the parser says, with the line.
        message: String,
    },
    /// A value that cannot work.
    #[error("setting {key}: {why}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong and what to write.
        why: String,
    },
}

impl Config {
    /// Reads and checks the file, with the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`] names the key or the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(path, &text, |name| std::env::var(name).ok())
    }

    /// The same from text and a lookup of environment variables.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let bad = |message: String| ConfigError::Parse { path: path.into(), message };
        // First as it stands, so that an error shows the line; then with the environment's values.
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| bad(e.to_string()))?;
        let overridden = environment::apply(&mut table, env)?;
        let config: Self = if overridden {
            table.try_into().map_err(|e: toml::de::Error| bad(e.to_string()))?
        } else {
            toml::from_str(text).map_err(|e| bad(e.to_string()))?
        };
        config.check()?;
        Ok(config)
    }

    /// The shim: as set, else beside the agent's own program.
    ///
    /// # Errors
    /// If the agent's own path cannot be found out.
    pub fn shim_path(&self) -> std::io::Result<PathBuf> {
        match &self.shim {
            Some(path) => Ok(path.clone()),
            None => Ok(std::env::current_exe()?.with_file_name("strata-shim")),
        }
    }

    /// The join token, if one is set.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn join_token(&self) -> Result<Option<String>, ConfigError> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.trim().to_owned())),
            (None, Some(path)) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                Ok(Some(text.trim().to_owned()))
            }
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
