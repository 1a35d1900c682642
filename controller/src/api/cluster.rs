//! Everything that is not an object: relayed streams, tokens, facts about the cluster.

use super::{ApiState, Refusal, limits, locate, relay, tokens, view::BoxStream};
use std::sync::Arc;
use strata_proto::{
    API_LEVEL,
    cluster::{
        CreateTokenRequest, CreateTokenResponse, ExecRequest, ImportResponse, InfoRequest, InfoResponse, LocateRequest,
        LocateResponse, LogsRequest, PullRequest, cluster_server::Cluster,
    },
    node::{ExecOutput, ImportChunk, LogChunk, PullProgress},
};
use strata_store::{Change, Condition};
use strata_transport::{Role, require};
use tonic::{Code, Request, Response, Status, Streaming};

pub(super) struct ClusterService(pub Arc<ApiState>);

#[tonic::async_trait]
impl Cluster for ClusterService {
    type LogsStream = BoxStream<LogChunk>;
    type ExecStream = BoxStream<ExecOutput>;
    type PullImageStream = BoxStream<PullProgress>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(relay::logs(&self.0, request.into_inner()).await?))
    }

    async fn exec(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(relay::exec(&self.0, request.into_inner()).await?))
    }

    async fn import_image(&self, request: Request<Streaming<ImportChunk>>) -> Result<Response<ImportResponse>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(relay::import(&self.0, request.into_inner()).await?))
    }

    async fn pull_image(&self, request: Request<PullRequest>) -> Result<Response<Self::PullImageStream>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(relay::pull(&self.0, request.into_inner())?))
    }

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(InfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_level: API_LEVEL,
            cluster_id: self.0.pki.cluster_id().to_owned(),
            revision: self.0.store.snapshot().revision(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        require(&request, &[Role::Admin])?;
        let request = request.into_inner();
        let ttl_s = if request.ttl_s == 0 { limits::TOKEN_TTL_DEFAULT_S } else { request.ttl_s };
        if ttl_s > limits::TOKEN_TTL_MAX_S {
            return Err(Refusal::invalid(format!("ttl_s: at most {} seconds", limits::TOKEN_TTL_MAX_S)).into());
        }
        let (token, object) = tokens::create(&self.0.pki, ttl_s, request.uses)
            .map_err(|e| Refusal::new(Code::Internal, "TokenNotMade", e.to_string()))?;
        self.0.commit(vec![Change::put(object, Condition::Absent)]).await.map_err(Refusal::from)?;
        Ok(Response::new(CreateTokenResponse { token: token.to_string() }))
    }

    async fn locate(&self, request: Request<LocateRequest>) -> Result<Response<LocateResponse>, Status> {
        let peer = require(&request, &[Role::Node, Role::Admin])?;
        let asking = if peer.role == Role::Node { peer.name.as_str() } else { "" };
        Ok(Response::new(locate::locate(&self.0.store.snapshot(), request.get_ref(), asking)?))
    }
}
