//! The images of one node: blobs by digest, and one small root file per image that is complete.

mod ensure;
mod open;
mod prune;
mod pull;
mod remove;

pub use open::StoredImage;
pub(crate) use open::{Chain, Link, follow};
pub use prune::Pruned;

use crate::{
    Platform,
    blobs::Blobs,
    error::{ImageError, Result},
    flight::Flights,
    lease::{Lease, Leases},
    limits,
    source::{BlobSource, Encoding},
};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};
use strata_layer::LayerStore;
use strata_model::Digest;
use strata_telemetry::metrics::Counter;
use tokio::sync::Semaphore;

/// The image store; cheap to clone.
///
/// An image is listed only while its manifest, config and all layers are here. Its root file, `STATE/images/<digest file
/// name>`, is written last and removed first, so a crash leaves at worst blobs and layers that no root needs.
#[derive(Clone)]
pub struct ImageStore(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) blobs: Blobs,
    pub(crate) layers: LayerStore,
    pub(crate) host: Platform,
    /// `STATE/images`
    roots: PathBuf,
    images: RwLock<BTreeMap<Digest, Arc<StoredImage>>>,
    leases: Leases,
    blob_flights: Flights<Digest, Arc<Vec<u8>>>,
    layer_flights: Flights<Digest, u64>,
    downloads: Semaphore,
    /// Sources that sent wrong bytes, and when.
    distrusted: RwLock<HashMap<String, Instant>>,
    transfers: Transfers,
}

/// Bytes of layers, manifests and configs that have come and gone since the store was opened.
#[derive(Debug, Default)]
pub struct Transfers {
    /// From registries, compressed as they send them.
    pub from_registries: Counter,
    /// From other nodes.
    pub from_peers: Counter,
    /// To other nodes.
    pub to_peers: Counter,
}

impl Transfers {
    /// What a source sends is counted here. Only nodes send the bare tar.
    pub(crate) fn from(&self, source: &dyn BlobSource) -> &Counter {
        match source.encoding() {
            Encoding::Tar => &self.from_peers,
            Encoding::Blob => &self.from_registries,
        }
    }
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStore").field("roots", &self.0.roots).finish_non_exhaustive()
    }
}

impl ImageStore {
    /// The layers that the images consist of.
    #[must_use]
    pub fn layers(&self) -> &LayerStore {
        &self.0.layers
    }

    /// What was sent and received.
    #[must_use]
    pub fn transfers(&self) -> &Transfers {
        &self.0.transfers
    }

    /// Whether manifest, config and all layers of the image are here.
    #[must_use]
    pub fn has_image(&self, digest: &Digest) -> bool {
        self.image(digest).is_some()
    }

    /// The digests of all images that are complete here.
    #[must_use]
    pub fn images(&self) -> Vec<Digest> {
        let images = self.0.images.read().unwrap_or_else(PoisonError::into_inner);
        images.values().filter(|image| self.0.is_complete(image)).map(|image| image.digest.clone()).collect()
    }

    /// An image by the digest it is pinned by, if it is complete.
    #[must_use]
    pub fn image(&self, digest: &Digest) -> Option<Arc<StoredImage>> {
        let image = self.0.images.read().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()?;
        self.0.is_complete(&image).then_some(image)
    }

    /// Reads a manifest, index or config; `None` if it is not here. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn read_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        self.0.blobs.read(digest)
    }

    /// Begins a lease: what it holds is not removed until it is dropped.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.0.leases.begin()
    }

    /// The names of the sources that sent wrong bytes lately; they are asked last.
    #[must_use]
    pub fn distrusted(&self) -> Vec<String> {
        let now = Instant::now();
        let distrusted = self.0.distrusted.read().unwrap_or_else(PoisonError::into_inner);
        distrusted.iter().filter(|(_, at)| now - **at < limits::DISTRUST).map(|(name, _)| name.clone()).collect()
    }

    /// Keeps a manifest, index or config that came from `from`. Blocks on the disk.
    pub(crate) fn keep_blob(&self, digest: &Digest, bytes: &[u8], from: &str) -> Result<()> {
        self.0.blobs.put(digest, bytes, from)
    }

    /// Where half-made files may lie until they have no name.
    pub(crate) fn scratch(&self) -> &std::path::Path {
        &self.0.roots
    }

    /// The platform that images are chosen for.
    pub(crate) fn host(&self) -> &Platform {
        &self.0.host
    }

    /// Bytes of a layer's file, if the layer is here.
    pub(crate) fn layer_bytes(&self, diff_id: &Digest) -> Option<u64> {
        self.0.layer_bytes(diff_id)
    }

    /// Runs something that blocks on the disk.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|_| ImageError::Cancelled { what: "work on the disk".into() })?
    }
}

impl Inner {
    fn is_complete(&self, image: &StoredImage) -> bool {
        image.layers.iter().all(|layer| self.layer_bytes(&layer.diff_id).is_some())
    }

    /// Bytes of a layer's file, if the layer is here. One that cannot be read is not.
    fn layer_bytes(&self, diff_id: &Digest) -> Option<u64> {
        self.layers.contains(diff_id).unwrap_or_else(|error| {
            tracing::warn!(%diff_id, %error, "cannot read a layer; it counts as missing");
            None
        })
    }

    fn distrust(&self, name: &str) {
        let now = Instant::now();
        let mut distrusted = self.distrusted.write().unwrap_or_else(PoisonError::into_inner);
        distrusted.retain(|_, at| now - *at < limits::DISTRUST);
        if distrusted.len() < limits::DISTRUSTED_MAX {
            distrusted.insert(name.to_owned(), now);
        }
    }

    fn is_distrusted(&self, name: &str) -> bool {
        let distrusted = self.distrusted.read().unwrap_or_else(PoisonError::into_inner);
        distrusted.get(name).is_some_and(|at| at.elapsed() < limits::DISTRUST)
    }
}
