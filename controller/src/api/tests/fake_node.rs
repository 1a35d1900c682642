//! A node's API that does as little as a relay needs to show itself.

use std::sync::{Arc, Mutex};
use strata_proto::{
    node::{
        ExecExit, ExecInput, ExecOutput, ImportChunk, ImportResponse, ImportedImage, LogChunk, LogsRequest,
        PullProgress, PullRequest, RemoveImageRequest, RemoveImageResponse, exec_input, exec_output, import_chunk,
        node_server::{Node, NodeServer},
    },
    types::ImageSpec,
};
use strata_transport::{Role, authorize::RequireRole, pki::Ca, server};
use tokio::{net::TcpListener, sync::mpsc, sync::oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub struct FakeNode {
    pub port: u16,
    pub seen: Arc<Mutex<Vec<String>>>,
    /// Tells when a followed log lost its reader, an import got its first bytes, or lost its sender.
    pub ended: mpsc::Receiver<&'static str>,
    _stop: oneshot::Sender<()>,
}

struct Service {
    name: String,
    seen: Arc<Mutex<Vec<String>>>,
    ended: mpsc::Sender<&'static str>,
}

/// The digest of every image here.
pub const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub fn image() -> ImageSpec {
    ImageSpec { digest: DIGEST.into(), manifest_digest: DIGEST.into(), size_bytes: 7, ..ImageSpec::default() }
}

impl FakeNode {
    pub async fn start(ca: &Ca, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let identity = ca.issue(Role::Node, name).unwrap();
        let incoming =
            server::serve(listener, &identity, server::ClientCerts::Required, async { drop(stopped.await) }).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (tell, ended) = mpsc::channel(8);
        let service = Service { name: name.to_owned(), seen: seen.clone(), ended: tell };
        let service = NodeServer::with_interceptor(service, RequireRole(&[Role::Controller]));
        tokio::spawn(async move {
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { port, seen, ended, _stop: stop }
    }
}

impl Service {
    fn note(&self, what: String) {
        self.seen.lock().unwrap().push(what);
    }
}

type Answer<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl Node for Service {
    type LogsStream = Answer<LogChunk>;
    type ExecStream = Answer<ExecOutput>;
    type PullImageStream = Answer<PullProgress>;
    type BuildStream = Answer<strata_proto::node::BuildProgress>;
    type DiffStream = Answer<strata_proto::node::DiffResponse>;
    type CopyOutStream = Answer<strata_proto::node::DataChunk>;
    type ExportImageStream = Answer<strata_proto::node::DataChunk>;
    type PushImageStream = Answer<strata_proto::node::PushProgress>;
    type PortForwardStream = Answer<strata_proto::node::DataChunk>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        self.note(format!("logs {} {}", request.pod_uid, request.container));
        let (send, receive) = mpsc::channel(1);
        let ended = self.ended.clone();
        tokio::spawn(async move {
            let line = |n: usize| Ok(LogChunk { data: format!("line {n}\n").into_bytes(), stderr: false });
            for n in 0..3 {
                send.send(line(n)).await.unwrap();
            }
            if request.follow {
                send.closed().await;
                ended.send("logs").await.unwrap();
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Result<Response<Self::ExecStream>, Status> {
        let mut input = request.into_inner();
        let Some(exec_input::Message::Start(start)) = input.message().await?.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("no start"));
        };
        self.note(format!("exec {} {} {:?}", start.pod_uid, start.container, start.command));
        let (send, receive) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(message)) = input.message().await {
                match message.message {
                    Some(exec_input::Message::Stdin(data)) => {
                        let out = ExecOutput { message: Some(exec_output::Message::Stdout(data)) };
                        send.send(Ok(out)).await.unwrap();
                    }
                    Some(exec_input::Message::StdinClosed(_)) => break,
                    _ => {}
                }
            }
            let exit = ExecOutput { message: Some(exec_output::Message::Exit(ExecExit { code: 3 })) };
            send.send(Ok(exit)).await.ok();
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn import_image(&self, request: Request<Streaming<ImportChunk>>) -> Result<Response<ImportResponse>, Status> {
        let mut chunks = request.into_inner();
        let Some(import_chunk::Message::Start(start)) = chunks.message().await?.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("no start"));
        };
        let mut bytes = 0;
        // Dropped before its end, the call was cancelled.
        struct Tell(mpsc::Sender<&'static str>);
        impl Drop for Tell {
            fn drop(&mut self) {
                self.0.try_send("import").unwrap();
            }
        }
        let tell = Tell(self.ended.clone());
        let mut whole = false;
        while let Some(chunk) = chunks.message().await? {
            match chunk.message {
                Some(import_chunk::Message::Data(data)) => {
                    if bytes == 0 {
                        self.ended.send("importing").await.unwrap();
                    }
                    bytes += data.len();
                }
                Some(import_chunk::Message::End(true)) => whole = true,
                _ => {}
            }
        }
        if !whole {
            return Err(Status::invalid_argument("broken off"));
        }
        std::mem::forget(tell);
        self.note(format!("import {bytes}"));
        Ok(Response::new(ImportResponse { images: vec![ImportedImage { name: start.name, image: Some(image()) }] }))
    }

    async fn pull_image(&self, request: Request<PullRequest>) -> Result<Response<Self::PullImageStream>, Status> {
        let image_name = request.into_inner().image;
        self.note(format!("pull {image_name}"));
        let (send, receive) = mpsc::channel(8);
        let step = |step: &str, image| PullProgress { step: step.into(), image, ..PullProgress::default() };
        send.send(Ok(step("Fetching", None))).await.unwrap();
        if image_name.contains("missing") || (image_name.contains("partial") && self.name == "n2") {
            send.send(Ok(PullProgress { message: "no such manifest".into(), ..step("Failed", None) })).await.unwrap();
        } else {
            send.send(Ok(step("Done", Some(image())))).await.unwrap();
        }
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        self.note(format!("remove {}", request.into_inner().digest));
        Ok(Response::new(RemoveImageResponse { freed_bytes: 7 }))
    }

    async fn build(
        &self,
        _: Request<Streaming<strata_proto::node::BuildChunk>>,
    ) -> Result<Response<Self::BuildStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn commit(
        &self,
        _: Request<strata_proto::node::CommitRequest>,
    ) -> Result<Response<strata_proto::node::CommitResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn diff(&self, _: Request<strata_proto::node::DiffRequest>) -> Result<Response<Self::DiffStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn copy_out(
        &self,
        _: Request<strata_proto::node::CopyOutRequest>,
    ) -> Result<Response<Self::CopyOutStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn copy_in(
        &self,
        _: Request<Streaming<strata_proto::node::CopyInChunk>>,
    ) -> Result<Response<strata_proto::node::CopyInResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn export_image(
        &self,
        _: Request<strata_proto::node::ExportImageRequest>,
    ) -> Result<Response<Self::ExportImageStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn push_image(
        &self,
        _: Request<strata_proto::node::PushImageRequest>,
    ) -> Result<Response<Self::PushImageStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn image_history(
        &self,
        _: Request<strata_proto::node::ImageHistoryRequest>,
    ) -> Result<Response<strata_proto::node::ImageHistoryResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn prune(
        &self,
        _: Request<strata_proto::node::PruneRequest>,
    ) -> Result<Response<strata_proto::node::PruneResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn signal(
        &self,
        _: Request<strata_proto::node::SignalRequest>,
    ) -> Result<Response<strata_proto::node::SignalResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn restart(
        &self,
        _: Request<strata_proto::node::RestartRequest>,
    ) -> Result<Response<strata_proto::node::RestartResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn stats(
        &self,
        _: Request<strata_proto::node::StatsRequest>,
    ) -> Result<Response<strata_proto::node::StatsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn remove_volume(
        &self,
        _: Request<strata_proto::node::RemoveVolumeRequest>,
    ) -> Result<Response<strata_proto::node::RemoveVolumeResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn port_forward(
        &self,
        _: Request<Streaming<strata_proto::node::PortForwardInput>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}
