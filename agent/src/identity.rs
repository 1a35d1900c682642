//! Who this node is: STATE/identity/{key,ca,cert}.pem (mode 0600), got once with a join token.
//!
//! The key is made here and never leaves; the token pins the CA before anything is believed.

use crate::session::Backoff;
use std::path::{Path, PathBuf};
use strata_proto::cluster::{JoinRequest, join_client::JoinClient};
use strata_transport::{Identity, TransportError, client, pki, token::JoinToken};
use tonic::Code;

/// The longest wait for one answer of the controller.
const JOIN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// First start without a token.
    #[error(
        "this node has not joined a cluster yet ({} is not there): set token or token_file to a join token from `ctl token create`",
        path.display()
    )]
    NoToken {
        /// The missing certificate.
        path: PathBuf,
    },
    /// The state directory was made for another node.
    #[error(
        "the state directory belongs to node {found:?}, but the settings say {wanted:?}: set node = {found:?} or another state_dir"
    )]
    OtherNode {
        /// As in the settings.
        wanted: String,
        /// As it joined.
        found: String,
    },
    /// The controller said no.
    #[error("the controller refuses to let this node join: {message}; make a new token with `ctl token create`")]
    Refused {
        /// Its words.
        message: String,
    },
    /// Certificates, keys, the connection.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A file of the identity.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Nobody there, or overloaded: worth another try.
    #[error("the controller cannot be asked yet: {0}")]
    NotNow(String),
}

impl IdentityError {
    fn passes(&self) -> bool {
        matches!(
            self,
            Self::NotNow(_) | Self::Transport(TransportError::Connect { .. } | TransportError::ConnectTimeout { .. })
        )
    }
}

/// The error of a first start without a token.
#[must_use]
pub fn no_token(state_dir: &Path) -> IdentityError {
    IdentityError::NoToken { path: state_dir.join("identity/cert.pem") }
}

/// The identity that this state directory holds, if the node has joined.
///
/// # Errors
/// [`IdentityError`] if it belongs to another node or cannot be read.
pub fn load(state_dir: &Path, node: &str) -> Result<Option<Identity>, IdentityError> {
    let dir = state_dir.join("identity");
    if !dir.join("cert.pem").exists() {
        return Ok(None);
    }
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|source| IdentityError::File { doing: "reading", path, source })
    };
    let found = read("node")?;
    if found.trim() != node {
        return Err(IdentityError::OtherNode { wanted: node.to_owned(), found: found.trim().to_owned() });
    }
    Ok(Some(Identity { cert_pem: read("cert.pem")?, key_pem: read("key.pem")?, ca_pem: read("ca.pem")? }))
}

/// Joins: makes a key, sends a request for its certificate over a channel pinned to the token's CA, keeps the answer. Goes on
/// trying while nobody answers.
///
/// # Errors
/// [`IdentityError`] if trying again cannot help: a wrong, used or expired token, another CA, a full disk.
pub async fn join(controller: &str, node: &str, token: &str, state_dir: &Path) -> Result<Identity, IdentityError> {
    let token: JoinToken = token.parse()?;
    let mut backoff = Backoff::default();
    loop {
        match join_once(controller, node, &token, state_dir).await {
            Err(e) if e.passes() => {
                tracing::warn!(controller, "not joined yet: {e}");
                tokio::time::sleep(backoff.next_wait()).await;
            }
            other => return other,
        }
    }
}

async fn join_once(
    controller: &str,
    node: &str,
    token: &JoinToken,
    state_dir: &Path,
) -> Result<Identity, IdentityError> {
    let channel = client::channel_pinned(controller, &token.ca_fingerprint).await?;
    let key = pki::KeyPair::generate()?;
    let mut request = tonic::Request::new(JoinRequest {
        token_id: token.id.clone(),
        secret: token.secret.clone(),
        node: node.to_owned(),
        csr_pem: key.csr_pem(node)?,
    });
    request.set_timeout(JOIN_TIMEOUT);
    let answer = JoinClient::new(channel).join(request).await.map_err(|status| match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Unknown => IdentityError::NotNow(status.message().to_owned()),
        _ => IdentityError::Refused { message: status.message().to_owned() },
    })?;
    let answer = answer.into_inner();
    let identity = Identity { cert_pem: answer.certificate_pem, key_pem: key.pem(), ca_pem: answer.ca_pem };
    save(state_dir, node, &identity)?;
    tracing::info!(node, controller, "joined the cluster");
    Ok(identity)
}

/// The certificate last: a directory that has it is complete.
fn save(state_dir: &Path, node: &str, identity: &Identity) -> Result<(), IdentityError> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = state_dir.join("identity");
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(|source| IdentityError::File { doing: "making", path: dir.clone(), source })?;
    pki::write_private(&dir.join("node"), node)?;
    pki::write_private(&dir.join("key.pem"), &identity.key_pem)?;
    pki::write_private(&dir.join("ca.pem"), &identity.ca_pem)?;
    pki::write_private(&dir.join("cert.pem"), &identity.cert_pem)?;
    Ok(())
}
