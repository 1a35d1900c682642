//! The images of a node: what a name means, where its bytes come from, and that they are the right ones.
//!
//! - [`Registry`] resolves names and reads blobs from registries (OCI distribution, Docker v2).
//! - [`ImageStore`] keeps manifests, indexes and configs by digest, knows which images are complete, and
//!   [`ImageStore::ensure`] gets what is missing: from peers by diff ID first, then from the registry.
//! - [`ImageStore::import`] takes OCI layouts and docker archives.
//! - [`BlobSource`] and [`Locate`] are where the world begins; registries and peers (crate `strata-peer`) implement them.
//!
//! - [`ImageStore::export`] writes such archives, [`ImageStore::push`] gives a registry what it lacks, [`ImageStore::prune`] removes what nobody needs.
//!
//! Not here: the layer files and their format (`strata-layer`), names in the cluster (the controller's Image objects).
//!
//! Invariants: whatever has a digest's name on disk has that digest. Nothing that a registry, peer or archive says is
//! believed before it is verified: documents by their digest, layers by the blob's digest (where there is a blob) and by
//! their diff ID. No path from outside is ever used as a path here. What work in progress needs is leased and not removed.
//! Every download is shared by all who want it, bounded, and ends when nobody wants it any more.

mod blobs;
mod decode;
mod document;
mod error;
mod export;
mod fetch;
mod flight;
mod hash;
mod history;
mod import;
mod lease;
pub mod limits;
mod made;
mod pipe;
mod platform;
mod progress;
mod push;
mod registry;
mod source;
mod store;

pub use document::Descriptor;
pub use error::{ImageError, Result};
pub use export::{ArchiveFormat, Export};
pub use history::HistoryEntry;
pub use import::ImportedImage;
pub use lease::Lease;
pub use pipe::{PipeReader, PipeWriter, ReaderGone, pipe};
pub use platform::Platform;
pub use progress::{Progress, ProgressSink, Step};
pub use push::{PushNews, PushSink, Pushed};
pub use registry::{Credentials, Registry, RegistrySettings, RegistrySource, Resolved};
pub use source::{BlobKind, BlobSource, Encoding, Holder, LayerRequest, LayerStream, Locate, NoPeers, Sources};
pub use store::{ImageStore, Pruned, StoredImage, Transfers};

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use strata_model::{ImageName, PinnedImage};

    fn spawnable<T: Send + 'static>(_: T) {}

    #[allow(dead_code)]
    fn every_future_can_be_spawned(store: ImageStore, registry: Registry, name: ImageName, image: PinnedImage) {
        let (s, r, n) = (store.clone(), registry.clone(), name.clone());
        spawnable(async move { r.resolve(&n).await });
        let (sources, progress) = (Sources { peers: Arc::new(NoPeers), registry: None }, ProgressSink::silent());
        spawnable(async move { s.ensure(&image, &sources, &progress).await });
        let progress = ProgressSink::silent();
        spawnable(async move { store.pull(&registry, &name, Arc::new(NoPeers), &progress).await });
    }
}
