//! Who may call what: roles required by handlers and services.

use crate::{Peer, PeerIdentity, Role};
use tonic::{Request, Status, service::Interceptor};

/// Who sent a request, by its certificate; `None` without one.
pub fn peer_identity<T>(request: &Request<T>) -> Option<PeerIdentity> {
    request.extensions().get::<Peer>().and_then(|peer| peer.identity.clone())
}

/// Lets a request pass if its sender has one of the roles, and says who it is.
///
/// # Errors
/// `UNAUTHENTICATED` without a certificate, `PERMISSION_DENIED` with one of another role.
pub fn require<T>(request: &Request<T>, roles: &[Role]) -> Result<PeerIdentity, Status> {
    let wanted = || roles.iter().map(|role| role.word()).collect::<Vec<_>>().join(" or ");
    match peer_identity(request) {
        Some(peer) if roles.contains(&peer.role) => Ok(peer),
        Some(peer) => Err(Status::permission_denied(format!(
            "this call needs a certificate of role {}, and this is {peer}: use a context with that role",
            wanted()
        ))),
        None => Err(Status::unauthenticated(format!(
            "this call needs a certificate of role {}, and none was shown: use a context with a certificate",
            wanted()
        ))),
    }
}

/// Checks every request of a service: `ObjectsServer::with_interceptor(service, RequireRole(&[Role::Admin]))`.
#[derive(Debug, Clone, Copy)]
pub struct RequireRole(
    /// The roles that may pass.
    pub &'static [Role],
);

impl Interceptor for RequireRole {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        require(&request, self.0)?;
        Ok(request)
    }
}
