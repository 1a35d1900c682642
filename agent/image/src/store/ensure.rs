//! Making an image be here: what is missing comes from peers first, then from the registry.

use super::{
    ImageStore,
    open::{Chain, Link, StoredImage, follow},
};
use crate::{
    error::{ImageError, Result},
    fetch::fetch_layer,
    lease::Lease,
    limits,
    progress::{Progress, ProgressSink, Step},
    source::{BlobKind, BlobSource, Holder, LayerRequest, Sources},
};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use strata_model::{Digest, PinnedImage};

const NOT_IN_A_REGISTRY: &str = "it was imported, so only nodes have it: import it again";
const ASK_AGAIN: &str = "neither a peer nor a registry gave it: try again, or pull the image anew";

impl ImageStore {
    /// Makes the image be here and gives it. What is here already is not fetched again, and whoever else wants the same blob
    /// or layer meanwhile shares the download. Dropping the future gives the work up unless somebody else waits for it.
    ///
    /// # Errors
    /// The last source's error when all have failed; errors of this node's disk at once.
    pub async fn ensure(
        &self,
        image: &PinnedImage,
        sources: &Sources,
        progress: &ProgressSink,
    ) -> Result<Arc<StoredImage>> {
        let mut lease = self.lease();
        lease.hold(&image.digest);
        if let Some(stored) = self.image(&image.digest).filter(|stored| stored.from_registry || !image.from_registry) {
            for layer in &stored.layers {
                progress.tell(Progress::layer(&layer.diff_id, layer.size_bytes, layer.size_bytes, Step::Present));
            }
            progress.tell(Progress::image(Step::Done));
            return Ok(stored);
        }
        let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let holders = self.locate(sources, &diff_ids, std::slice::from_ref(&image.digest)).await;
        let chain = self.ensure_chain(image, sources, &holders, &mut lease).await?;
        // On another platform than the one that resolved the name the layers are others: ask again.
        let wanted: Vec<Digest> = chain.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let holders = if wanted == diff_ids { holders } else { self.locate(sources, &wanted, &[]).await };
        wanted.iter().for_each(|layer| lease.hold(layer));
        self.ensure_layers(&chain.layers, sources, &holders, progress).await?;
        let (digest, from_registry) = (image.digest.clone(), image.from_registry);
        // The lease goes along, so that it holds until the root is written even if this future is dropped.
        let stored = self.blocking(move |store| {
            let stored = store.adopt(&digest, from_registry);
            drop(lease);
            stored
        });
        let stored = stored.await?;
        progress.tell(Progress::image(Step::Done));
        Ok(stored)
    }

    async fn locate(&self, sources: &Sources, diff_ids: &[Digest], images: &[Digest]) -> Arc<Vec<Holder>> {
        Arc::new(sources.peers.locate(diff_ids, images).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot find out which nodes have the image; asking its registry only");
            Vec::new()
        }))
    }

    /// Gets index, manifest and config.
    async fn ensure_chain(
        &self,
        image: &PinnedImage,
        sources: &Sources,
        holders: &[Holder],
        lease: &mut Lease,
    ) -> Result<Chain> {
        let what = format!("image {}", image.name);
        // Who has the image has its documents; who has only layers of it may have them as well.
        let mut having: Vec<&Holder> = holders.iter().collect();
        having.sort_by_key(|holder| !holder.images.contains(&image.digest));
        let order = self.order(having.into_iter().map(|holder| holder.source.clone()), sources);
        let (mut next, mut blobs) = (image.digest.clone(), Vec::new());
        for _ in 0..=limits::INDEX_DEPTH_MAX {
            lease.hold(&next);
            let bytes = self.ensure_blob(&what, &next, BlobKind::Manifest, &order).await?;
            blobs.push(next.clone());
            match follow(&what, &next, &bytes, &self.0.host)? {
                Link::Manifest(digest) => next = digest,
                Link::Config { manifest_digest, config, layers } => {
                    lease.hold(&config.digest);
                    let bytes = self.ensure_blob(&what, &config.digest, BlobKind::Config, &order).await?;
                    return Chain::close(&what, blobs, (manifest_digest, config, layers), &bytes, &self.0.host);
                }
            }
        }
        Err(ImageError::invalid(what, "indexes within indexes"))
    }

    async fn ensure_blob(
        &self,
        what: &str,
        digest: &Digest,
        kind: BlobKind,
        order: &[Arc<dyn BlobSource>],
    ) -> Result<Arc<Vec<u8>>> {
        let of = format!("{what} ({digest})");
        self.share(
            &self.0.blob_flights,
            digest,
            |_, _| (),
            || {
                let (store, digest, order, of) = (self.clone(), digest.clone(), order.to_vec(), of.clone());
                move |_| async move {
                    let wanted = digest.clone();
                    if let Some(bytes) = store.blocking(move |store| store.0.blobs.read(&wanted)).await? {
                        return Ok(Arc::new(bytes));
                    }
                    store
                        .first_of(&of, &order, |source| {
                            let (store, digest) = (store.clone(), digest.clone());
                            async move {
                                let bytes = source.fetch_blob(&digest, kind).await?;
                                store.transfers().from(&*source).add(bytes.len() as u64);
                                let from = source.name().to_owned();
                                store
                                    .blocking(move |store| {
                                        store.0.blobs.put(&digest, &bytes, &from)?;
                                        Ok(Arc::new(bytes.to_vec()))
                                    })
                                    .await
                            }
                        })
                        .await
                }
            },
        )
        .await
    }

    /// Gets all layers, a few at a time.
    async fn ensure_layers(
        &self,
        layers: &[LayerRequest],
        sources: &Sources,
        holders: &[Holder],
        progress: &ProgressSink,
    ) -> Result<()> {
        // Collected and boxed first: a lazy map of borrowing futures is not `Send` enough to be spawned.
        let all: Vec<BoxFuture<'_, Result<()>>> =
            layers.iter().map(|layer| self.ensure_layer(layer, sources, holders, progress).boxed()).collect();
        stream::iter(all).buffer_unordered(limits::LAYERS_PARALLEL).try_collect::<()>().await
    }

    async fn ensure_layer(
        &self,
        layer: &LayerRequest,
        sources: &Sources,
        holders: &[Holder],
        progress: &ProgressSink,
    ) -> Result<()> {
        let id = &layer.diff_id;
        if let Some(size) = self.0.layer_bytes(id) {
            progress.tell(Progress::layer(id, size, size, Step::Present));
            return Ok(());
        }
        let having = holders.iter().filter(|holder| holder.diff_ids.contains(id)).map(|holder| holder.source.clone());
        let order = self.order(having, sources);
        let tell = |done, total| progress.tell(Progress::layer(id, done, total, Step::Fetching));
        let size = self.share(&self.0.layer_flights, id, tell, || {
            let (store, layer, order) = (self.clone(), layer.clone(), order.clone());
            move |altitude: Arc<crate::flight::Altitude<u64>>| async move {
                if let Some(size) = store.0.layer_bytes(&layer.diff_id) {
                    return Ok(size);
                }
                let Ok(_permit) = store.0.downloads.acquire().await else {
                    return Err(ImageError::Cancelled { what: format!("layer {}", layer.diff_id) });
                };
                let what = format!("layer {}", layer.diff_id);
                store
                    .first_of(&what, &order, |source| {
                        let (store, layer, altitude) = (store.clone(), layer.clone(), altitude.clone());
                        async move {
                            let (seen, transfers) = (AtomicU64::new(0), store.transfers().from(&*source));
                            let report = |done: u64, total| {
                                transfers.add(done.saturating_sub(seen.swap(done, Relaxed)));
                                altitude.report(done, total);
                            };
                            fetch_layer(&store.0.layers, &*source, &layer, report).await
                        }
                    })
                    .await
            }
        });
        let size = size.await?;
        progress.tell(Progress::layer(id, size, size, Step::Verified));
        Ok(())
    }

    /// Peers, then the registry, then those that sent wrong bytes lately.
    fn order(&self, peers: impl Iterator<Item = Arc<dyn BlobSource>>, sources: &Sources) -> Vec<Arc<dyn BlobSource>> {
        let (last, mut order): (Vec<_>, Vec<_>) = peers.partition(|peer| self.0.is_distrusted(peer.name()));
        order.extend(sources.registry.clone());
        order.extend(last);
        order
    }

    /// Tries one source after the other.
    async fn first_of<T, F: Future<Output = Result<T>>>(
        &self,
        what: &str,
        order: &[Arc<dyn BlobSource>],
        fetch: impl Fn(Arc<dyn BlobSource>) -> F,
    ) -> Result<T> {
        let mut last = None;
        for source in order {
            match fetch(source.clone()).await {
                Ok(got) => return Ok(got),
                Err(error) if !error.worth_another_source() => return Err(error),
                Err(error) => {
                    if error.blames_sender() {
                        self.0.distrust(source.name());
                        tracing::error!(from = source.name(), %error, "wrong bytes; this source is asked last from now on");
                    } else {
                        tracing::warn!(from = source.name(), %error, "source failed");
                    }
                    last = Some(error);
                }
            }
        }
        let hint = if order.is_empty() { NOT_IN_A_REGISTRY } else { ASK_AGAIN };
        Err(last.unwrap_or_else(|| ImageError::NoSource { what: what.into(), hint }))
    }

    /// Joins the flight for a digest; when somebody else's has failed, flies once with this caller's own sources.
    async fn share<T, F, W>(
        &self,
        flights: &crate::flight::Flights<Digest, T>,
        digest: &Digest,
        tell: impl Fn(u64, u64),
        work: impl Fn() -> W,
    ) -> Result<T>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
        W: FnOnce(Arc<crate::flight::Altitude<T>>) -> F,
    {
        let (result, own) = flights.join(digest, work(), &tell).await;
        if result.is_ok() || own {
            return result;
        }
        flights.join(digest, work(), &tell).await.0
    }
}
