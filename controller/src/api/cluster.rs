//! Everything that is not an object: relayed streams, tokens, facts about the cluster.

use super::{ApiState, Refusal, act, limits, locate, relay, tokens, undo, view::BoxStream};
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
    type BuildImageStream = BoxStream<strata_proto::node::BuildProgress>;
    type DiffStream = BoxStream<strata_proto::node::DiffResponse>;
    type CopyOutStream = BoxStream<strata_proto::node::DataChunk>;
    type ExportImagesStream = BoxStream<strata_proto::node::DataChunk>;
    type PushImageStream = BoxStream<strata_proto::node::PushProgress>;
    type PortForwardStream = BoxStream<strata_proto::node::DataChunk>;
    type BackupStream = BoxStream<strata_proto::node::DataChunk>;

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

    async fn build_image(
        &self,
        request: Request<Streaming<strata_proto::cluster::BuildRequest>>,
    ) -> Result<Response<Self::BuildImageStream>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(relay::build(&self.0, request.into_inner()).await?))
    }

    async fn commit(
        &self,
        request: Request<strata_proto::cluster::CommitRequest>,
    ) -> Result<Response<strata_proto::cluster::CommitResponse>, Status> {
        require(&request, &[Role::Admin])?;
        relay::commit(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn diff(
        &self,
        request: Request<strata_proto::cluster::PodRequest>,
    ) -> Result<Response<Self::DiffStream>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(relay::diff(&self.0, request.into_inner()).await?))
    }

    async fn copy_out(
        &self,
        request: Request<strata_proto::cluster::CopyOutRequest>,
    ) -> Result<Response<Self::CopyOutStream>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(relay::copy_out(&self.0, request.into_inner()).await?))
    }

    async fn copy_in(
        &self,
        request: Request<Streaming<strata_proto::cluster::CopyInRequest>>,
    ) -> Result<Response<strata_proto::node::CopyInResponse>, Status> {
        require(&request, &[Role::Admin])?;
        relay::copy_in(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn tag_image(
        &self,
        request: Request<strata_proto::cluster::TagImageRequest>,
    ) -> Result<Response<strata_proto::cluster::TagImageResponse>, Status> {
        require(&request, &[Role::Admin])?;
        relay::tag(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn export_images(
        &self,
        request: Request<strata_proto::cluster::ExportImagesRequest>,
    ) -> Result<Response<Self::ExportImagesStream>, Status> {
        require(&request, &[Role::Admin])?;
        relay::export(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn push_image(
        &self,
        request: Request<strata_proto::cluster::PushImageRequest>,
    ) -> Result<Response<Self::PushImageStream>, Status> {
        require(&request, &[Role::Admin])?;
        relay::push(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn image_history(
        &self,
        request: Request<strata_proto::cluster::ImageHistoryRequest>,
    ) -> Result<Response<strata_proto::node::ImageHistoryResponse>, Status> {
        require(&request, &[Role::Admin])?;
        relay::history(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn prune_images(
        &self,
        request: Request<strata_proto::cluster::PruneImagesRequest>,
    ) -> Result<Response<strata_proto::cluster::PruneImagesResponse>, Status> {
        require(&request, &[Role::Admin])?;
        relay::prune(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn act(
        &self,
        request: Request<strata_proto::cluster::ActRequest>,
    ) -> Result<Response<strata_proto::cluster::ActResponse>, Status> {
        require(&request, &[Role::Admin])?;
        act::act(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn stats(
        &self,
        request: Request<strata_proto::cluster::StatsRequest>,
    ) -> Result<Response<strata_proto::cluster::StatsResponse>, Status> {
        require(&request, &[Role::Admin])?;
        relay::stats(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<strata_proto::cluster::PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(relay::forward(&self.0, request.into_inner()).await?))
    }

    async fn backup(
        &self,
        request: Request<strata_proto::cluster::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(super::backup::backup(&self.0)?))
    }

    async fn undo(
        &self,
        request: Request<strata_proto::cluster::UndoRequest>,
    ) -> Result<Response<strata_proto::cluster::ApplyResponse>, Status> {
        require(&request, &[Role::Admin])?;
        Ok(Response::new(undo::undo(&self.0, request.into_inner(), "").await?))
    }
}
