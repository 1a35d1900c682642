//! The cluster's certificates: a CA made on first start, the controller's identity, the administrator's context.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use strata_transport::{
    Identity, Role, TransportError,
    pki::{CERTIFICATE_VALIDITY, Ca, write_private},
};

/// The name in the controller's certificate.
const CONTROLLER: &str = "controller";
/// The name in the first administrator's certificate.
const ADMIN: &str = "admin";
/// The name of the context that `ctl` finds.
const CONTEXT: &str = "default";
/// The administrator's context: a configuration for `ctl`.
const ADMIN_FILE: &str = "admin.toml";

/// The cluster's CA and what is made with it.
pub struct Pki {
    ca: Ca,
    fingerprint: String,
}

impl Pki {
    /// Loads the CA from `<state_dir>/pki`, making it on the first start.
    ///
    /// # Errors
    /// If files cannot be read or written, or there is no randomness.
    pub fn open(state_dir: &Path) -> Result<Self, TransportError> {
        let dir = state_dir.join("pki");
        let ca = if Ca::exists(&dir) {
            Ca::load(&dir)?
        } else {
            let ca = Ca::create()?;
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|source| TransportError::File {
                action: "write",
                path: dir.clone(),
                source: Arc::new(source),
            })?;
            ca.save(&dir)?;
            ca
        };
        Self::of(ca)
    }

    /// Around a CA that exists.
    ///
    /// # Errors
    /// If its certificate is malformed.
    pub fn of(ca: Ca) -> Result<Self, TransportError> {
        Ok(Self { fingerprint: ca.fingerprint()?, ca })
    }

    /// The CA.
    #[must_use]
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// Hex SHA-256 of the CA's certificate.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Names the cluster: the first 16 digits of the fingerprint.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        self.fingerprint.get(..16).unwrap_or(&self.fingerprint)
    }

    /// A new certificate for the controller, as server and as client of the nodes. Valid for 30 days: make a new one on each start.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn controller_identity(&self) -> Result<Identity, TransportError> {
        self.ca.issue(Role::Controller, CONTROLLER)
    }

    /// Writes `<state_dir>/admin.toml` for this endpoint (`host:port`) if it is missing, names another endpoint or is past half of its certificate's life.
    /// Returns its path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn ensure_admin_context(&self, state_dir: &Path, endpoint: &str) -> Result<PathBuf, TransportError> {
        let path = state_dir.join(ADMIN_FILE);
        let is_fresh = std::fs::metadata(&path)
            .and_then(|m| m.modified())
            .is_ok_and(|at| SystemTime::now().duration_since(at).unwrap_or(Duration::ZERO) < CERTIFICATE_VALIDITY / 2);
        let fits = std::fs::read_to_string(&path)
            .is_ok_and(|text| text.contains(&format!("{endpoint:?}")) && text.contains(self.ca.cert_pem().trim()));
        if !(is_fresh && fits) {
            write_private(&path, &context_toml(endpoint, &self.ca.issue(Role::Admin, ADMIN)?))?;
        }
        Ok(path)
    }
}

/// The configuration of `ctl` with one context.
fn context_toml(endpoint: &str, identity: &Identity) -> String {
    // PEM has no quotes and no backslashes: it needs no escaping between three quotes.
    format!(
        "current = \"{CONTEXT}\"\n\n[contexts.{CONTEXT}]\nendpoints = [{endpoint:?}]\nca = '''\n{}'''\ncert = '''\n{}'''\nkey = '''\n{}'''\n",
        identity.ca_pem, identity.cert_pem, identity.key_pem
    )
}
