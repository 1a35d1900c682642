//! Where bytes come from: registries and peers, behind one trait.

use crate::{document::Descriptor, error::Result};
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use std::{collections::HashSet, fmt, sync::Arc};
use strata_model::Digest;

/// What a small blob is; registries keep the two kinds under different paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// A manifest or an index.
    Manifest,
    /// A config.
    Config,
}

/// A layer that is wanted: by content, and as the image's manifest names it.
#[derive(Debug, Clone)]
pub struct LayerRequest {
    /// Of the uncompressed tar: what peers know it by.
    pub diff_id: Digest,
    /// The blob that a registry has.
    pub blob: Descriptor,
}

/// In which form a source sends layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The tar itself.
    Tar,
    /// The blob that the manifest names, compressed or not.
    Blob,
}

/// The bytes of a layer from an offset on.
pub struct LayerStream {
    /// Bytes of the whole, from its beginning; `None` if the source does not say.
    pub total_bytes: Option<u64>,
    /// The bytes from the offset asked for; ends early when the connection breaks.
    pub chunks: BoxStream<'static, Result<Bytes>>,
}

/// Somebody who can be asked for content by digest. Nothing it sends is trusted: whoever writes it down verifies it.
///
/// Implementations bound every wait, answer with `NotFound` when they do not have it, with `Unreachable` or `Busy` when
/// asking again may help, and name themselves in errors. Offsets count bytes of the form that [`BlobSource::encoding`] names.
pub trait BlobSource: Send + Sync + fmt::Debug {
    /// As it is named in logs and errors: `registry docker.io`, `node node-2`.
    fn name(&self) -> &str;

    /// The form of the layers it sends.
    fn encoding(&self) -> Encoding;

    /// Reads a manifest, index or config whole; at most `limits::IMAGE_METADATA_BYTES_MAX`.
    fn fetch_blob<'a>(&'a self, digest: &'a Digest, kind: BlobKind) -> BoxFuture<'a, Result<Bytes>>;

    /// Begins to read a layer at `offset`.
    fn fetch_layer<'a>(&'a self, layer: &'a LayerRequest, offset: u64) -> BoxFuture<'a, Result<LayerStream>>;
}

/// A node that has some of what was asked for.
#[derive(Debug, Clone)]
pub struct Holder {
    /// How to ask it.
    pub source: Arc<dyn BlobSource>,
    /// Layers it has, by diff ID.
    pub diff_ids: HashSet<Digest>,
    /// Images it has all of, by the digest they are pinned by.
    pub images: HashSet<Digest>,
}

/// Finds out who has something.
pub trait Locate: Send + Sync {
    /// Gives the nodes that have any of these, best first. An error is not fatal: the registry is asked then.
    fn locate<'a>(&'a self, diff_ids: &'a [Digest], images: &'a [Digest]) -> BoxFuture<'a, Result<Vec<Holder>>>;
}

/// Knows nobody: for a node without peers.
#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

impl Locate for NoPeers {
    fn locate<'a>(&'a self, _: &'a [Digest], _: &'a [Digest]) -> BoxFuture<'a, Result<Vec<Holder>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// Whom to ask for an image: peers first, then the registry.
#[derive(Clone)]
pub struct Sources {
    /// Finds peers.
    pub peers: Arc<dyn Locate>,
    /// The registry of the image's name; `None` for an imported image.
    pub registry: Option<Arc<dyn BlobSource>>,
}
