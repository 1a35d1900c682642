//! The configuration of an image in the making (OCI image-spec config.md, with Docker's health check, shell and triggers).
//!
//! The order of members and what is left out when empty are part of the digests that clusters hold: never change them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strata_model::Digest;

use crate::error::{BuildError, Result};
use crate::time;

/// The whole document.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    pub os: String,
    #[serde(default)]
    pub config: ContainerConfig,
    pub rootfs: RootFs,
    #[serde(default)]
    pub history: Vec<History>,
}

/// What its containers get.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContainerConfig {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Nothing>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Nothing>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// The value of a set's members.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Nothing {}

/// Times in nanoseconds; 0 is "as the base image or the default".
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HealthConfig {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    pub diff_ids: Vec<String>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Docker writes `null` for what is empty.
fn nullable<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
    /// Of an image without layers, for a platform.
    pub(crate) fn scratch(os: &str, architecture: &str) -> Self {
        Self { os: os.to_owned(), architecture: architecture.to_owned(), ..Self::default() }
    }

    /// Of a base image.
    ///
    /// # Errors
    /// If it is no config.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes)
            .map_err(|error| BuildError::invalid(format!("the base image's config cannot be read: {error}")))
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// None that can happen.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| BuildError::invalid(format!("the config cannot be written: {error}")))
    }

    /// When the image was made, seconds since 1970; 0 if it does not say.
    pub(crate) fn created_s(&self) -> i64 {
        self.created.as_deref().and_then(time::parse).unwrap_or(0)
    }

    /// Notes a step: `layer` if it gave one.
    pub(crate) fn add(&mut self, text: &str, created: i64, layer: Option<&Digest>) {
        self.rootfs.diff_ids.extend(layer.map(ToString::to_string));
        self.history.push(History {
            created: Some(time::format(created)),
            created_by: text.to_owned(),
            empty_layer: layer.is_none(),
            ..History::default()
        });
    }
}

/// Sets a variable in a list of `NAME=VALUE`.
pub(crate) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let line = format!("{name}={value}");
    match env.iter_mut().find(|own| own.split_once('=').is_some_and(|(own, _)| own == name)) {
        Some(own) => *own = line,
        None => env.push(line),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn docker_configs_are_read_and_canonical_ones_written() {
        let text = r#"{"architecture":"amd64","config":{"Cmd":null,"Env":["A=1"],"ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["CMD","x"],"Interval":5},
            "Entrypoint":["e"],"Labels":null,"OnBuild":null,"Unknown":1},"container":"x","created":"2025-11-24T16:00:00.5Z","os":"linux",
            "rootfs":{"type":"layers","diff_ids":["sha256:00"]},"history":[{"created_by":"c"}]}"#;
        let mut config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.created_s(), 1_764_000_000);
        config.created = None;
        set_env(&mut config.config.env, "A", "2");
        set_env(&mut config.config.env, "B", "=3");
        config.add("RUN x", 0, Some(&Digest::of(b"x")));
        let layer = Digest::of(b"x");
        let expect = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=2","B==3"],"Entrypoint":["e"],"Healthcheck":{{"Test":["CMD","x"],"Interval":5}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:00","{layer}"]}},"history":[{{"created_by":"c"}},{{"created":"1970-01-01T00:00:00Z","created_by":"RUN x"}}]}}"#
        );
        assert_eq!(String::from_utf8(config.encode().unwrap()).unwrap(), expect);
    }
}
