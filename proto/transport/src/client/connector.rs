//! TCP, TLS and the wait for the server's first bytes, as one tower service.

use super::{CONNECT_TIMEOUT, parse_server_name};
use crate::TransportError;
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError, ClientConfig, pki_types::ServerName};
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{io::AsyncBufReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::Uri;

/// Makes connections to one server.
#[derive(Clone)]
pub(super) struct Connector {
    address: String,
    server_name: ServerName<'static>,
    tls: TlsConnector,
}

impl Connector {
    pub(super) fn new(address: &str, config: &ClientConfig, server_name: &str) -> Result<Self, TransportError> {
        Ok(Self {
            address: address.to_owned(),
            server_name: parse_server_name(server_name)?,
            tls: TlsConnector::from(Arc::new(config.clone())),
        })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, TransportError> {
        let address = || self.address.clone();
        let attempt = async {
            let tcp = TcpStream::connect(&self.address)
                .await
                .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
                .map_err(|source| TransportError::Connect { address: address(), source: source.into() })?;
            let mut tls =
                self.tls.connect(self.server_name.clone(), tcp).await.map_err(|error| self.explain(&error))?;
            let first = tls.fill_buf().await.map_err(|error| self.explain(&error))?;
            if first.is_empty() {
                let why = "it closed the connection without a word; it may be shutting down".into();
                return Err(TransportError::Tls { address: address(), why });
            }
            Ok(tls)
        };
        match timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(TransportError::ConnectTimeout { address: address(), seconds: CONNECT_TIMEOUT.as_secs() }),
        }
    }

    fn explain(&self, error: &io::Error) -> TransportError {
        let address = self.address.clone();
        let expected = || format!("{:?}", self.server_name.to_str());
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(wrong)) => {
                TransportError::UnverifiedServer { address, expected: expected(), why: explain_certificate(wrong) }
            }
            Some(rustls::Error::AlertReceived(alert)) => match explain_alert(*alert) {
                Some(why) => TransportError::RefusedByServer { address, why: why.into() },
                None => TransportError::Tls { address, why: error.to_string() },
            },
            _ => TransportError::Tls { address, why: error.to_string() },
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, TransportError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.connect().await.map(TokioIo::new) })
    }
}

fn explain_certificate(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate comes from another CA: check that address and context belong to the same cluster".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: restart it to renew it, and check the clocks of both machines".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: check the clocks of both machines".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for another name ({wrong}): check the address")
        }
        CertificateError::Other(other) => other.0.to_string(),
        other => other.to_string(),
    }
}

/// The alerts of RFC 8446, 6.2 by which a server says no to a client's certificate.
fn explain_alert(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::CertificateRequired => {
            Some("it wants one, and none was shown: use a context that has a certificate")
        }
        AlertDescription::CertificateExpired => {
            Some("it has expired: get a new one, and check the clocks of both machines")
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            Some("it comes from another CA: check that address and context belong to the same cluster")
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            Some("it is malformed or not valid (yet): get a new one, and check the clocks of both machines")
        }
        AlertDescription::CertificateRevoked | AlertDescription::AccessDenied => {
            Some("it has lost its rights: get a new one")
        }
        _ => None,
    }
}
