//! A registry's repository as a source of blobs.

use super::{Registry, Repository, http};
use crate::{
    document::ACCEPT,
    error::{ImageError, Result},
    source::{BlobKind, BlobSource, Encoding, LayerRequest, LayerStream},
};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use reqwest::{Response, StatusCode, header::CONTENT_RANGE};
use strata_model::{Digest, limits::IMAGE_METADATA_BYTES_MAX};

/// One repository of a registry.
#[derive(Debug, Clone)]
pub struct RegistrySource {
    registry: Registry,
    repository: Repository,
    name: String,
}

impl RegistrySource {
    pub(super) fn new(registry: Registry, repository: Repository) -> Self {
        Self { name: repository.name(), registry, repository }
    }

    /// Reads a manifest by tag or digest: its bytes and the digest that the registry claims for them.
    pub(super) async fn manifest(&self, what: &str, reference: &str) -> Result<(Vec<u8>, Option<String>)> {
        http::with_retries(|| async {
            let path = format!("manifests/{reference}");
            let answer = self.registry.ask(&self.repository, what, &path, Some(ACCEPT), None).await?;
            let answer = http::expect_success(&self.name, what, answer).await?;
            let claimed = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
            let claimed = claimed.map(ToOwned::to_owned);
            let body = http::read_limited(&self.name, what, answer, IMAGE_METADATA_BYTES_MAX as u64).await?;
            Ok((body, claimed))
        })
        .await
    }

    /// Reads a small blob.
    pub(super) async fn blob(&self, what: &str, digest: &Digest) -> Result<Vec<u8>> {
        http::with_retries(|| async {
            let answer = self.registry.ask(&self.repository, what, &format!("blobs/{digest}"), None, None).await?;
            let answer = http::expect_success(&self.name, what, answer).await?;
            http::read_limited(&self.name, what, answer, IMAGE_METADATA_BYTES_MAX as u64).await
        })
        .await
    }

    async fn layer(&self, layer: &LayerRequest, offset: u64) -> Result<LayerStream> {
        let what = format!("layer {}", layer.diff_id);
        let path = format!("blobs/{}", layer.blob.digest);
        let answer = self.registry.ask(&self.repository, &what, &path, None, Some(offset)).await?;
        let answer = http::expect_success(&self.name, &what, answer).await?;
        let skip = bytes_to_skip(&answer, offset).ok_or_else(|| ImageError::Unreachable {
            what: what.clone(),
            from: self.name.clone(),
            detail: format!("it does not go on at byte {offset} as it was asked to"),
        })?;
        let name = self.name.clone();
        let state = (answer, skip);
        let chunks = stream::try_unfold(state, move |(mut answer, mut skip)| {
            let (what, from) = (what.clone(), name.clone());
            async move {
                loop {
                    let chunk = answer.chunk().await.map_err(|e| ImageError::Unreachable {
                        what: what.clone(),
                        from: from.clone(),
                        detail: http::chain(&e.without_url()),
                    })?;
                    let Some(mut chunk) = chunk else { return Ok(None) };
                    let dropped = skip.min(chunk.len() as u64);
                    skip -= dropped;
                    // Cannot truncate: it is at most the length of the chunk.
                    #[allow(clippy::cast_possible_truncation)]
                    let rest = chunk.split_off(dropped as usize);
                    if !rest.is_empty() {
                        return Ok(Some((rest, (answer, skip))));
                    }
                }
            }
        });
        Ok(LayerStream { total_bytes: Some(layer.blob.size_bytes), chunks: chunks.boxed() })
    }
}

/// How many bytes of the body come before the offset asked for: all of them if the server ignores ranges (RFC 9110, 14.2).
fn bytes_to_skip(answer: &Response, offset: u64) -> Option<u64> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Some(offset);
    }
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let start: u64 = range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()?;
    offset.checked_sub(start)
}

impl BlobSource for RegistrySource {
    fn name(&self) -> &str {
        &self.name
    }

    fn encoding(&self) -> Encoding {
        Encoding::Blob
    }

    fn fetch_blob<'a>(&'a self, digest: &'a Digest, kind: BlobKind) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            let what = format!("{digest} of {}", self.repository.path);
            let body = match kind {
                BlobKind::Manifest => self.manifest(&what, &digest.to_string()).await?.0,
                BlobKind::Config => self.blob(&what, digest).await?,
            };
            Ok(body.into())
        }
        .boxed()
    }

    fn fetch_layer<'a>(&'a self, layer: &'a LayerRequest, offset: u64) -> BoxFuture<'a, Result<LayerStream>> {
        self.layer(layer, offset).boxed()
    }
}
