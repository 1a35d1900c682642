//! Removing an image, and what no other needs.

use super::ImageStore;
use crate::{
    blobs::remove_file,
    error::{ImageError, Result},
};
use std::{collections::HashSet, sync::PoisonError};
use strata_layer::LayerError;
use strata_model::Digest;

impl ImageStore {
    /// Removes an image, then the blobs and layers that neither another image nor a lease needs; gives the bytes freed.
    /// Layers that containers use stay until the next removal that finds them free. Blocks on the disk.
    ///
    /// # Errors
    /// `Missing` if the image is not here, `InUse` if a lease holds it, or when the disk fails.
    pub fn remove(&self, digest: &Digest) -> Result<u64> {
        let inner = &self.0;
        // Locked to the end: nobody can begin to rely on something that is about to go.
        let leases = inner.leases.lock();
        if leases.contains_key(digest) {
            return Err(ImageError::InUse(digest.clone()));
        }
        let mut images = inner.images.write().unwrap_or_else(PoisonError::into_inner);
        let image = images.get(digest).cloned().ok_or_else(|| ImageError::Missing(digest.clone()))?;
        remove_file(&inner.roots.join(digest.file_name()))?;
        images.remove(digest);
        let mut needed: HashSet<&Digest> = leases.keys().collect();
        for other in images.values() {
            needed.extend(&other.blobs);
            needed.extend(other.layers.iter().map(|layer| &layer.diff_id));
        }
        let mut freed = 0;
        for blob in image.blobs.iter().filter(|blob| !needed.contains(blob)) {
            freed += inner.blobs.remove(blob)?;
        }
        let unneeded: HashSet<&Digest> =
            image.layers.iter().map(|layer| &layer.diff_id).filter(|layer| !needed.contains(layer)).collect();
        for layer in unneeded {
            let size = inner.layer_bytes(layer).unwrap_or(0);
            match inner.layers.remove(layer) {
                Ok(()) => freed += size,
                Err(LayerError::InUse(_)) => tracing::info!(%layer, "layer stays: containers use it"),
                Err(error) => return Err(ImageError::layer("this node", &format!("layer {layer}"), error)),
            }
        }
        Ok(freed)
    }
}
