//! Dropping the page cache of layer files after they were written or mounted: the mount has pages of its own.

use std::{collections::BTreeSet, time::Duration};
use strata_layer::LayerStore;
use strata_model::Digest;
use tokio::sync::mpsc;

/// Layers that were used.
pub(super) type Used = Vec<Digest>;

/// Uses that wait; more are left for the next time.
const WAITING_MAX: usize = 64;
/// The pages are dropped this long after the use: dirty ones cannot be.
const AFTER: Duration = Duration::from_secs(5);

/// Starts the task; it ends with the last sender.
pub(super) fn start(layers: LayerStore) -> mpsc::Sender<Used> {
    let (sender, mut used) = mpsc::channel::<Used>(WAITING_MAX);
    tokio::spawn(async move {
        while let Some(first) = used.recv().await {
            tokio::time::sleep(AFTER).await;
            let mut digests: BTreeSet<Digest> = first.into_iter().collect();
            while let Ok(more) = used.try_recv() {
                digests.extend(more);
            }
            let layers = layers.clone();
            let dropped = tokio::task::spawn_blocking(move || {
                for digest in digests {
                    if let Err(e) = layers.drop_duplicate_cache(&digest) {
                        tracing::debug!(layer = %digest, "its cache pages stay: {e}");
                    }
                }
            });
            if dropped.await.is_err() {
                return;
            }
        }
    });
    sender
}
