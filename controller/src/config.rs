//! The controller's settings: a TOML file, overridden by `STRATA_*` in the environment. Every key is described in
//! `deploy/config/controller.toml`.

use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};
use strata_dispatcher::LeaseSettings;
use strata_model::Subnet;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}; give the file with --config")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what is expected.
    #[error("the configuration {path} is not valid: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value is not possible.
    #[error("the setting {key} = {value:?} is not valid: {why}")]
    Value {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is expected.
        why: String,
    },
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where agents and `ctl` connect.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where everything is kept.
    pub state_dir: PathBuf,
    /// `host:port` that clients are told; "" = `listen`.
    #[serde(default)]
    pub advertise: String,
    /// The range of pod addresses.
    #[serde(default = "default_cidr")]
    pub cluster_cidr: String,
    /// The length of a node's subnet.
    #[serde(default = "default_prefix")]
    pub node_prefix_len: u8,
    /// The range of services' virtual addresses.
    #[serde(default = "default_service_cidr")]
    pub service_cidr: String,
    /// Where metrics are served; absent: nowhere.
    #[serde(default)]
    pub metrics_listen: Option<SocketAddr>,
    /// How often agents are heard, milliseconds.
    #[serde(default = "default_heartbeat")]
    pub heartbeat_ms: u64,
    /// After what silence a node is lost, milliseconds.
    #[serde(default = "default_lease")]
    pub lease_ms: u64,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 7600))
}
fn default_cidr() -> String {
    "10.64.0.0/10".to_owned()
}
fn default_service_cidr() -> String {
    "10.128.0.0/16".to_owned()
}
fn default_prefix() -> u8 {
    20
}
fn default_heartbeat() -> u64 {
    5_000
}
fn default_lease() -> u64 {
    15_000
}

impl Config {
    /// Reads a file and the environment.
    ///
    /// # Errors
    /// [`ConfigError`] names the file or key, and what is expected.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text, |name| std::env::var(name).ok())
    }

    /// Reads the settings from a text and from variables (`STRATA_STATE_DIR` overrides `state_dir`, and so on).
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let wrong = |source: toml::de::Error| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) };
        let mut table: toml::Table = toml::from_str(text).map_err(wrong)?;
        for key in KEYS {
            let Some(value) = variable(&format!("STRATA_{}", key.to_ascii_uppercase())) else { continue };
            let number = NUMBERS.contains(key).then(|| value.parse::<i64>().ok()).flatten();
            table.insert((*key).to_owned(), number.map_or(toml::Value::String(value), toml::Value::Integer));
        }
        // The file alone first, for errors with line and column.
        if KEYS.iter().all(|key| variable(&format!("STRATA_{}", key.to_ascii_uppercase())).is_none()) {
            let config: Self = toml::from_str(text).map_err(wrong)?;
            return config.checked();
        }
        table.try_into::<Self>().map_err(wrong)?.checked()
    }

    fn checked(self) -> Result<Self, ConfigError> {
        let bad = |key, value: String, why: &str| Err(ConfigError::Value { key, value, why: why.to_owned() });
        let cidr = self.cluster_range()?;
        if cidr.nth(1, self.node_prefix_len).is_none() || self.node_prefix_len > 28 {
            let why = "the length of a node's subnet: longer than that of cluster_cidr, at most 28";
            return bad("node_prefix_len", self.node_prefix_len.to_string(), why);
        }
        if self.service_range()?.overlaps(cidr) {
            return bad("service_cidr", self.service_cidr.clone(), "it must not overlap cluster_cidr");
        }
        if !(100..=60_000).contains(&self.heartbeat_ms) {
            return bad("heartbeat_ms", self.heartbeat_ms.to_string(), "100 to 60000 milliseconds");
        }
        if self.lease_ms < 2 * self.heartbeat_ms || self.lease_ms > 3_600_000 {
            let why = "at least twice heartbeat_ms and at most 3600000 milliseconds";
            return bad("lease_ms", self.lease_ms.to_string(), why);
        }
        if !self.advertise.is_empty() && self.advertise.rsplit_once(':').is_none_or(|(_, p)| p.parse::<u16>().is_err())
        {
            return bad("advertise", self.advertise.clone(), "HOST:PORT");
        }
        Ok(self)
    }

    /// The range of pod addresses.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn cluster_range(&self) -> Result<Subnet, ConfigError> {
        range("cluster_cidr", &self.cluster_cidr)
    }

    /// The range of services' virtual addresses.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn service_range(&self) -> Result<Subnet, ConfigError> {
        range("service_cidr", &self.service_cidr)
    }

    /// Heartbeats and leases.
    #[must_use]
    pub fn leases(&self) -> LeaseSettings {
        LeaseSettings { heartbeat_ms: self.heartbeat_ms, lease_ms: self.lease_ms }
    }

    /// `host:port` for clients on this machine or, with `advertise`, on others.
    #[must_use]
    pub fn endpoint(&self, listening: SocketAddr) -> String {
        if !self.advertise.is_empty() {
            return self.advertise.clone();
        }
        if listening.ip().is_unspecified() {
            return format!("127.0.0.1:{}", listening.port());
        }
        listening.to_string()
    }
}

fn range(key: &'static str, text: &str) -> Result<Subnet, ConfigError> {
    text.parse().map_err(|e: strata_model::Invalid| ConfigError::Value {
        key,
        value: text.to_owned(),
        why: e.why.to_owned(),
    })
}

const KEYS: &[&str] = &[
    "listen",
    "state_dir",
    "advertise",
    "cluster_cidr",
    "node_prefix_len",
    "service_cidr",
    "metrics_listen",
    "heartbeat_ms",
    "lease_ms",
];
const NUMBERS: &[&str] = &["node_prefix_len", "heartbeat_ms", "lease_ms"];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Config::parse(Path::new("controller.toml"), text, variable).map_err(|e| e.to_string())
    }

    #[test]
    fn the_documented_file_has_every_key_and_the_defaults() {
        let text = include_str!("../../deploy/config/controller.toml");
        let shown = parse(text, &[]).unwrap();
        assert_eq!(shown, parse(&format!("state_dir = {:?}", shown.state_dir), &[]).unwrap());
        for key in KEYS {
            assert!(text.lines().any(|l| l.trim_start_matches("# ").starts_with(&format!("{key} = "))), "{key}");
        }
    }

    #[test]
    fn every_setting_is_documented_and_can_be_overridden() {
        // The parser itself names all that it knows.
        let error = parse("state_dir = \"/a\"\nzzz = 1", &[]).unwrap_err();
        let known: Vec<&str> = error.split("expected one of").nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(known.contains(&"state_dir") && known.len() >= 8, "{error}");
        let text = include_str!("../../deploy/config/controller.toml");
        for key in known {
            assert!(text.lines().any(|l| l.trim_start_matches("# ").starts_with(&format!("{key} = "))), "{key}");
            assert!(KEYS.contains(&key), "STRATA_* cannot set {key}");
        }
    }

    #[test]
    fn the_environment_comes_last() {
        let config = parse(
            "state_dir = \"/a\"\nlease_ms = 20000",
            &[("STRATA_STATE_DIR", "/b"), ("STRATA_LEASE_MS", "30000"), ("STRATA_LISTEN", "127.0.0.1:0")],
        );
        let config = config.unwrap();
        assert_eq!((config.state_dir.to_str().unwrap(), config.lease_ms, config.listen.port()), ("/b", 30_000, 0));
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, words) in [
            ("state_dir = \"/a\"\nlisten_on = 1", "line 2"),
            ("listen = \"127.0.0.1:1\"", "state_dir"),
            ("state_dir = \"/a\"\nlease_ms = 6000", "at least twice heartbeat_ms"),
            ("state_dir = \"/a\"\ncluster_cidr = \"10.0.0.1/8\"", "ADDRESS/LENGTH"),
            ("state_dir = \"/a\"\nservice_cidr = \"10.100.0.0/16\"", "must not overlap"),
            ("state_dir = \"/a\"\nnode_prefix_len = 8", "node_prefix_len"),
            ("state_dir = \"/a\"\nadvertise = \"host\"", "HOST:PORT"),
        ] {
            let error = parse(text, &[]).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
