//! Images of this machine.

use super::{Node, blocking};
use crate::world::{Images, Inventory, Storage, Trouble};
use std::sync::Arc;
use strata_image::{ImageError, ProgressSink, Resolved, Sources, StoredImage};
use strata_model::{ImageName, Layer, PinnedImage};
use strata_proto::types;
use tokio::sync::watch;

impl Images for Node {
    async fn has(&self, image: &PinnedImage) -> bool {
        self.setup.images.has_image(&image.digest)
    }

    async fn ensure(&self, image: &PinnedImage) -> Result<(), Trouble> {
        let registry = image.from_registry.then(|| Arc::new(self.setup.registry.source(&image.name)) as _);
        let sources = Sources { peers: self.setup.peers.clone(), registry };
        let ensured = self.setup.images.ensure(image, &sources, &ProgressSink::silent()).await;
        // Also after an error: some layers may have come.
        self.inventory_changed();
        let stored = ensured.map_err(trouble)?;
        self.used(&stored);
        Ok(())
    }

    async fn resolve(&self, name: &ImageName) -> Result<types::ImageSpec, Trouble> {
        self.setup.registry.resolve(name).await.map(|r| spec_of_resolved(&r)).map_err(trouble)
    }

    async fn inventory(&self) -> Inventory {
        let images = self.setup.images.clone();
        let seen = blocking(move || {
            let layers = images.layers().list().unwrap_or_else(|e| {
                tracing::warn!("the layers of this node cannot be listed: {e}");
                Vec::new()
            });
            let layers = layers.into_iter().map(|(diff_id, size_bytes)| Layer { diff_id, size_bytes }).collect();
            Inventory { layers, images: images.images().iter().map(ToString::to_string).collect() }
        });
        seen.await.unwrap_or_default()
    }

    async fn storage(&self) -> Storage {
        let (images, dir) = (self.setup.images.clone(), self.setup.state_dir.clone());
        let seen = blocking(move || {
            let layers = images.layers().list().unwrap_or_default();
            // What cannot be looked at is not counted: this is for people, not for decisions.
            let mounted = layers.iter().filter(|(id, _)| images.layers().is_mounted(id).unwrap_or(false)).count();
            let disk = rustix::fs::statvfs(&dir).map(|s| (s.f_blocks * s.f_frsize, s.f_bavail * s.f_frsize));
            let (size_bytes, free_bytes) = disk.unwrap_or_default();
            let transfers = images.transfers();
            Storage {
                mounted_layers: mounted as u64,
                registry_bytes: transfers.from_registries.get(),
                peer_bytes: transfers.from_peers.get(),
                served_bytes: transfers.to_peers.get(),
                size_bytes,
                free_bytes,
            }
        });
        seen.await.unwrap_or_default()
    }

    fn inventory_changes(&self) -> watch::Receiver<u64> {
        self.inventory.subscribe()
    }

    fn layer_mount(&self) -> String {
        self.setup.images.layers().mount_mode().name().to_owned()
    }
}

impl Node {
    /// Notes that layers were written or mounted.
    pub(super) fn used(&self, image: &StoredImage) {
        // One that finds no room is noted at its next use.
        self.cache.try_send(image.layers.iter().map(|l| l.diff_id.clone()).collect()).ok();
    }
}

/// An error of images, for a status.
pub(crate) fn trouble(e: ImageError) -> Trouble {
    Trouble::new(e.reason(), e.to_string())
}

/// What the controller keeps of an image on this node.
#[must_use]
pub fn spec_of_stored(image: &StoredImage) -> types::ImageSpec {
    types::ImageSpec {
        digest: image.digest.to_string(),
        from_registry: image.from_registry,
        layers: image.layers.iter().map(types::LayerInfo::from).collect(),
        platform: image.platform.clone(),
        config_digest: image.config_digest.to_string(),
        manifest_digest: image.manifest_digest.to_string(),
        command: image.command(),
        user: image.user().to_owned(),
        size_bytes: image.size_bytes(),
    }
}

/// What the controller keeps of an image that was only resolved.
#[must_use]
pub fn spec_of_resolved(image: &Resolved) -> types::ImageSpec {
    let config = image.config.config().clone().unwrap_or_default();
    let mut command = config.entrypoint().clone().unwrap_or_default();
    command.extend(config.cmd().clone().unwrap_or_default());
    types::ImageSpec {
        digest: image.digest.to_string(),
        from_registry: true,
        layers: image.layers.iter().map(types::LayerInfo::from).collect(),
        platform: image.platform.clone(),
        config_digest: image.config_digest.to_string(),
        manifest_digest: image.manifest_digest.to_string(),
        command,
        user: config.user().clone().unwrap_or_default(),
        size_bytes: image.layers.iter().map(|l| l.size_bytes).sum(),
    }
}
