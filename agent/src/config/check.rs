//! What a setting must be like.

use super::{Config, ConfigError};
use strata_model::limits::IDS_PER_POD;

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, why: &str| Err(ConfigError::Value { key, why: why.into() });
        if let Err(e) = strata_model::check_name("node name", &self.node) {
            return bad("node", &e.to_string());
        }
        if !is_host_port(&self.controller) {
            return bad("controller", "HOST:PORT is expected, as in 10.0.0.1:7070");
        }
        if self.token.is_some() && self.token_file.is_some() {
            return bad("token", "set token or token_file, not both");
        }
        if !self.state_dir.is_absolute() {
            return bad("state_dir", "an absolute path is expected");
        }
        if self.advertise.is_some_and(|a| a.is_unspecified()) {
            return bad("advertise", "an address that others can reach is expected, not 0.0.0.0");
        }
        let cgroup = &self.cgroup_parent;
        if cgroup.is_empty() || cgroup.starts_with('/') || cgroup.split('/').any(|p| matches!(p, "" | "." | "..")) {
            return bad(
                "cgroup_parent",
                "a path below the cgroup root without leading slash is expected, as in strata/node-1",
            );
        }
        // IFNAMSIZ is 16 with the ending NUL.
        if self.bridge.is_empty() || self.bridge.len() > 15 || self.bridge.contains(['/', ' ', ':']) {
            return bad("bridge", "an interface name of at most 15 characters is expected");
        }
        if self.id_start < IDS_PER_POD || !self.id_start.is_multiple_of(IDS_PER_POD) {
            return bad("id_start", "a multiple of 65536 and not 0: ids below belong to the host");
        }
        if self.build_context_bytes_max == 0 {
            return bad("build_context_bytes_max", "at least 1");
        }
        if self.capacity.pods == Some(0) {
            return bad("capacity.pods", "at least 1");
        }
        Ok(())
    }
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|p| p > 0)
    })
}
