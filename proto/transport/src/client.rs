//! Channels to a server whose name is known, whatever its address.
//!
//! A channel connects, and reconnects, through one connector: TCP, TLS, then it waits for the server's first bytes (HTTP/2 servers speak first).
//! Under TLS 1.3 a server's refusal of a certificate arrives only then; waiting for it turns "connection closed" into the reason.

mod connector;
mod pin;

use crate::{CONTROLLER_SERVER_NAME, Identity, TransportError, error::material, provider};
use connector::Connector;
use rustls::{
    ClientConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::ServerName,
};
use std::{sync::Arc, time::Duration};
use tonic::transport::{Channel, Endpoint};

/// The longest time for TCP, TLS and the server's first bytes together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is probed (HTTP/2 ping).
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a probe may stay unanswered before the connection is given up.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Flow-control window of one stream, bytes.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Flow-control window of one connection, bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of headers of one answer.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;

/// Connects to `address` (`host:port`) and verifies that it is `server_name`. An identity without certificate connects as nobody.
///
/// # Errors
/// Says whether nobody answered, the server is not who it should be, or it refused this identity.
pub async fn channel(address: &str, identity: &Identity, server_name: &str) -> Result<Channel, TransportError> {
    connect(address, Connector::new(address, &client_config(identity)?, server_name)?).await
}

/// As [`channel`], but connects with the first call.
///
/// # Errors
/// If address, name or identity are malformed.
pub fn channel_lazy(address: &str, identity: &Identity, server_name: &str) -> Result<Channel, TransportError> {
    let connector = Connector::new(address, &client_config(identity)?, server_name)?;
    Ok(endpoint(address)?.connect_with_connector_lazy(connector))
}

/// Connects to a controller that is known only by the fingerprint of its CA (from a join token), without a client certificate.
///
/// # Errors
/// As [`channel`]; in particular if the CA is another one.
pub async fn channel_pinned(address: &str, ca_fingerprint: &str) -> Result<Channel, TransportError> {
    let verifier = Arc::new(pin::PinnedCa::new(ca_fingerprint));
    let config = with_verifier(verifier)?.with_no_client_auth();
    connect(address, Connector::new(address, &finish(config), CONTROLLER_SERVER_NAME)?).await
}

async fn connect(address: &str, connector: Connector) -> Result<Channel, TransportError> {
    endpoint(address)?.connect_with_connector(connector).await.map_err(|error| match TransportError::find(&error) {
        Some(found) => found.clone(),
        None => TransportError::Tls { address: address.to_owned(), why: describe(&error) },
    })
}

/// The text of an error and of everything below it.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

fn endpoint(address: &str) -> Result<Endpoint, TransportError> {
    let bad = || TransportError::Address { address: address.to_owned() };
    if address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        return Err(bad());
    }
    // The scheme is "http" because the connector brings TLS along; nothing is ever sent in clear.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
    Ok(endpoint
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX))
}

fn client_config(identity: &Identity) -> Result<ClientConfig, TransportError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(identity.roots()?), provider())
        .build()
        .map_err(|e| material("the CA certificate", e))?;
    let config = with_verifier(verifier)?;
    let config = if identity.cert_pem.is_empty() && identity.key_pem.is_empty() {
        config.with_no_client_auth()
    } else {
        config
            .with_client_auth_cert(identity.chain()?, identity.key()?)
            .map_err(|e| material("the pair of certificate and key", e))?
    };
    Ok(finish(config))
}

type NeedsClientAuth = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn with_verifier(verifier: Arc<dyn ServerCertVerifier>) -> Result<NeedsClientAuth, TransportError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| material("the TLS configuration", e))?;
    // "dangerous" is the API's name for any verifier passed by hand; this one verifies chain, name and dates.
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

fn parse_server_name(name: &str) -> Result<ServerName<'static>, TransportError> {
    ServerName::try_from(name.to_owned()).map_err(|_| material("the server name", format!("{name:?} is no DNS name")))
}
