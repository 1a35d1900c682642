//! Join: a token proves the right to a certificate that is bound to the node's name.

use super::{ApiState, Refusal, tokens};
use std::sync::Arc;
use strata_model::check_name;
use strata_proto::{
    cluster::{JoinRequest, JoinResponse, join_server::Join},
    types::{Kind, node_status::Phase, object},
};
use strata_store::Key;
use strata_transport::{Role, pki::NAME_CHARS_MAX};
use tonic::{Code, Request, Response, Status};

pub(super) struct JoinService(pub Arc<ApiState>);

#[tonic::async_trait]
impl Join for JoinService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let _permit = self.0.joins.try_acquire().map_err(|_| Refusal::overloaded("joins"))?;
        let from = request.remote_addr();
        let request = request.into_inner();
        let node = request.node.clone();
        match join(&self.0, request).await {
            Ok(response) => {
                tracing::info!(node, "a node joined");
                Ok(Response::new(response))
            }
            Err(refusal) => {
                tracing::warn!(node, ?from, reason = refusal.reason, "a join was refused");
                Err(refusal.into())
            }
        }
    }
}

/// Checks the token first, so that nobody without one learns anything; its use is taken last, so that a bad request costs none.
async fn join(state: &ApiState, request: JoinRequest) -> Result<JoinResponse, Refusal> {
    tokens::verify(state, &request.token_id, &request.secret)?;
    check_name("node name", &request.node).map_err(|e| Refusal::invalid(e.to_string()))?;
    if request.node.len() > NAME_CHARS_MAX {
        return Err(Refusal::invalid(format!("node name: at most {NAME_CHARS_MAX} characters")));
    }
    // A node that is not connected may join again under its name: it has lost its identity, as after a reinstallation.
    let present = state.store.snapshot().get(&Key::new(Kind::Node, "", &request.node));
    if let Some(object::Kind::Node(node)) = present.as_ref().and_then(|o| o.kind.as_ref())
        && node.status.as_ref().is_some_and(|s| s.phase() == Phase::Ready)
    {
        return Err(Refusal::new(
            Code::AlreadyExists,
            "NameTaken",
            format!(
                "a node named {} is connected: choose another name, or stop that agent and wait until it is Unknown",
                request.node
            ),
        ));
    }
    let ca = state.pki.ca();
    let certificate_pem = ca
        .sign_csr(Role::Node, &request.node, &request.csr_pem)
        .map_err(|e| Refusal::invalid(format!("csr_pem: {e}")))?;
    tokens::redeem(state, &request.token_id, &request.secret).await?;
    Ok(JoinResponse { certificate_pem, ca_pem: ca.cert_pem().to_owned() })
}
