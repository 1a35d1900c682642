//! One other node as a source.

use crate::limits;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use strata_image::{BlobKind, BlobSource, Encoding, ImageError, LayerRequest, LayerStream, Result};
use strata_model::{Digest, limits::IMAGE_METADATA_BYTES_MAX};
use strata_proto::peer::{GetBlobRequest, GetLayerRequest, peer_client::PeerClient};
use tokio::time::timeout;
use tonic::{Code, Status, transport::Channel};

/// A node that can be asked.
#[derive(Debug, Clone)]
pub struct PeerSource {
    name: String,
    client: PeerClient<Channel>,
}

impl PeerSource {
    /// Makes a source of a channel to a node; `node` names it in errors.
    #[must_use]
    pub fn new(node: &str, channel: Channel) -> Self {
        Self { name: format!("node {node}"), client: PeerClient::new(channel) }
    }

    async fn blob(&self, digest: &Digest) -> Result<Bytes> {
        let what = format!("blob {digest}");
        let request = GetBlobRequest { digest: digest.to_string() };
        let mut client = self.client.clone();
        let reading = async {
            let mut chunks = client.get_blob(request).await.map_err(|s| error(&self.name, &what, &s))?.into_inner();
            let mut bytes = Vec::new();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|s| error(&self.name, &what, &s))?;
                if bytes.len() + chunk.data.len() > IMAGE_METADATA_BYTES_MAX {
                    return Err(ImageError::TooLarge {
                        what: what.clone(),
                        from: self.name.clone(),
                        max_bytes: IMAGE_METADATA_BYTES_MAX as u64,
                    });
                }
                bytes.extend_from_slice(&chunk.data);
            }
            Ok(bytes.into())
        };
        match timeout(limits::BLOB_TIMEOUT, reading).await {
            Ok(done) => done,
            Err(_) => Err(silent(&self.name, &what)),
        }
    }

    async fn layer(&self, layer: &LayerRequest, offset: u64) -> Result<LayerStream> {
        let (name, what) = (self.name.clone(), format!("layer {}", layer.diff_id));
        let request = GetLayerRequest { diff_id: layer.diff_id.to_string(), offset };
        let mut client = self.client.clone();
        let beginning = async {
            let mut chunks = client.get_layer(request).await.map_err(|s| error(&name, &what, &s))?.into_inner();
            let first = chunks.next().await.transpose().map_err(|s| error(&name, &what, &s))?;
            Ok::<_, ImageError>((first, chunks))
        };
        let begun = timeout(limits::ANSWER_TIMEOUT, beginning).await.map_err(|_| silent(&name, &what))?;
        let (first, chunks) = begun?;
        let total_bytes = first.as_ref().map(|chunk| chunk.total_bytes);
        let rest = chunks.map(move |chunk| chunk.map(|c| c.data).map_err(|status| error(&name, &what, &status)));
        let first = stream::iter(first.map(|chunk| Ok(chunk.data)));
        Ok(LayerStream { total_bytes, chunks: first.chain(rest).boxed() })
    }
}

fn silent(from: &str, what: &str) -> ImageError {
    ImageError::PeerUnreachable { what: what.into(), from: from.into(), detail: "it does not answer in time".into() }
}

fn error(from: &str, what: &str, status: &Status) -> ImageError {
    let (what, from, detail) = (what.to_owned(), from.to_owned(), status.message().to_owned());
    match status.code() {
        Code::NotFound => ImageError::NotFound { what, from },
        Code::ResourceExhausted => ImageError::Busy { what, from },
        Code::Unauthenticated | Code::PermissionDenied => ImageError::Unauthorized { what, from, detail },
        Code::DataLoss | Code::OutOfRange => ImageError::Corrupt { what, from, detail },
        code => ImageError::PeerUnreachable { what, from, detail: format!("{code:?}: {detail}") },
    }
}

impl BlobSource for PeerSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn encoding(&self) -> Encoding {
        Encoding::Tar
    }

    fn fetch_blob<'a>(&'a self, digest: &'a Digest, _kind: BlobKind) -> BoxFuture<'a, Result<Bytes>> {
        self.blob(digest).boxed()
    }

    fn fetch_layer<'a>(&'a self, layer: &'a LayerRequest, offset: u64) -> BoxFuture<'a, Result<LayerStream>> {
        self.layer(layer, offset).boxed()
    }
}
