//! Mutual-TLS channels and servers, certificates and join tokens: how the processes of a cluster know whom they talk to.
//!
//! Flows in: a TCP listener or an address, and an [`Identity`]. Flows out: a stream of accepted connections for tonic's
//! `serve_with_incoming`, each with its [`Peer`] as connect info, or a tonic `Channel`.
//!
//! Not here: any message or service, storage of tokens, renewal of certificates.
//!
//! Invariants:
//! - One crypto provider, aws-lc-rs ([`install_crypto`]); TLS 1.3 and 1.2 with certificates checked in every handshake: no session is resumed.
//! - Who a peer is comes from its verified certificate and from nothing else: subject O is the role, CN the name.
//! - Servers are verified by name, never by address: `controller.strata`, `<node>.node.strata`.
//! - A connection that does not finish its handshake in time is closed, and the number of unfinished ones is bounded.

pub mod authorize;
pub mod client;
mod error;
mod identity;
pub mod pki;
pub mod server;
pub mod token;

pub use authorize::{peer_identity, require};
pub use error::TransportError;
pub use identity::{CONTROLLER_SERVER_NAME, Identity, Peer, PeerIdentity, Role, node_server_name};

/// Makes aws-lc-rs the one crypto provider of the process. Call it first in `main`; calling it again does nothing.
pub fn install_crypto() {
    // An error only says that a provider is installed already; there is no other one in the build.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

pub(crate) fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
