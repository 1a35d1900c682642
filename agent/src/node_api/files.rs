//! A container's files to people and back, and what of its image it has changed.
//!
//! The path is resolved below the container's root by descriptor, on a thread of its own with the file-system identity of the container's root.

mod diff;

use super::{
    NodeApi, Out, STREAM_WAITING_MAX,
    stream::{Incoming, Outgoing},
};
use crate::{node::Root, world::Trouble};
use std::{os::fd::AsFd as _, time::Duration};
use strata_archive::{ArchiveError, PackOptions, Place, UnpackOptions, pack, unpack};
use strata_model::ContainerName;
use strata_proto::{
    node::{
        CopyInChunk, CopyInResponse, CopyOutRequest, DataChunk, DiffRequest, DiffResponse, copy_in_chunk::Message as In,
    },
    types::container_status::State,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// How long the first message of a copy may take.
const START_WAIT: Duration = Duration::from_secs(10);

/// A root, and what keeps its container from being started meanwhile.
struct Held {
    root: Root,
    _lock: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl NodeApi {
    pub(super) async fn copy_out_stream(&self, request: CopyOutRequest) -> Result<Out<DataChunk>, Status> {
        let permit = self.begin()?;
        let held = self.root(&request.pod_uid, &request.container).await?;
        let (sender, receiver) = mpsc::channel(STREAM_WAITING_MAX);
        apart(move || {
            let _permit = permit;
            let options = PackOptions { owners: held.root.owners, name: None };
            let place = Place::container(held.root.fd.as_fd());
            let mut out = Outgoing::new(sender.clone());
            if let Err(e) = pack(&place, request.path.as_bytes(), options, &mut out) {
                // Whoever asked may have gone; that is then the error.
                sender.blocking_send(Err(refused(&e))).ok();
            }
        })?;
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    pub(super) async fn copy_in_all(&self, mut chunks: Streaming<CopyInChunk>) -> Result<CopyInResponse, Status> {
        let permit = self.begin()?;
        let first = timeout(START_WAIT, chunks.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("where to copy to did not come"))??;
        let Some(In::Start(start)) = first.and_then(|c| c.message) else {
            return Err(Status::invalid_argument("the first message says where to copy to"));
        };
        let held = self.root(&start.pod_uid, &start.container).await?;
        let (feed, incoming) = mpsc::channel(STREAM_WAITING_MAX);
        let (done, outcome) = oneshot::channel();
        apart(move || {
            let _permit = permit;
            let options = UnpackOptions { owners: held.root.owners, rename: None };
            let place = Place::container(held.root.fd.as_fd());
            let copied =
                held.root.become_owner().map_err(|e| Status::internal(format!("taking the container's identity: {e}")));
            let copied = copied.and_then(|()| {
                unpack(&place, start.path.as_bytes(), &options, Incoming::new(incoming)).map_err(|e| refused(&e))
            });
            done.send(copied).ok();
        })?;
        let feed = async move {
            let mut ended = false;
            while let Some(chunk) = chunks.message().await? {
                match chunk.message {
                    Some(In::Data(data)) => {
                        let sent = feed.send(Ok(data)).await;
                        if sent.is_err() {
                            // Whoever unpacks has ended: its own word counts.
                            return Ok(());
                        }
                    }
                    Some(In::End(true)) => ended = true,
                    _ => {}
                }
            }
            if !ended {
                let broken = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it was broken off before its end");
                feed.send(Err(broken)).await.ok();
            }
            Ok::<(), Status>(())
        };
        let (fed, copied) = tokio::join!(feed, outcome);
        let (entries, left_out) = copied.map_err(|_| Status::cancelled("the agent stops"))??;
        fed?;
        if left_out > 0 {
            tracing::info!(left_out, "devices of an archive were not copied into a container");
        }
        Ok(CopyInResponse { entries })
    }

    pub(super) async fn diff_stream(&self, request: DiffRequest) -> Result<Out<DiffResponse>, Status> {
        let permit = self.begin()?;
        self.known(&request.pod_uid, &request.container)?;
        let spec = self.spec(&request.pod_uid)?;
        let container = ContainerName::from_trusted(request.container);
        let node = self.node.clone();
        let (sender, receiver) = mpsc::channel(STREAM_WAITING_MAX);
        apart(move || {
            let _permit = permit;
            let found = node.lowers(&spec, &container).map_err(|t| troubled(&t)).and_then(|lowers| {
                diff::diff(node.image_store().layers(), &lowers, &node.writable_dir(&spec, &container), |entries| {
                    sender.blocking_send(Ok(DiffResponse { entries })).is_ok()
                })
                .map_err(|e| Status::internal(format!("listing what has changed in container {container}: {e}")))
            });
            if let Err(status) = found {
                sender.blocking_send(Err(status)).ok();
            }
        })?;
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    pub(super) fn spec(&self, uid: &str) -> Result<crate::world::PodSpec, Status> {
        self.pods.spec(uid).ok_or_else(|| Status::not_found(format!("pod {uid} is not on this node")))
    }

    /// The root of a container: of a running one its own, of a stopped pod's one made for this.
    async fn root(&self, uid: &str, container: &str) -> Result<Held, Status> {
        self.known(uid, container)?;
        let status = self.pods.board().get(uid).and_then(|r| r.status).unwrap_or_default();
        let found = status.containers.into_iter().find(|c| c.name == container).unwrap_or_default();
        let node = self.node.clone();
        let pod_uid = uid.to_owned();
        if found.state() == State::Running && found.pid > 0 {
            let root = blocking(move || node.running_root(&pod_uid, found.pid)).await?;
            return Ok(Held { root, _lock: None });
        }
        let spec = self.spec(uid)?;
        let name = ContainerName::from_trusted(container);
        let lock = node.writable_lock(&spec.uid, &name).lock_owned().await;
        if node.shim(&spec.uid).is_some() {
            return Err(Status::failed_precondition(format!(
                "container {container} does not run now, but its pod does: try again while it runs, or stop the pod (`ctl stop`)"
            )));
        }
        let root = blocking(move || node.stopped_root(&spec, &name)).await?;
        Ok(Held { root, _lock: Some(lock) })
    }
}

/// Starts work on a thread of its own: it changes who it is, and may take long.
fn apart(work: impl FnOnce() + Send + 'static) -> Result<(), Status> {
    let thread = std::thread::Builder::new().name("copy".into()).spawn(work);
    thread.map(drop).map_err(|e| Status::resource_exhausted(format!("no thread for the copy: {e}")))
}

async fn blocking(work: impl FnOnce() -> Result<Root, Trouble> + Send + 'static) -> Result<Root, Status> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| Status::cancelled("the agent stops"))?;
    done.map_err(|t| troubled(&t))
}

pub(super) fn troubled(trouble: &Trouble) -> Status {
    Status::failed_precondition(format!("{}: {}", trouble.reason, trouble.message))
}

fn refused(error: &ArchiveError) -> Status {
    let code = match error {
        ArchiveError::NotFound(_) => Code::NotFound,
        ArchiveError::NotADirectory(_) | ArchiveError::Overwrite { .. } => Code::FailedPrecondition,
        ArchiveError::Entry { .. } | ArchiveError::Limit { .. } | ArchiveError::Stream { .. } => Code::InvalidArgument,
        ArchiveError::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
            std::io::ErrorKind::ReadOnlyFilesystem => Code::FailedPrecondition,
            _ => Code::Internal,
        },
    };
    Status::new(code, format!("{}: {error}", error.reason()))
}
