//! The file that says which clusters there are and who one is there.
//!
//! ```toml
//! current = "default"
//! [contexts.default]
//! endpoints = ["192.0.2.1:7443"]
//! namespace = "default"        # may be left out
//! ca = "-----BEGIN CERTIFICATE-----…"
//! cert = "-----BEGIN CERTIFICATE-----…"
//! key = "-----BEGIN PRIVATE KEY-----…"
//! ```

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};
use strata_transport::{Identity, TransportError, pki::write_private};

/// Bytes of a configuration file.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The name of the only context of a file that [`Config::single`] makes.
const DEFAULT_CONTEXT: &str = "default";

/// The contexts of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The context that is used when none is named.
    pub current: String,
    /// By name.
    pub contexts: BTreeMap<String, Context>,
}

/// One cluster and one identity in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `host:port` of its controllers.
    pub endpoints: Vec<String>,
    /// The namespace that is used when none is named.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The cluster's CA certificate, PEM.
    pub ca: String,
    /// The user's certificate, PEM.
    #[serde(default)]
    pub cert: String,
    /// Its private key, PEM.
    #[serde(default)]
    pub key: String,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file.
    #[error("no configuration at {}: point STRATA_CONFIG at one (`eval \"$(deploy/quickstart env)\"`), or copy the controller's admin.toml there", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Neither variable nor home.
    #[error("neither STRATA_CONFIG nor HOME is set, so there is no place to look for a configuration")]
    NoPlace,
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        why: String,
    },
    /// The file has no such context.
    #[error("there is no context {name:?}; there are: {known}")]
    NoContext {
        /// As asked for.
        name: String,
        /// The names of those there are.
        known: String,
    },
}

impl Config {
    /// Where the configuration is: `STRATA_CONFIG`, else `~/.config/strata/config.toml`.
    ///
    /// # Errors
    /// [`ConfigError::NoPlace`].
    pub fn path() -> Result<PathBuf, ConfigError> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = set("STRATA_CONFIG") {
            return Ok(path);
        }
        let home = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        Ok(home.ok_or(ConfigError::NoPlace)?.join("strata").join("config.toml"))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it is missing, too big or malformed.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let size = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ConfigError::Missing { path: path.to_owned() });
            }
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        let malformed = |why: String| ConfigError::Malformed { path: path.to_owned(), why };
        if size > CONFIG_BYTES_MAX {
            return Err(malformed(format!("it has {size} bytes, and at most {CONFIG_BYTES_MAX} are read")));
        }
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| malformed(error.to_string()))
    }

    /// A configuration with one context, as the controller writes for its administrator.
    #[must_use]
    pub fn single(endpoint: &str, identity: &Identity) -> Self {
        let context = Context {
            endpoints: vec![endpoint.to_owned()],
            namespace: String::new(),
            ca: identity.ca_pem.clone(),
            cert: identity.cert_pem.clone(),
            key: identity.key_pem.clone(),
        };
        Self { current: DEFAULT_CONTEXT.into(), contexts: BTreeMap::from([(DEFAULT_CONTEXT.into(), context)]) }
    }

    /// Writes the file, mode 0600, whole or not at all.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), TransportError> {
        let text = toml::to_string(self)
            .map_err(|e| TransportError::Material { what: "the client configuration", why: e.to_string() })?;
        write_private(path, &text)
    }

    /// The context with the name, or the current one.
    ///
    /// # Errors
    /// [`ConfigError::NoContext`].
    pub fn context(&self, name: Option<&str>) -> Result<&Context, ConfigError> {
        let name = name.unwrap_or(&self.current);
        self.contexts.get(name).ok_or_else(|| ConfigError::NoContext {
            name: name.to_owned(),
            known: self.contexts.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }
}

impl Context {
    /// The certificates of the context.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { cert_pem: self.cert.clone(), key_pem: self.key.clone(), ca_pem: self.ca.clone() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_saved_reads_back_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.toml");
        let identity = Identity { cert_pem: "C\n".into(), key_pem: "K".into(), ca_pem: "A".into() };
        let config = Config::single("[::1]:7443", &identity);
        config.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = Config::load(&path).unwrap();
        assert_eq!(loaded, config);
        assert_eq!(loaded.context(None).unwrap().identity(), identity);
        let message = loaded.context(Some("prod")).unwrap_err().to_string();
        assert!(message.contains("prod") && message.contains("default"), "{message}");
    }

    #[test]
    fn missing_and_malformed_files_say_so_and_where() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let message = Config::load(&path).unwrap_err().to_string();
        assert!(message.contains("config.toml") && message.contains("STRATA_CONFIG"), "{message}");
        fs::write(&path, "current = \"a\"\n[contexts.a]\nendpoint = [\"x\"]\n").unwrap();
        let message = Config::load(&path).unwrap_err().to_string();
        assert!(message.contains("line 3") && message.contains("endpoint"), "{message}");
    }
}
