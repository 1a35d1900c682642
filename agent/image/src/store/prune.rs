//! Removing what nobody needs.

use super::ImageStore;
use crate::{
    blobs::remove_file,
    error::{ImageError, Result},
    limits::PRUNE_AGE,
};
use std::{
    collections::HashSet,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::PoisonError,
    time::{Duration, SystemTime},
};
use strata_layer::LayerError;
use strata_model::Digest;

/// What a prune has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Bytes that the disk has got back.
    pub freed_bytes: u64,
    /// Images.
    pub images: Vec<Digest>,
    /// Layers.
    pub layers: Vec<Digest>,
}

impl ImageStore {
    /// Removes the images that are not to be kept, then all blobs and layers that no image, no lease and none of `keep_layers` needs. What is in use
    /// stays, and so does what came within the last [`PRUNE_AGE`]: the cluster may not have heard of it yet. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk fails; what was removed until then is gone.
    pub fn prune(&self, keep: &HashSet<Digest>, keep_layers: &HashSet<Digest>) -> Result<Pruned> {
        let inner = &self.0;
        let mut pruned = Pruned::default();
        // Locked to the end: nobody can begin to rely on something that is about to go.
        let leases = inner.leases.lock();
        let mut images = inner.images.write().unwrap_or_else(PoisonError::into_inner);
        let useless: Vec<Digest> = images
            .keys()
            .filter(|d| !keep.contains(d) && !leases.contains_key(d) && is_old(&inner.roots.join(d.file_name())))
            .cloned()
            .collect();
        for digest in useless {
            pruned.freed_bytes += remove_counted(&inner.roots.join(digest.file_name()))?;
            images.remove(&digest);
            pruned.images.push(digest);
        }
        let mut needed: HashSet<&Digest> = leases.keys().chain(keep_layers).collect();
        for image in images.values() {
            needed.extend(&image.blobs);
            needed.extend(image.layers.iter().map(|layer| &layer.diff_id));
        }
        for blob in inner.blobs.list()? {
            let path = inner.blobs.path(&blob);
            if !needed.contains(&blob) && is_old(&path) {
                pruned.freed_bytes += remove_counted(&path)?;
            }
        }
        let failed = |layer: &Digest, error| ImageError::layer("this node", &format!("layer {layer}"), error);
        let layers = inner.layers.list().map_err(|e| ImageError::layer("this node", "the list of layers", e))?;
        for (layer, _) in layers {
            let path = inner.layers.path(&layer);
            if needed.contains(&layer) || !is_old(&path) {
                continue;
            }
            let bytes = on_disk(&path);
            match inner.layers.remove(&layer) {
                Ok(()) => {
                    pruned.freed_bytes += bytes;
                    pruned.layers.push(layer);
                }
                Err(LayerError::InUse(_)) => tracing::debug!(%layer, "layer stays: containers use it"),
                Err(error) => return Err(failed(&layer, error)),
            }
        }
        Ok(pruned)
    }
}

/// Bytes that a file takes of its disk, which may be fewer or more than it is long.
fn on_disk(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.blocks() * 512)
}

fn remove_counted(path: &Path) -> Result<u64> {
    let bytes = on_disk(path);
    remove_file(path).map(|_| bytes)
}

/// Whether a file has been there for a while. One whose time cannot be read has.
fn is_old(path: &Path) -> bool {
    let made = std::fs::metadata(path).and_then(|about| about.modified());
    let age = made.ok().and_then(|made| SystemTime::now().duration_since(made).ok());
    age.unwrap_or(Duration::MAX) >= PRUNE_AGE
}
