//! Who one is: the material one proves it with, and what is read from a peer's certificate.

use crate::error::{TransportError, material};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{fmt, net::SocketAddr};

/// The name in the controller's certificate.
pub const CONTROLLER_SERVER_NAME: &str = "controller.strata";

/// The name in a node's certificate.
#[must_use]
pub fn node_server_name(node: &str) -> String {
    format!("{node}.node.strata")
}

/// What a certificate entitles to; the subject's O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// People with all rights.
    Admin,
    /// An agent; the certificate's CN is its node's name.
    Node,
    /// The controller.
    Controller,
}

impl Role {
    /// The subject's O: `strata:node`.
    #[must_use]
    pub fn organization(self) -> &'static str {
        match self {
            Self::Admin => "strata:admin",
            Self::Node => "strata:node",
            Self::Controller => "strata:controller",
        }
    }

    /// The word for messages: "node".
    #[must_use]
    pub fn word(self) -> &'static str {
        self.organization().trim_start_matches("strata:")
    }

    fn of_organization(text: &str) -> Option<Self> {
        [Self::Admin, Self::Node, Self::Controller].into_iter().find(|role| role.organization() == text)
    }
}

/// Who a verified certificate belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// Its role.
    pub role: Role,
    /// Its name; of a node the node's name.
    pub name: String,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.role.word(), self.name)
    }
}

impl PeerIdentity {
    /// Reads role and name from a certificate that has been verified.
    ///
    /// # Errors
    /// If the certificate is malformed or its subject names no role of Strata.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, TransportError> {
        const WHAT: &str = "the peer's certificate";
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|e| material(WHAT, e))?;
        let subject = parsed.subject();
        let organization = only(subject.iter_organization().filter_map(|a| a.as_str().ok()));
        let name = only(subject.iter_common_name().filter_map(|a| a.as_str().ok()));
        match (organization.and_then(Role::of_organization), name) {
            (Some(role), Some(name)) => Ok(Self { role, name: name.to_owned() }),
            _ => Err(material(WHAT, format!("its subject ({subject}) names no role and name of Strata"))),
        }
    }
}

/// The one value of an attribute; none if it stands there twice, so that nobody reads another one than this does.
fn only<'a>(mut values: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = values.next();
    if values.next().is_none() { first } else { None }
}

/// The other end of a connection: the connect info of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is; `None` if it showed no certificate.
    pub identity: Option<PeerIdentity>,
    /// Where it connects from.
    pub address: SocketAddr,
}

/// What one side of a connection proves itself with, and whom it trusts. All PEM.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The own certificate. "" in a client that has none.
    pub cert_pem: String,
    /// Its private key (PKCS #8). "" in a client that has none.
    pub key_pem: String,
    /// The cluster's CA, the only one trusted.
    pub ca_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cert_pem", &self.cert_pem)
            .field("key_pem", &"(hidden)")
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The certificate chain to show: the own certificate, then the CA, so that a joining node can compare its pin.
    pub(crate) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TransportError> {
        let mut chain = certificates("the certificate", &self.cert_pem)?;
        chain.extend(certificates("the CA certificate", &self.ca_pem)?);
        Ok(chain)
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, TransportError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|e| material("the private key", e))
    }

    pub(crate) fn roots(&self) -> Result<RootCertStore, TransportError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("the CA certificate", &self.ca_pem)? {
            roots.add(certificate).map_err(|e| material("the CA certificate", e))?;
        }
        Ok(roots)
    }
}

/// Reads one or more certificates.
pub(crate) fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| material(what, e))?;
    if found.is_empty() { Err(material(what, "it holds no PEM certificate")) } else { Ok(found) }
}
