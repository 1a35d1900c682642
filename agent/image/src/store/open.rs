//! Opening the store, and deriving an image from its blobs.

use super::{ImageStore, Inner};
use crate::{
    Platform,
    blobs::{Blobs, remove_temporaries, replace_file},
    document::{Descriptor, Document, choose, parse_config},
    error::{ImageError, Result},
    flight::Flights,
    lease::Leases,
    limits,
    source::LayerRequest,
};
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};
use strata_layer::LayerStore;
use strata_model::{Digest, Layer};
use tokio::sync::Semaphore;

/// An image on this node: the chain from its digest to its layers.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// What it is pinned by: the digest of an index or a manifest.
    pub digest: Digest,
    /// The manifest for this node's platform; equal to `digest` unless that is an index.
    pub manifest_digest: Digest,
    /// The config, and the identity that `docker` calls the image ID.
    pub config_digest: Digest,
    /// Entrypoint, command, environment, user, …
    pub config: ImageConfiguration,
    /// Bottom first. Sizes are those of the layer files on this node.
    pub layers: Vec<Layer>,
    /// `linux/amd64`
    pub platform: String,
    /// Whether a registry can be asked for it.
    pub from_registry: bool,
    /// Blobs it consists of: index (if any), manifest, config.
    pub(crate) blobs: Vec<Digest>,
}

impl StoredImage {
    /// Entrypoint and command as one list, for people.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        let config = self.config.config().as_ref();
        let part = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
        let mut command = part(config.and_then(|c| c.entrypoint().as_ref()));
        command.extend(part(config.and_then(|c| c.cmd().as_ref())));
        command
    }

    /// The user the config names; "" for root.
    #[must_use]
    pub fn user(&self) -> &str {
        self.config.config().as_ref().and_then(|c| c.user().as_deref()).unwrap_or("")
    }

    /// The bytes of its layer files.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size_bytes).sum()
    }
}

/// The content of a root file. Everything else follows from the blobs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Root {
    pub(super) from_registry: bool,
}

/// A chain of verified documents: what an image is before its layers are here.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) digest: Digest,
    pub(crate) manifest_digest: Digest,
    pub(crate) config_digest: Digest,
    pub(crate) config: ImageConfiguration,
    pub(crate) layers: Vec<LayerRequest>,
    pub(crate) blobs: Vec<Digest>,
}

/// What comes next in a chain.
pub(crate) enum Link {
    /// The manifest or index with this digest.
    Manifest(Digest),
    /// The config, for this manifest.
    Config { manifest_digest: Digest, config: Descriptor, layers: Vec<Descriptor> },
}

/// Reads a manifest or index and says what to read next.
pub(crate) fn follow(what: &str, digest: &Digest, bytes: &[u8], host: &Platform) -> Result<Link> {
    Ok(match Document::parse(what, bytes)? {
        Document::Index(entries) => Link::Manifest(choose(what, &entries, host)?.digest.clone()),
        Document::Manifest { config, layers } => Link::Config { manifest_digest: digest.clone(), config, layers },
    })
}

impl Chain {
    /// Closes a chain with its config.
    pub(crate) fn close(
        what: &str,
        mut blobs: Vec<Digest>,
        (manifest_digest, config, layers): (Digest, Descriptor, Vec<Descriptor>),
        config_bytes: &[u8],
        host: &Platform,
    ) -> Result<Self> {
        let (parsed, diff_ids) = parse_config(what, config_bytes, layers.len(), host)?;
        let layers = diff_ids.into_iter().zip(layers).map(|(diff_id, blob)| LayerRequest { diff_id, blob }).collect();
        let digest = blobs.first().cloned().unwrap_or_else(|| manifest_digest.clone());
        blobs.push(config.digest.clone());
        Ok(Self { digest, manifest_digest, config_digest: config.digest, config: parsed, layers, blobs })
    }
}

impl ImageStore {
    /// Opens the store below `state_dir` (`blobs/`, `images/`), making it if need be. Blocks on the disk.
    ///
    /// An image whose blobs are damaged or missing is left out, with a warning; ensuring it anew repairs it.
    ///
    /// # Errors
    /// When a directory cannot be made or read.
    pub fn open(state_dir: &Path, layers: LayerStore) -> Result<Self> {
        let roots = state_dir.join("images");
        fs::create_dir_all(&roots).map_err(|e| ImageError::io("creating", &roots, e))?;
        remove_temporaries(&roots)?;
        let store = Self(Arc::new(Inner {
            blobs: Blobs::open(state_dir)?,
            layers,
            host: Platform::host(),
            roots: roots.clone(),
            images: std::sync::RwLock::new(BTreeMap::new()),
            leases: Leases::default(),
            blob_flights: Flights::new(),
            layer_flights: Flights::new(),
            downloads: Semaphore::new(limits::DOWNLOADS_MAX),
            distrusted: std::sync::RwLock::default(),
            transfers: crate::store::Transfers::default(),
        }));
        for entry in fs::read_dir(&roots).map_err(|e| ImageError::io("reading", &roots, e))?.take(limits::IMAGES_MAX) {
            let entry = entry.map_err(|e| ImageError::io("reading", &roots, e))?;
            let name = entry.file_name();
            let Ok(digest) = Digest::from_file_name(&name.to_string_lossy()) else { continue };
            match store.load(&digest, &entry.path()) {
                Ok(image) => store.list_image(image),
                Err(error) => tracing::warn!(%digest, %error, "image is not complete on this node"),
            }
        }
        Ok(store)
    }

    fn load(&self, digest: &Digest, path: &Path) -> Result<StoredImage> {
        let bytes = fs::read(path).map_err(|e| ImageError::io("reading", path, e))?;
        let root: Root = serde_json::from_slice(&bytes)
            .map_err(|e| ImageError::invalid(format!("root file {}", path.display()), e.to_string()))?;
        Ok(self.stored(self.chain(digest)?, root.from_registry))
    }

    /// Derives the chain of an image from the blobs on disk.
    pub(crate) fn chain(&self, digest: &Digest) -> Result<Chain> {
        let what = format!("image {digest}");
        let read = |blob: &Digest| self.0.blobs.read(blob)?.ok_or_else(|| ImageError::Missing(digest.clone()));
        let (mut next, mut blobs) = (digest.clone(), Vec::new());
        for _ in 0..=limits::INDEX_DEPTH_MAX {
            let bytes = read(&next)?;
            blobs.push(next.clone());
            match follow(&what, &next, &bytes, &self.0.host)? {
                Link::Manifest(digest) => next = digest,
                Link::Config { manifest_digest, config, layers } => {
                    let bytes = read(&config.digest)?;
                    return Chain::close(&what, blobs, (manifest_digest, config, layers), &bytes, &self.0.host);
                }
            }
        }
        Err(ImageError::invalid(what, "indexes within indexes"))
    }

    fn stored(&self, chain: Chain, from_registry: bool) -> StoredImage {
        let layers = chain
            .layers
            .iter()
            .map(|layer| Layer {
                diff_id: layer.diff_id.clone(),
                size_bytes: self.0.layer_bytes(&layer.diff_id).unwrap_or(0),
            })
            .collect();
        StoredImage {
            digest: chain.digest,
            manifest_digest: chain.manifest_digest,
            config_digest: chain.config_digest,
            config: chain.config,
            layers,
            platform: self.0.host.to_string(),
            from_registry,
            blobs: chain.blobs,
        }
    }

    fn list_image(&self, image: StoredImage) {
        let mut images = self.0.images.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        images.insert(image.digest.clone(), Arc::new(image));
    }

    /// Makes an image whose blobs and layers are all here a root: from now on it is kept. Blocks on the disk.
    pub(crate) fn adopt(&self, digest: &Digest, from_registry: bool) -> Result<Arc<StoredImage>> {
        let image = self.stored(self.chain(digest)?, from_registry);
        if !self.0.is_complete(&image) {
            return Err(ImageError::Missing(digest.clone()));
        }
        // An image that was pulled once stays known to come from a registry.
        let known = self.image(digest);
        if let Some(known) = known.filter(|known| known.from_registry || !from_registry) {
            return Ok(known);
        }
        let root =
            serde_json::to_vec(&Root { from_registry }).map_err(|e| ImageError::invalid("root file", e.to_string()))?;
        replace_file(&self.0.roots.join(digest.file_name()), &root)?;
        self.list_image(image);
        self.image(digest).ok_or_else(|| ImageError::Missing(digest.clone()))
    }
}
