//! A controller that exists only in this test: objects in a map, revisions, watches, and workloads that become ready by themselves.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
};
use strata_client::Config;
use strata_proto::{
    cluster::{
        ApplyRequest, ApplyResponse, CreateTokenRequest, CreateTokenResponse, DeleteRequest, DeleteResponse,
        ExecRequest, GetRequest, ImportResponse, InfoRequest, InfoResponse, ListRequest, ListResponse, LocateRequest,
        LocateResponse, LogsRequest, PullRequest, WatchRequest, WatchResponse,
        apply_response::Outcome,
        cluster_server::{Cluster, ClusterServer},
        exec_request,
        objects_server::{Objects, ObjectsServer},
    },
    node::{ExecExit, ExecOutput, ImportChunk, LogChunk, PullProgress, exec_output, import_chunk},
    types::{Image, ImageSpec, Meta, Object, PodStatus, object, pod_status::Phase},
};
use strata_transport::{
    Role,
    authorize::RequireRole,
    pki::Ca,
    server::{self, ClientCerts},
};
use tokio::{net::TcpListener, sync::broadcast};
use tokio_stream::{Stream, StreamExt as _, wrappers::BroadcastStream};
use tonic::{Request, Response, Status, Streaming, async_trait};

type Key = (i32, String, String);
type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<WatchResponse>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Object>,
    /// How many applies are answered with a conflict before one gets through.
    conflicts: u32,
}

/// What a workload with this reason in its annotation `fake` does after it was applied: nothing else makes it ready.
const BECOMES_READY: &str = "ready";

impl Fake {
    pub fn new() -> Self {
        Self { state: Arc::default(), changes: broadcast::channel(1024).0 }
    }

    pub fn put(&self, mut object: Object) -> Object {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let meta = object.meta.get_or_insert_default();
        meta.revision = state.revision;
        let key = key_of(&object);
        state.objects.insert(key, object.clone());
        let change = WatchResponse { revision: state.revision, object: Some(object.clone()), ..Default::default() };
        drop(self.changes.send(change));
        object
    }

    pub fn remove(&self, key: &Key) -> Option<Object> {
        let mut state = self.state.lock().unwrap();
        let object = state.objects.remove(key)?;
        state.revision += 1;
        let change =
            WatchResponse { revision: state.revision, object: Some(object.clone()), deleted: true, bookmark: false };
        drop(self.changes.send(change));
        Some(object)
    }

    pub fn get_now(&self, key: &Key) -> Option<Object> {
        self.state.lock().unwrap().objects.get(key).cloned()
    }

    /// Whether somebody watches.
    pub fn watchers(&self) -> usize {
        self.changes.receiver_count()
    }

    pub fn answer_with_conflicts(&self, count: u32) {
        self.state.lock().unwrap().conflicts = count;
    }
}

pub fn key_of(object: &Object) -> Key {
    let meta = object.meta.clone().unwrap_or_default();
    (object.kind_of().into(), meta.namespace, meta.name)
}

fn missing(key: &Key) -> Status {
    Status::not_found(format!("{} is not there", key.2))
}

#[async_trait]
impl Objects for Fake {
    type ListStream = Answer<ListResponse>;
    type WatchStream = Answer<WatchResponse>;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let ApplyRequest { object, dry_run, create_only } = request.into_inner();
        let mut object = object.ok_or_else(|| Status::invalid_argument("no object"))?;
        let key = key_of(&object);
        let found = {
            let mut state = self.state.lock().unwrap();
            if state.conflicts > 0 {
                state.conflicts -= 1;
                return Err(Status::aborted("it was changed meanwhile"));
            }
            state.objects.get(&key).cloned()
        };
        if create_only && found.is_some() {
            return Err(Status::already_exists(format!("{} exists", key.2)));
        }
        let meta = object.meta.get_or_insert_default();
        let generation = found.as_ref().and_then(|f| f.meta.as_ref()).map_or(0, |m| m.generation) + 1;
        meta.generation = generation;
        if meta.name == "forbidden" {
            return Err(Status::permission_denied("not for you"));
        }
        let outcome = if found.is_some() { Outcome::Configured } else { Outcome::Created };
        if dry_run {
            return Ok(Response::new(ApplyResponse {
                object: Some(object),
                outcome: outcome.into(),
                warnings: vec![],
            }));
        }
        let becomes_ready = meta.annotations.get("fake").is_some_and(|word| word == BECOMES_READY);
        let object = self.put(object);
        if let (true, Some(object::Kind::Workload(mut workload))) = (becomes_ready, object.kind.clone()) {
            let desired = workload.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let status = workload.status.get_or_insert_default();
            (status.desired, status.replicas, status.ready, status.updated) = (desired, desired, desired, desired);
            status.observed_generation = generation;
            let ready = Object { meta: object.meta.clone(), kind: Some(object::Kind::Workload(workload)) };
            let this = self.clone();
            // Only once somebody watches: what is tested is that the change is seen, not that it was there before.
            tokio::spawn(async move {
                while this.watchers() == 0 {
                    tokio::task::yield_now().await;
                }
                this.put(ready);
            });
        }
        Ok(Response::new(ApplyResponse { object: Some(object), outcome: outcome.into(), warnings: vec![] }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Object>, Status> {
        let GetRequest { kind, namespace, name } = request.into_inner();
        let key = (kind, namespace, name);
        self.get_now(&key).map(Response::new).ok_or_else(|| missing(&key))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let request = request.into_inner();
        let state = self.state.lock().unwrap();
        let fits = |object: &&Object| {
            let meta = object.meta.clone().unwrap_or_default();
            i32::from(object.kind_of()) == request.kind
                && (request.namespace.is_empty() || meta.namespace == request.namespace)
                && request.labels.iter().all(|(key, value)| meta.labels.get(key) == Some(value))
        };
        let objects: Vec<Object> = state.objects.values().filter(fits).cloned().collect();
        // In portions of one, so that putting them together is tested too.
        let revision = state.revision;
        let mut portions: Vec<_> =
            objects.into_iter().map(|object| Ok(ListResponse { revision, objects: vec![object] })).collect();
        portions.push(Ok(ListResponse { revision, objects: vec![] }));
        Ok(Response::new(Box::pin(tokio_stream::iter(portions))))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { kind, namespace, from_revision } = request.into_inner();
        let changes = BroadcastStream::new(self.changes.subscribe());
        let state = self.state.lock().unwrap();
        let missed: Vec<_> = state
            .objects
            .values()
            .filter(|object| object.meta.as_ref().is_some_and(|m| from_revision > 0 && m.revision > from_revision))
            .map(|object| WatchResponse { object: Some(object.clone()), ..Default::default() })
            .collect();
        let all = tokio_stream::iter(missed).chain(changes.filter_map(Result::ok));
        let fits = move |change: &WatchResponse| {
            let (of_kind, of_namespace, _) = change.object.as_ref().map(key_of).unwrap_or_default();
            (kind == 0 || kind == of_kind) && (namespace.is_empty() || namespace == of_namespace)
        };
        Ok(Response::new(Box::pin(all.filter(fits).map(Ok))))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { kind, namespace, name, .. } = request.into_inner();
        let key = (kind, namespace, name);
        if key.2 == "stays" {
            return self
                .get_now(&key)
                .map(|object| Response::new(DeleteResponse { object: Some(object) }))
                .ok_or_else(|| missing(&key));
        }
        let object = self.remove(&key).ok_or_else(|| missing(&key))?;
        Ok(Response::new(DeleteResponse { object: Some(object) }))
    }
}

#[async_trait]
impl Cluster for Fake {
    type LogsStream = Answer<LogChunk>;
    type ExecStream = Answer<ExecOutput>;
    type PullImageStream = Answer<PullProgress>;
    type BuildImageStream = Answer<strata_proto::node::BuildProgress>;
    type DiffStream = Answer<strata_proto::node::DiffResponse>;
    type CopyOutStream = Answer<strata_proto::node::DataChunk>;
    type ExportImagesStream = Answer<strata_proto::node::DataChunk>;
    type PushImageStream = Answer<strata_proto::node::PushProgress>;
    type PortForwardStream = Answer<strata_proto::node::DataChunk>;
    type BackupStream = Answer<strata_proto::node::DataChunk>;

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { version: "9.9.9".into(), api_level: 1, cluster_id: "c".into(), revision: 5 }))
    }

    /// Of a pod that runs: two lines; following it ends the pod with code 7.
    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let key = (strata_proto::types::Kind::Pod.into(), request.namespace, request.pod);
        let mut pod = self.get_now(&key).ok_or_else(|| missing(&key))?;
        let chunk = |data: &str, stderr| Ok(LogChunk { data: data.as_bytes().to_vec(), stderr });
        let chunks = vec![chunk("out\n", false), chunk("err\n", true)];
        if request.follow {
            if let Some(object::Kind::Pod(pod)) = &mut pod.kind {
                let status = pod.status.get_or_insert_default();
                status.phase = Phase::Failed.into();
                status.containers = vec![exited(7)];
            }
            self.put(pod);
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    /// `exit N` exits with N, `cat` gives back its input, `break` breaks the stream.
    async fn exec(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        let mut input = request.into_inner();
        let Some(ExecRequest { message: Some(exec_request::Message::Start(start)) }) = input.message().await? else {
            return Err(Status::invalid_argument("start comes first"));
        };
        let key = (strata_proto::types::Kind::Pod.into(), start.namespace, start.pod);
        self.get_now(&key).ok_or_else(|| missing(&key))?;
        let output = |message| Ok(ExecOutput { message: Some(message) });
        let exit = |code| output(exec_output::Message::Exit(ExecExit { code }));
        let answers = match start.command.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["exit", code] => vec![exit(code.parse().unwrap())],
            ["cat"] => {
                let mut answers = vec![];
                while let Some(ExecRequest { message: Some(message) }) = input.message().await? {
                    match message {
                        exec_request::Message::Stdin(data) => answers.push(output(exec_output::Message::Stdout(data))),
                        exec_request::Message::StdinClosed(_) => break,
                        _ => {}
                    }
                }
                answers.push(exit(0));
                answers
            }
            ["both"] => vec![
                output(exec_output::Message::Stdout(b"to stdout".to_vec())),
                output(exec_output::Message::Stderr(b"to stderr".to_vec())),
                exit(0),
            ],
            _ => vec![Err(Status::unavailable("the node has gone"))],
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn import_image(&self, request: Request<Streaming<ImportChunk>>) -> Result<Response<ImportResponse>, Status> {
        let mut chunks = request.into_inner();
        let (mut name, mut size_bytes, mut whole) = (String::new(), 0, false);
        while let Some(chunk) = chunks.message().await? {
            match chunk.message {
                Some(import_chunk::Message::Start(start)) => name = start.name,
                Some(import_chunk::Message::Data(data)) => size_bytes += data.len() as u64,
                Some(import_chunk::Message::End(end)) => whole = end,
                None => {}
            }
        }
        if !whole {
            return Err(Status::invalid_argument("broken off"));
        }
        let spec = ImageSpec { size_bytes, ..Default::default() };
        let kind = object::Kind::Image(Image { spec: Some(spec), status: None });
        let object = self.put(Object { meta: Some(Meta { name, ..Default::default() }), kind: Some(kind) });
        Ok(Response::new(ImportResponse { images: vec![object] }))
    }

    async fn pull_image(&self, request: Request<PullRequest>) -> Result<Response<Self::PullImageStream>, Status> {
        let image = request.into_inner().image;
        let step = |step: &str, message: &str| {
            Ok(PullProgress { node: "node-1".into(), step: step.into(), message: message.into(), ..Default::default() })
        };
        let steps = if image.contains("nope") {
            vec![step("Resolving", ""), step("Failed", "ImageNotFound: no such tag")]
        } else {
            vec![step("Resolving", ""), step("Fetching", ""), step("Done", "")]
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(steps))))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let CreateTokenRequest { ttl_s, uses } = request.into_inner();
        Ok(Response::new(CreateTokenResponse { token: format!("strata.{ttl_s}.{uses}") }))
    }

    async fn locate(&self, _: Request<LocateRequest>) -> Result<Response<LocateResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn build_image(
        &self,
        _: Request<Streaming<strata_proto::cluster::BuildRequest>>,
    ) -> Result<Response<Self::BuildImageStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn commit(
        &self,
        _: Request<strata_proto::cluster::CommitRequest>,
    ) -> Result<Response<strata_proto::cluster::CommitResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn diff(&self, _: Request<strata_proto::cluster::PodRequest>) -> Result<Response<Self::DiffStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn copy_out(
        &self,
        _: Request<strata_proto::cluster::CopyOutRequest>,
    ) -> Result<Response<Self::CopyOutStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn copy_in(
        &self,
        _: Request<Streaming<strata_proto::cluster::CopyInRequest>>,
    ) -> Result<Response<strata_proto::node::CopyInResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn tag_image(
        &self,
        _: Request<strata_proto::cluster::TagImageRequest>,
    ) -> Result<Response<strata_proto::cluster::TagImageResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn export_images(
        &self,
        _: Request<strata_proto::cluster::ExportImagesRequest>,
    ) -> Result<Response<Self::ExportImagesStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn push_image(
        &self,
        _: Request<strata_proto::cluster::PushImageRequest>,
    ) -> Result<Response<Self::PushImageStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn image_history(
        &self,
        _: Request<strata_proto::cluster::ImageHistoryRequest>,
    ) -> Result<Response<strata_proto::node::ImageHistoryResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn prune_images(
        &self,
        _: Request<strata_proto::cluster::PruneImagesRequest>,
    ) -> Result<Response<strata_proto::cluster::PruneImagesResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn act(
        &self,
        _: Request<strata_proto::cluster::ActRequest>,
    ) -> Result<Response<strata_proto::cluster::ActResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn stats(
        &self,
        _: Request<strata_proto::cluster::StatsRequest>,
    ) -> Result<Response<strata_proto::cluster::StatsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn port_forward(
        &self,
        _: Request<Streaming<strata_proto::cluster::PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn backup(
        &self,
        _: Request<strata_proto::cluster::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn undo(
        &self,
        _: Request<strata_proto::cluster::UndoRequest>,
    ) -> Result<Response<strata_proto::cluster::ApplyResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}

pub fn exited(exit_code: i32) -> strata_proto::types::ContainerStatus {
    strata_proto::types::ContainerStatus { exit_code, ..Default::default() }
}

/// Makes a pod's status what is given as soon as the pod is there and somebody watches.
pub fn set_status_when_watched(fake: &Fake, key: Key, status: PodStatus) {
    let fake = fake.clone();
    tokio::spawn(async move {
        loop {
            if let Some(mut found) = fake.get_now(&key).filter(|_| fake.watchers() > 0) {
                if let Some(object::Kind::Pod(pod)) = &mut found.kind {
                    pod.status = Some(status);
                }
                fake.put(found);
                return;
            }
            tokio::task::yield_now().await;
        }
    });
}

/// A served fake and the directory with the configurations of its users.
pub struct Served {
    pub fake: Fake,
    pub dir: tempfile::TempDir,
    pub address: String,
    _stop: tokio::task::JoinHandle<()>,
}

impl Served {
    pub async fn start() -> Self {
        strata_transport::install_crypto();
        let ca = Ca::create().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let identity = ca.issue(Role::Controller, "main").unwrap();
        let incoming = server::serve(listener, &identity, ClientCerts::Optional, std::future::pending()).unwrap();
        let fake = Fake::new();
        let router = server::tune_server(tonic::transport::Server::builder())
            .add_service(ObjectsServer::with_interceptor(fake.clone(), RequireRole(&[Role::Admin])))
            .add_service(ClusterServer::with_interceptor(fake.clone(), RequireRole(&[Role::Admin])));
        let stop = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        let dir = tempfile::tempdir().unwrap();
        let config = |name: &str, identity| Config::single(&address, &identity).save(&dir.path().join(name)).unwrap();
        config("admin.toml", ca.issue(Role::Admin, "alice").unwrap());
        config("node.toml", ca.issue(Role::Node, "node-1").unwrap());
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(90 * 24 * 3600);
        let day = std::time::Duration::from_secs(24 * 3600);
        config("expired.toml", ca.issue_dated(Role::Admin, "bob", long_ago, day).unwrap());
        config("foreign.toml", Ca::create().unwrap().issue(Role::Admin, "eve").unwrap());
        Self { fake, dir, address, _stop: stop }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
