//! Verbs of images, and what nodes and pods use.

use crate::{Client, ClientError, ContainerRef, limits, unary};
use strata_proto::{
    cluster::{
        CommitRequest, ExportImagesRequest, ImageHistoryRequest, NodeStats, PruneImagesRequest, PruneImagesResponse,
        PushImageRequest, StatsRequest, TagImageRequest,
    },
    node::{self, DataChunk, HistoryEntry, PushProgress, export_image_request::Format},
    types::Object,
};
use tonic::{Request, Streaming};

/// What a container's writable layer becomes.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The new image's name.
    pub name: String,
    /// Dockerfile lines.
    pub changes: Vec<String>,
    /// Who.
    pub author: String,
    /// What for.
    pub message: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
}

impl Client {
    /// Gives an image another name.
    ///
    /// # Errors
    /// By kind.
    pub async fn tag_image(&self, image: &str, name: &str) -> Result<Object, ClientError> {
        let mut cluster = self.cluster.clone();
        let request = TagImageRequest { image: image.to_owned(), name: name.to_owned() };
        let doing = format!("tag image {image} as {name}");
        let answer =
            unary(&doing, limits::UNARY_TIMEOUT, request, |r| async move { cluster.tag_image(r).await }).await?;
        Ok(answer.image.unwrap_or_default())
    }

    /// Begins to read an archive of images.
    ///
    /// # Errors
    /// By kind; some only come with the stream.
    pub async fn export_images(
        &self,
        images: Vec<String>,
        format: Format,
    ) -> Result<Streaming<DataChunk>, ClientError> {
        let doing = format!("export {}", images.join(", "));
        let mut cluster = self.cluster.clone();
        let request = ExportImagesRequest { images, format: format.into() };
        unary(&doing, limits::STREAM_START_TIMEOUT, request, |r| async move {
            cluster.export_images(Request::new(r.into_inner())).await
        })
        .await
    }

    /// Pushes an image to its registry, or as `reference`; the stream tells how far it is.
    ///
    /// # Errors
    /// By kind; some only come with the stream.
    pub async fn push_image(&self, image: &str, reference: &str) -> Result<Streaming<PushProgress>, ClientError> {
        let mut cluster = self.cluster.clone();
        let request = PushImageRequest { image: image.to_owned(), reference: reference.to_owned() };
        unary(&format!("push image {image}"), limits::STREAM_START_TIMEOUT, request, |r| async move {
            cluster.push_image(Request::new(r.into_inner())).await
        })
        .await
    }

    /// How an image came about, the oldest step first.
    ///
    /// # Errors
    /// By kind.
    pub async fn image_history(&self, image: &str) -> Result<Vec<HistoryEntry>, ClientError> {
        let mut cluster = self.cluster.clone();
        let (doing, request) =
            (format!("read the history of {image}"), ImageHistoryRequest { image: image.to_owned() });
        let answer = unary(&doing, limits::UNARY_TIMEOUT, request, |r| async move { cluster.image_history(r).await });
        Ok(answer.await?.entries)
    }

    /// Removes what nobody needs; with `all` also images whose names nobody uses.
    ///
    /// # Errors
    /// By kind; what single nodes could not do is in the answer.
    pub async fn prune_images(&self, all: bool, build_cache: bool) -> Result<PruneImagesResponse, ClientError> {
        let mut cluster = self.cluster.clone();
        let request = PruneImagesRequest { all, build_cache };
        unary("prune images", limits::IMPORT_TIMEOUT, request, |r| async move { cluster.prune_images(r).await }).await
    }

    /// Makes an image of a container's writable layer.
    ///
    /// # Errors
    /// By kind.
    pub async fn commit(&self, of: &ContainerRef, options: CommitOptions) -> Result<Object, ClientError> {
        let doing = format!("commit {} as {}", of.shown(), options.name);
        let CommitOptions { name, changes, author, message, pause } = options;
        let commit = node::CommitRequest { name, changes, author, message, pause, ..node::CommitRequest::default() };
        let request = CommitRequest { pod: Some(of.request()), commit: Some(commit) };
        let mut cluster = self.cluster.clone();
        let answer = unary(&doing, limits::IMPORT_TIMEOUT, request, |r| async move { cluster.commit(r).await }).await?;
        Ok(answer.image.unwrap_or_default())
    }

    /// What nodes, and with `pods` the pods on them, have used so far.
    ///
    /// # Errors
    /// By kind; what single nodes did not say is in the answer.
    pub async fn stats(&self, namespace: &str, node: &str, pods: bool) -> Result<Vec<NodeStats>, ClientError> {
        let mut cluster = self.cluster.clone();
        let request = StatsRequest { namespace: namespace.to_owned(), node: node.to_owned(), pods };
        let doing = "ask the nodes what they use";
        Ok(unary(doing, limits::UNARY_TIMEOUT, request, |r| async move { cluster.stats(r).await }).await?.nodes)
    }
}
