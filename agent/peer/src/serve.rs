//! What this node gives to others.

use crate::limits;
use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};
use std::sync::Arc;
use strata_image::ImageStore;
use strata_layer::{LayerError, TarReader};
use strata_model::{Digest, limits::CHUNK_BYTES};
use strata_proto::peer::{
    Chunk, GetBlobRequest, GetLayerRequest,
    peer_server::{Peer, PeerServer},
};
use strata_transport::{Role, require};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

/// Serves the layers and image documents of this node.
#[derive(Debug)]
pub struct PeerService {
    images: ImageStore,
    streams: Arc<Semaphore>,
}

type Chunks = BoxStream<'static, Result<Chunk, Status>>;

impl PeerService {
    /// Makes the service; add it to the server of the node API.
    #[must_use]
    pub fn server(images: ImageStore) -> PeerServer<Self> {
        Self::server_with(images, limits::STREAMS_MAX)
    }

    /// As [`PeerService::server`], with another bound on streams.
    #[must_use]
    pub fn server_with(images: ImageStore, streams_max: usize) -> PeerServer<Self> {
        PeerServer::new(Self { images, streams: Arc::new(Semaphore::new(streams_max)) })
    }

    fn begin(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("this node sends as much to its peers as it may; ask another one or try later")
        })
    }
}

fn parse(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|e| Status::invalid_argument(format!("{e}")))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Status::cancelled("the node is shutting down"))?
}

#[tonic::async_trait]
impl Peer for PeerService {
    type GetLayerStream = Chunks;
    type GetBlobStream = Chunks;

    async fn get_layer(&self, request: Request<GetLayerRequest>) -> Result<Response<Chunks>, Status> {
        require(&request, &[Role::Node])?;
        let GetLayerRequest { diff_id, offset } = request.into_inner();
        let digest = parse(&diff_id)?;
        let permit = self.begin()?;
        let mut lease = self.images.lease();
        lease.hold(&digest);
        let layers = self.images.layers().clone();
        let tar = blocking(move || {
            layers.open_tar(&digest).map_err(|error| match error {
                LayerError::Missing(_) => Status::not_found(format!("layer {digest} is not on this node")),
                error => Status::internal(error.to_string()),
            })
        })
        .await?;
        let total = tar.len();
        if offset > total {
            return Err(Status::out_of_range(format!("layer {diff_id} has {total} bytes, not {offset}")));
        }
        let sending = Sending { images: self.images.clone(), tar: Arc::new(tar), at: offset, first: true };
        let chunks = stream::try_unfold(sending, Sending::next);
        Ok(Response::new(held(chunks.boxed(), (permit, lease))))
    }

    async fn get_blob(&self, request: Request<GetBlobRequest>) -> Result<Response<Chunks>, Status> {
        require(&request, &[Role::Node])?;
        let digest = parse(&request.into_inner().digest)?;
        let permit = self.begin()?;
        let images = self.images.clone();
        let bytes = blocking(move || {
            let found = images.read_blob(&digest).map_err(|e| Status::internal(e.to_string()))?;
            found.ok_or_else(|| Status::not_found(format!("blob {digest} is not on this node")))
        })
        .await?;
        let total_bytes = bytes.len() as u64;
        self.images.transfers().to_peers.add(total_bytes);
        let mut bytes = Bytes::from(bytes);
        let mut chunks = Vec::new();
        while !bytes.is_empty() || chunks.is_empty() {
            let data = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            let total_bytes = if chunks.is_empty() { total_bytes } else { 0 };
            chunks.push(Ok(Chunk { data, total_bytes }));
        }
        Ok(Response::new(held(stream::iter(chunks).boxed(), permit)))
    }
}

/// Keeps something alive for as long as a stream is.
fn held(chunks: Chunks, guard: impl Send + 'static) -> Chunks {
    chunks
        .map(move |chunk| {
            let _guard = &guard;
            chunk
        })
        .boxed()
}

/// A layer on its way out. It is read only as fast as the other side takes it.
struct Sending {
    images: ImageStore,
    tar: Arc<TarReader>,
    at: u64,
    first: bool,
}

impl Sending {
    async fn next(self) -> Result<Option<(Chunk, Self)>, Status> {
        let Self { images, tar, at, first } = self;
        let total = tar.len();
        // Also an empty rest gives one chunk: it carries the size of the whole.
        if at >= total && !first {
            return Ok(None);
        }
        let reading = tar.clone();
        let data = blocking(move || {
            let mut data = vec![0; CHUNK_BYTES];
            let mut filled = 0;
            while filled < data.len() {
                match reading.read_at(&mut data[filled..], at + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) => return Err(Status::data_loss(format!("reading the layer failed: {error}"))),
                }
            }
            data.truncate(filled);
            Ok(data)
        })
        .await?;
        if data.is_empty() && at < total {
            return Err(Status::data_loss("the layer's file is shorter than it says"));
        }
        images.transfers().to_peers.add(data.len() as u64);
        let at = at + data.len() as u64;
        let chunk = Chunk { data: data.into(), total_bytes: if first { total } else { 0 } };
        Ok(Some((chunk, Self { images, tar, at, first: false })))
    }
}
