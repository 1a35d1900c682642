//! User names and passwords as `docker login` leaves them (`config.json`, member `auths`).

use crate::{
    error::{ImageError, Result},
    limits,
};
use base64::Engine as _;
use serde::Deserialize;
use std::{collections::HashMap, fmt, io::Read as _, path::Path};

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password or access token; never logged.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// Reads the entry for a registry; `None` if the file has none.
    ///
    /// # Errors
    /// When the file cannot be read or its entry makes no sense.
    pub fn from_file(path: &Path, registry: &str) -> Result<Option<Self>> {
        let mut text = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(limits::AUTH_FILE_BYTES_MAX).read_to_end(&mut text))
            .map_err(|e| ImageError::io("reading", path, e))?;
        let bad =
            |detail: String| ImageError::Settings { what: format!("registry auth file {}", path.display()), detail };
        let file: File = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        let Some((_, entry)) = file.auths.into_iter().find(|(key, _)| same_registry(key, registry)) else {
            return Ok(None);
        };
        if let (Some(user), Some(password)) = (entry.username, entry.password) {
            return Ok(Some(Self { user, password }));
        }
        let Some(auth) = entry.auth.filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim());
        let pair = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = pair
            .as_deref()
            .and_then(|pair| pair.split_once(':'))
            .ok_or_else(|| bad(format!("the entry for {registry} is not base64 of USER:PASSWORD")))?;
        Ok(Some(Self { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() }))
    }

    /// The value of an `Authorization` header (RFC 7617).
    pub(super) fn basic(&self) -> String {
        let pair = format!("{}:{}", self.user, self.password);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }
}

/// Whether a key of the file stands for a registry: a host, possibly as a URL.
fn same_registry(key: &str, registry: &str) -> bool {
    let host = key.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    let docker = |host: &str| matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    host == registry || (docker(host) && docker(registry))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn entries_are_found_as_docker_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnc="},"r.example:5000":{"username":"a","password":"b"},
            "empty.example":{}, "bad.example":{"auth":"%%%"}},"credsStore":"x"}"#;
        std::fs::write(&path, text).unwrap();
        let read = |registry| Credentials::from_file(&path, registry);
        assert_eq!(read("docker.io").unwrap(), Some(Credentials { user: "u".into(), password: "p:w".into() }));
        assert_eq!(read("r.example:5000").unwrap().unwrap().basic(), "Basic YTpi");
        assert_eq!(read("r.example").unwrap(), None);
        assert_eq!(read("empty.example").unwrap(), None);
        assert_eq!(read("bad.example").unwrap_err().reason(), "InvalidSettings");
    }
}
