//! A client for registries that speak the OCI distribution specification (v1.1) or Docker's registry API v2.
//!
//! Plain HTTP is spoken only with hosts that the settings declare insecure (`localhost` is none of them by itself);
//! credentials go to the registry they belong to and to the token server it names, never along a redirect to another host.

mod auth;
mod credentials;
mod http;
mod resolve;
mod source;
mod upload;

pub use credentials::Credentials;
pub use resolve::Resolved;
pub use source::RegistrySource;
pub(crate) use upload::{Content, Target};

use crate::{
    Platform,
    error::{ImageError, Result},
    limits,
};
use reqwest::{Certificate, Client, redirect};
use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex},
};
use strata_model::ImageName;

/// How to talk to registries.
#[derive(Debug, Clone, Default)]
pub struct RegistrySettings {
    /// `HOST` or `HOST:PORT` of registries that speak plain HTTP, as they stand in image names.
    pub insecure_registries: Vec<String>,
    /// A file as `docker login` writes it (only its `auths`); read anew whenever credentials are needed.
    pub auth_file: Option<PathBuf>,
    /// PEM files of authorities to trust beside the system's.
    pub ca_files: Vec<PathBuf>,
}

/// The client; cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: Client,
    insecure: BTreeSet<String>,
    auth_file: Option<PathBuf>,
    host: Platform,
    /// `Authorization` values by host and repository.
    authorizations: Mutex<HashMap<(String, String), auth::Authorization>>,
}

/// One repository of one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Repository {
    /// As it stands in image names.
    registry: String,
    /// `https://registry-1.docker.io`
    base: String,
    path: String,
}

impl Registry {
    /// Makes a client.
    ///
    /// # Errors
    /// When a CA file cannot be used.
    pub fn new(settings: &RegistrySettings) -> Result<Self> {
        // The first provider that a process installs stays, so a second attempt is no fault.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let mut certificates = Vec::new();
        for path in &settings.ca_files {
            let what = || format!("registry CA file {}", path.display());
            let pem = std::fs::read(path).map_err(|e| ImageError::io("reading", path, e))?;
            let found = Certificate::from_pem_bundle(&pem)
                .map_err(|e| ImageError::Settings { what: what(), detail: e.to_string() })?;
            if found.is_empty() {
                return Err(ImageError::Settings { what: what(), detail: "it holds no PEM certificate".into() });
            }
            certificates.extend(found);
        }
        let http = Client::builder()
            .user_agent(concat!("strata/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(limits::CONNECT_TIMEOUT)
            .pool_max_idle_per_host(limits::DOWNLOADS_MAX)
            .tls_certs_merge(certificates)
            .build()
            .map_err(|e| ImageError::Settings { what: "TLS for registries".into(), detail: http::chain(&e) })?;
        Ok(Self(Arc::new(Inner {
            http,
            insecure: settings.insecure_registries.iter().cloned().collect(),
            auth_file: settings.auth_file.clone(),
            host: Platform::host(),
            authorizations: Mutex::default(),
        })))
    }

    /// The registry of an image as a source of its blobs.
    #[must_use]
    pub fn source(&self, image: &ImageName) -> RegistrySource {
        RegistrySource::new(self.clone(), self.repository(image))
    }

    fn repository(&self, image: &ImageName) -> Repository {
        let registry = image.registry().to_owned();
        let scheme = if self.0.insecure.contains(&registry) { "http" } else { "https" };
        // Docker's registry does not answer under the name that its images carry.
        let host = match registry.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            host => host,
        };
        Repository { base: format!("{scheme}://{host}"), registry, path: image.repository().to_owned() }
    }
}

impl Repository {
    /// As it is named in logs and errors.
    fn name(&self) -> String {
        format!("registry {}", self.registry)
    }
}
