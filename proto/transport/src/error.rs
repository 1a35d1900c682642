//! What goes wrong between two processes before they can talk.

use std::{io, path::PathBuf, sync::Arc};

/// Why an identity, a token or a connection is no good.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// A file of certificates or keys could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A certificate, key or request is malformed or could not be made.
    #[error("{what} is not usable: {why}")]
    Material {
        /// As in "the CA certificate".
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A text is no join token.
    #[error("this is not a join token ({why}): make one with `ctl token create` and pass it whole")]
    Token {
        /// What is wrong with it.
        why: &'static str,
    },
    /// An address is not `host:port`.
    #[error("address {address:?} is not valid: HOST:PORT is expected, as in 192.0.2.1:7443")]
    Address {
        /// As it was given.
        address: String,
    },
    /// Nobody answers at the address.
    #[error("cannot connect to {address}: {source}; check that it is running there and that no firewall is between")]
    Connect {
        /// `host:port`.
        address: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Connecting took longer than [`crate::client::CONNECT_TIMEOUT`].
    #[error("{address} did not answer within {seconds} s; check the address and the network")]
    ConnectTimeout {
        /// `host:port`.
        address: String,
        /// The bound.
        seconds: u64,
    },
    /// The server could not be verified: wrong CA, wrong name, expired.
    #[error("{address} is not who it should be ({expected}): {why}")]
    UnverifiedServer {
        /// `host:port`.
        address: String,
        /// The server name, or the pinned CA.
        expected: String,
        /// What is wrong with its certificate, and what to do.
        why: String,
    },
    /// The server refused this side's certificate, or wants one.
    #[error("{address} does not accept this client's certificate: {why}")]
    RefusedByServer {
        /// `host:port`.
        address: String,
        /// Why, and what to do.
        why: String,
    },
    /// Something else in TLS went wrong.
    #[error("no TLS connection to {address}: {why}")]
    Tls {
        /// `host:port`.
        address: String,
        /// What TLS said.
        why: String,
    },
}

impl TransportError {
    /// Whether the two sides disagree about certificates: trying again does not help, getting another certificate does.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::RefusedByServer { .. })
    }

    /// Finds the transport's own error below a tonic error or status, if that is where it came from.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

pub(crate) fn material(what: &'static str, why: impl std::fmt::Display) -> TransportError {
    TransportError::Material { what, why: why.to_string() }
}
