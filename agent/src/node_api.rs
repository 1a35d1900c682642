//! What the controller asks of this node for people: logs, exec, images. Mutual TLS, controller identity only; the peer API is
//! served on the same port for the other nodes.
//!
//! Every stream has bounded queues: a reader that is slow slows the writer, nothing grows.

mod act;
mod attach;
mod build;
mod commit;
mod exec;
mod files;
mod forward;
mod image_verbs;
mod images;
mod logs;
mod stats;
mod stdio;
mod stream;

pub use build::Builds;
pub(crate) use stdio::Reader;

use crate::{node::Node, pods::Pods};
use std::{future::Future, pin::Pin, sync::Arc};
use strata_model::Uid;
use strata_peer::PeerService;
use strata_proto::node::{
    ExecInput, ExecOutput, ImportChunk, ImportResponse, LogChunk, LogsRequest, PullProgress, PullRequest,
    RemoveImageRequest, RemoveImageResponse, node_server,
};
use strata_transport::{Identity, Role, authorize::RequireRole, server};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Messages of one stream that wait for the controller.
pub const STREAM_WAITING_MAX: usize = 16;
/// Execs, logs, imports and pulls at the same time; beyond it callers are told so.
pub const STREAMS_AT_ONCE: usize = 256;

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service `strata.node.v1.Node`.
pub struct NodeApi {
    node: Arc<Node>,
    pods: Arc<Pods<Node>>,
    streams: Arc<Semaphore>,
    builds: build::Builds,
}

/// Serves the node API and the peer API until `shutdown` is there.
///
/// # Errors
/// If the identity cannot be used or the listener fails.
pub async fn serve(
    listener: TcpListener,
    identity: &Identity,
    node: Arc<Node>,
    pods: Arc<Pods<Node>>,
    builds: build::Builds,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let peer = PeerService::server(node.image_store().clone());
    let api = NodeApi { node, pods, streams: Arc::new(Semaphore::new(STREAMS_AT_ONCE)), builds };
    let api = node_server::NodeServer::with_interceptor(api, RequireRole(&[Role::Controller]));
    let incoming = server::serve(listener, identity, server::ClientCerts::Required, shutdown)?;
    server::tune_server(tonic::transport::Server::builder())
        .add_service(api)
        .add_service(peer)
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

impl NodeApi {
    fn begin(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("the node serves {STREAMS_AT_ONCE} streams already; try again later"))
        })
    }

    /// The pod of a request: known here, with a container of this name.
    fn known(&self, uid: &str, container: &str) -> Result<Uid, Status> {
        let report = self.pods.board().get(uid);
        let status = report.and_then(|r| r.status);
        let status = status.ok_or_else(|| Status::not_found(format!("pod {uid} is not on this node")))?;
        if status.containers.iter().all(|c| c.name != container) {
            return Err(Status::not_found(format!("pod {uid} has no container {container:?}")));
        }
        Ok(Uid::from_trusted(uid))
    }
}

#[tonic::async_trait]
impl node_server::Node for NodeApi {
    type LogsStream = Out<LogChunk>;
    type ExecStream = Out<ExecOutput>;
    type PullImageStream = Out<PullProgress>;
    type BuildStream = Out<strata_proto::node::BuildProgress>;
    type DiffStream = Out<strata_proto::node::DiffResponse>;
    type CopyOutStream = Out<strata_proto::node::DataChunk>;
    type ExportImageStream = Out<strata_proto::node::DataChunk>;
    type PushImageStream = Out<strata_proto::node::PushProgress>;
    type PortForwardStream = Out<strata_proto::node::DataChunk>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        self.logs_stream(request.into_inner()).map(Response::new)
    }

    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Result<Response<Self::ExecStream>, Status> {
        self.exec_stream(request.into_inner()).await.map(Response::new)
    }

    async fn import_image(&self, request: Request<Streaming<ImportChunk>>) -> Result<Response<ImportResponse>, Status> {
        self.import(request.into_inner()).await.map(Response::new)
    }

    async fn pull_image(&self, request: Request<PullRequest>) -> Result<Response<Self::PullImageStream>, Status> {
        self.pull(&request.into_inner()).map(Response::new)
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        self.remove(request.into_inner()).await.map(Response::new)
    }

    async fn build(
        &self,
        request: Request<Streaming<strata_proto::node::BuildChunk>>,
    ) -> Result<Response<Self::BuildStream>, Status> {
        self.build_image(request.into_inner()).await.map(Response::new)
    }

    async fn commit(
        &self,
        request: Request<strata_proto::node::CommitRequest>,
    ) -> Result<Response<strata_proto::node::CommitResponse>, Status> {
        self.commit_container(request.into_inner()).await.map(Response::new)
    }

    async fn diff(
        &self,
        request: Request<strata_proto::node::DiffRequest>,
    ) -> Result<Response<Self::DiffStream>, Status> {
        self.diff_stream(request.into_inner()).await.map(Response::new)
    }

    async fn copy_out(
        &self,
        request: Request<strata_proto::node::CopyOutRequest>,
    ) -> Result<Response<Self::CopyOutStream>, Status> {
        self.copy_out_stream(request.into_inner()).await.map(Response::new)
    }

    async fn copy_in(
        &self,
        request: Request<Streaming<strata_proto::node::CopyInChunk>>,
    ) -> Result<Response<strata_proto::node::CopyInResponse>, Status> {
        self.copy_in_all(request.into_inner()).await.map(Response::new)
    }

    async fn export_image(
        &self,
        request: Request<strata_proto::node::ExportImageRequest>,
    ) -> Result<Response<Self::ExportImageStream>, Status> {
        self.export_stream(&request.into_inner()).map(Response::new)
    }

    async fn push_image(
        &self,
        request: Request<strata_proto::node::PushImageRequest>,
    ) -> Result<Response<Self::PushImageStream>, Status> {
        self.push_stream(&request.into_inner()).map(Response::new)
    }

    async fn image_history(
        &self,
        request: Request<strata_proto::node::ImageHistoryRequest>,
    ) -> Result<Response<strata_proto::node::ImageHistoryResponse>, Status> {
        self.history(&request.into_inner()).map(Response::new)
    }

    async fn prune(
        &self,
        request: Request<strata_proto::node::PruneRequest>,
    ) -> Result<Response<strata_proto::node::PruneResponse>, Status> {
        self.prune_images(request.into_inner()).await.map(Response::new)
    }

    async fn signal(
        &self,
        request: Request<strata_proto::node::SignalRequest>,
    ) -> Result<Response<strata_proto::node::SignalResponse>, Status> {
        self.signal_containers(request.into_inner()).await.map(Response::new)
    }

    async fn restart(
        &self,
        request: Request<strata_proto::node::RestartRequest>,
    ) -> Result<Response<strata_proto::node::RestartResponse>, Status> {
        self.restart_containers(request.into_inner()).await.map(Response::new)
    }

    async fn stats(
        &self,
        request: Request<strata_proto::node::StatsRequest>,
    ) -> Result<Response<strata_proto::node::StatsResponse>, Status> {
        self.statistics(request.into_inner()).await.map(Response::new)
    }

    async fn remove_volume(
        &self,
        request: Request<strata_proto::node::RemoveVolumeRequest>,
    ) -> Result<Response<strata_proto::node::RemoveVolumeResponse>, Status> {
        let request = request.into_inner();
        self.node.remove_volume(&request.namespace, &request.name).await?;
        Ok(Response::new(strata_proto::node::RemoveVolumeResponse {}))
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<strata_proto::node::PortForwardInput>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        self.forward_stream(request.into_inner()).await.map(Response::new)
    }
}
