//! Images to registries and archives, their history, and what nobody needs of them.

use super::{
    NodeApi, Out, STREAM_WAITING_MAX,
    images::{name, status},
    stream::Outgoing,
};
use std::{collections::HashSet, sync::Arc};
use strata_image::{ArchiveFormat, Export, PushNews};
use strata_model::Digest;
use strata_proto::node::{
    DataChunk, ExportImageRequest, HistoryEntry, ImageHistoryRequest, ImageHistoryResponse, PruneRequest,
    PruneResponse, PushImageRequest, PushProgress, export_image_request::Format,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Images of one export.
const EXPORTS_MAX: usize = 64;

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|e| Status::invalid_argument(format!("{e}")))
}

impl NodeApi {
    pub(super) fn history(&self, request: &ImageHistoryRequest) -> Result<ImageHistoryResponse, Status> {
        let digest = digest(&request.digest)?;
        let image = self.node.image_store().image(&digest);
        let image = image.ok_or_else(|| Status::not_found(format!("image {digest} is not on this node any more")))?;
        let entries = image.history().into_iter().map(|e| HistoryEntry {
            created: e.created,
            created_by: e.created_by,
            comment: e.comment,
            empty_layer: e.layer.is_none(),
            diff_id: e.layer.as_ref().map(|l| l.diff_id.to_string()).unwrap_or_default(),
            size_bytes: e.layer.map_or(0, |l| l.size_bytes),
        });
        Ok(ImageHistoryResponse { entries: entries.collect() })
    }

    pub(super) fn export_stream(&self, request: &ExportImageRequest) -> Result<Out<DataChunk>, Status> {
        let permit = self.begin()?;
        if request.images.is_empty() || request.images.len() > EXPORTS_MAX {
            return Err(Status::invalid_argument(format!("an archive has 1 to {EXPORTS_MAX} images")));
        }
        let format = match request.format() {
            Format::Oci => ArchiveFormat::Oci,
            Format::Docker => ArchiveFormat::Docker,
        };
        let mut images = Vec::with_capacity(request.images.len());
        for image in &request.images {
            let name = if image.name.is_empty() { None } else { Some(name(&image.name)?) };
            images.push(Export { name, digest: digest(&image.digest)? });
        }
        let store = self.node.image_store().clone();
        let (sender, receiver) = mpsc::channel(STREAM_WAITING_MAX);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if let Err(e) = store.export(&images, format, Outgoing::new(sender.clone())) {
                // Whoever asked may have gone; that is then the error.
                sender.blocking_send(Err(status(&e))).ok();
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    pub(super) fn push_stream(&self, request: &PushImageRequest) -> Result<Out<PushProgress>, Status> {
        let permit = self.begin()?;
        let (digest, to) = (digest(&request.digest)?, name(&request.reference)?);
        let known_as = if request.name.is_empty() { None } else { Some(name(&request.name)?) };
        let node = self.node.clone();
        let (sender, receiver) = mpsc::channel(STREAM_WAITING_MAX);
        tokio::spawn(async move {
            let _permit = permit;
            let news = sender.clone();
            // A slow reader misses some of the news, not the end.
            let sink = Arc::new(move |n: PushNews| {
                news.try_send(Ok(progress(n))).ok();
            });
            let push = node.image_store().push(node.registry(), &digest, known_as.as_ref(), &to, sink);
            let pushed = tokio::select! {
                pushed = push => pushed,
                // Nobody waits for it any more.
                () = sender.closed() => return,
            };
            match pushed {
                Ok(pushed) => {
                    for (layer, blob) in pushed.recompressed {
                        let message = format!("layer {layer} was compressed anew");
                        let news = PushProgress {
                            blob: blob.to_string(),
                            step: "Recompressed".into(),
                            message,
                            ..Default::default()
                        };
                        sender.send(Ok(news)).await.ok();
                    }
                    let done =
                        PushProgress { step: "Done".into(), digest: pushed.digest.to_string(), ..Default::default() };
                    sender.send(Ok(done)).await.ok();
                }
                Err(e) => {
                    sender.send(Err(status(&e))).await.ok();
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    pub(super) async fn prune_images(&self, request: PruneRequest) -> Result<PruneResponse, Status> {
        let keep = request.keep_images.iter().map(|d| digest(d)).collect::<Result<HashSet<_>, _>>()?;
        let node = self.node.clone();
        let pruned = tokio::task::spawn_blocking(move || {
            let cached = node.build_cache_layers(request.build_cache);
            node.image_store().prune(&keep, &cached)
        });
        let pruned = pruned.await.map_err(|_| Status::cancelled("the agent stops"))?;
        self.node.inventory_changed();
        let pruned = pruned.map_err(|e| status(&e))?;
        Ok(PruneResponse {
            freed_bytes: pruned.freed_bytes,
            removed_layers: pruned.layers.iter().map(ToString::to_string).collect(),
            removed_images: pruned.images.iter().map(ToString::to_string).collect(),
        })
    }
}

fn progress(news: PushNews) -> PushProgress {
    PushProgress {
        blob: news.blob,
        done_bytes: news.done_bytes,
        total_bytes: news.total_bytes,
        step: news.step.into(),
        message: news.message,
        digest: String::new(),
    }
}
