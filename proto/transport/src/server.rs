//! Accepting connections: an accept loop of its own, so that a client that dawdles over its handshake holds up nobody.

mod connection;

use crate::{Identity, Peer, PeerIdentity, TransportError, client, error::material, provider};
pub use connection::{Connection, Incoming};
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

/// Handshakes that compute at the same time.
pub const HANDSHAKES_MAX: usize = 64;
/// Connections that may wait for their handshake or be in it; beyond that new ones are closed at once.
pub const PENDING_MAX: usize = 1024;
/// The longest time from the accepted connection to the end of its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Finished connections that wait to be taken by the server.
pub const ACCEPTED_MAX: usize = 64;
/// How long the loop rests when the system refuses a connection, as when it is out of descriptors.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Streams of one connection.
pub const STREAMS_MAX: u32 = 1024;

/// Whether clients must show a certificate. One that is shown is always verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCerts {
    /// They may (the controller, for Join): without one they are anonymous.
    Optional,
    /// They must.
    Required,
}

/// Accepts connections until `shutdown` ends or the returned stream is dropped; give the stream to tonic's `serve_with_incoming_shutdown`.
///
/// # Errors
/// If the identity is not usable.
pub fn serve(
    listener: TcpListener,
    identity: &Identity,
    client_certs: ClientCerts,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Incoming, TransportError> {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(identity, client_certs)?));
    let (accepted, incoming) = mpsc::channel(ACCEPTED_MAX);
    tokio::spawn(accept(listener, acceptor, accepted, shutdown));
    Ok(Incoming::new(incoming))
}

/// Sets the bounds and the keepalive that every server of Strata has.
#[must_use]
pub fn tune_server<L>(server: tonic::transport::Server<L>) -> tonic::transport::Server<L> {
    server
        .http2_keepalive_interval(Some(client::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(client::KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(client::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(client::CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(client::HEADER_LIST_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
}

fn server_config(identity: &Identity, client_certs: ClientCerts) -> Result<ServerConfig, TransportError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(identity.roots()?), provider());
    let verifier = match client_certs {
        ClientCerts::Optional => verifier.allow_unauthenticated(),
        ClientCerts::Required => verifier,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| material("the TLS configuration", e))?
        .with_client_cert_verifier(verifier.build().map_err(|e| material("the CA certificate", e))?)
        .with_single_cert(identity.chain()?, identity.key()?)
        .map_err(|e| material("the pair of certificate and key", e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: every connection shows and checks its certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<Connection>,
    shutdown: impl Future<Output = ()>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let pending = Arc::new(Semaphore::new(PENDING_MAX));
    tokio::pin!(shutdown);
    loop {
        let next = tokio::select! {
            () = &mut shutdown => return,
            () = accepted.closed() => return,
            next = listener.accept() => next,
        };
        let (tcp, address) = match next {
            Ok(next) => next,
            Err(error) => {
                warn!(%error, "cannot accept a connection; trying again");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let Ok(slot) = pending.clone().try_acquire_owned() else {
            debug!(%address, "connection closed: {PENDING_MAX} others are waiting for their handshake");
            continue;
        };
        let (acceptor, accepted, handshakes) = (acceptor.clone(), accepted.clone(), handshakes.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE_TIMEOUT, handshake(tcp, address, &acceptor, &handshakes)).await {
                Ok(Ok(connection)) => {
                    drop(slot);
                    if accepted.send(connection).await.is_err() {
                        debug!(%address, "connection closed: the server is shutting down");
                    }
                }
                Ok(Err(error)) => debug!(%address, error, "connection refused"),
                Err(_) => debug!(%address, "connection closed: no handshake within {HANDSHAKE_TIMEOUT:?}"),
            }
        });
    }
}

async fn handshake(
    tcp: TcpStream,
    address: SocketAddr,
    acceptor: &TlsAcceptor,
    handshakes: &Semaphore,
) -> Result<Connection, String> {
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    // A silent client takes no handshake's place: it waits here, among the many.
    tcp.peek(&mut [0]).await.map_err(|e| e.to_string())?;
    let _computing = handshakes.acquire().await.map_err(|e| e.to_string())?;
    let tls = acceptor.accept(tcp).await.map_err(|e| client::describe(&e))?;
    let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = certificate.map(PeerIdentity::of_certificate).transpose().map_err(|e| e.to_string())?;
    Ok(Connection::new(tls, Peer { identity, address }))
}
