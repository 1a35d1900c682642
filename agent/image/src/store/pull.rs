//! Resolve and ensure in one.

use super::{ImageStore, StoredImage};
use crate::{
    error::Result,
    progress::{Progress, ProgressSink, Step},
    registry::{Registry, Resolved},
    source::{Locate, Sources},
};
use std::sync::Arc;
use strata_model::ImageName;

impl ImageStore {
    /// Resolves a name at its registry and makes the image be here.
    ///
    /// # Errors
    /// Those of [`Registry::resolve`] and [`ImageStore::ensure`].
    pub async fn pull(
        &self,
        registry: &Registry,
        name: &ImageName,
        peers: Arc<dyn Locate>,
        progress: &ProgressSink,
    ) -> Result<(Resolved, Arc<StoredImage>)> {
        progress.tell(Progress::image(Step::Resolving));
        let resolved = registry.resolve(name).await?;
        let mut lease = self.lease();
        for (digest, _) in &resolved.documents {
            lease.hold(digest);
        }
        // Keep the documents that were read for the name, so that they are not asked for twice.
        let (documents, from) = (resolved.documents.clone(), format!("registry {}", name.registry()));
        let keep = move |store: &Self| {
            documents.iter().try_for_each(|(digest, bytes)| store.0.blobs.put(digest, bytes, &from))
        };
        self.blocking(keep).await?;
        let sources = Sources { peers, registry: Some(Arc::new(registry.source(name))) };
        let stored = self.ensure(&resolved.pinned(), &sources, progress).await?;
        drop(lease);
        Ok((resolved, stored))
    }
}
