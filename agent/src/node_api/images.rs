//! Images brought, fetched and removed on request.

use super::{NodeApi, Out, STREAM_WAITING_MAX};
use crate::node::{Node, spec_of_resolved, spec_of_stored};
use std::sync::Arc;
use strata_image::{ImageError, Progress, ProgressSink};
use strata_model::{Digest, ImageName};
use strata_proto::node::{
    ImportChunk, ImportResponse, ImportedImage, PullProgress, PullRequest, RemoveImageRequest, RemoveImageResponse,
    import_chunk::Message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// An error of images with its stable word in front, which the controller keeps.
pub(super) fn status(e: &ImageError) -> Status {
    let code = match e.reason() {
        "ImageNotFound" | "Missing" => Code::NotFound,
        "Unauthorized" => Code::PermissionDenied,
        "DiskFull" => Code::ResourceExhausted,
        "RegistryUnreachable" | "PeerUnreachable" | "Busy" => Code::Unavailable,
        "InUse" | "UnsupportedPlatform" => Code::FailedPrecondition,
        "Cancelled" => Code::Cancelled,
        "Io" => Code::Internal,
        _ => Code::InvalidArgument,
    };
    Status::new(code, format!("{}: {e}", e.reason()))
}

pub(super) fn name(text: &str) -> Result<ImageName, Status> {
    ImageName::parse(text).map_err(|e| Status::invalid_argument(format!("InvalidImageName: {e}")))
}

impl NodeApi {
    /// The archive is read as it comes: nothing of it is kept but verified layers and documents.
    pub(super) async fn import(&self, mut chunks: Streaming<ImportChunk>) -> Result<ImportResponse, Status> {
        let _permit = self.begin()?;
        let Some(Message::Start(start)) = chunks.message().await?.and_then(|c| c.message) else {
            return Err(Status::invalid_argument("the first message names the image"));
        };
        let wanted = if start.name.is_empty() { None } else { Some(name(&start.name)?) };
        let (writer, reader) = strata_image::pipe();
        let images = self.node.image_store().clone();
        let feed = async move {
            while let Some(chunk) = chunks.message().await? {
                match chunk.message {
                    Some(Message::Data(data)) => {
                        let sent = writer.send(data).await;
                        if sent.is_err() {
                            // The import has ended, well or badly: its own word counts.
                            return Ok::<(), Status>(());
                        }
                    }
                    Some(Message::End(true)) => {
                        // Only a whole archive is finished; a writer that is dropped before is an error for the reader.
                        writer.finish().await.ok();
                        return Ok(());
                    }
                    _ => {}
                }
            }
            // A stream that its sender has cancelled ends like one that is complete: only the last message tells them apart.
            Err(Status::invalid_argument("Incomplete: the archive was broken off before its end, nothing was imported"))
        };
        let (fed, imported) = tokio::join!(feed, images.import(reader, wanted));
        self.node.inventory_changed();
        fed?;
        let imported = imported.map_err(|e| status(&e))?;
        let images =
            imported.iter().map(|i| ImportedImage { name: i.name.to_string(), image: Some(spec_of_stored(&i.image)) });
        Ok(ImportResponse { images: images.collect() })
    }

    pub(super) fn pull(&self, request: &PullRequest) -> Result<Out<PullProgress>, Status> {
        let permit = self.begin()?;
        let name = name(&request.image)?;
        let node = self.node.clone();
        let (sender, receiver) = mpsc::channel(STREAM_WAITING_MAX);
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = pull(&node, &name, &sender) => {}
                // Nobody watches any more; who else wants the image keeps its download.
                () = sender.closed() => {}
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    pub(super) async fn remove(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse, Status> {
        let digest: Digest = request.digest.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?;
        let images = self.node.image_store().clone();
        let removed = tokio::task::spawn_blocking(move || images.remove(&digest)).await;
        self.node.inventory_changed();
        let freed_bytes = removed.map_err(|_| Status::cancelled("the agent stops"))?.map_err(|e| status(&e))?;
        Ok(RemoveImageResponse { freed_bytes })
    }
}

async fn pull(node: &Arc<Node>, name: &ImageName, sender: &mpsc::Sender<Result<PullProgress, Status>>) {
    let news = sender.clone();
    let progress = ProgressSink::new(move |p: Progress| {
        // A slow reader misses some of the news, not the end.
        news.try_send(Ok(step(&p))).ok();
    });
    let pulled = node.image_store().pull(node.registry(), name, node.peers(), &progress).await;
    node.inventory_changed();
    let last = match pulled {
        Ok((resolved, stored)) => {
            let image = strata_proto::types::ImageSpec {
                layers: spec_of_stored(&stored).layers,
                ..spec_of_resolved(&resolved)
            };
            PullProgress { step: "Done".into(), image: Some(image), ..Default::default() }
        }
        Err(e) => PullProgress { step: "Failed".into(), message: format!("{}: {e}", e.reason()), ..Default::default() },
    };
    sender.send(Ok(last)).await.ok();
}

fn step(p: &Progress) -> PullProgress {
    PullProgress {
        layer: p.layer.as_ref().map(ToString::to_string).unwrap_or_default(),
        done_bytes: p.done_bytes,
        total_bytes: p.total_bytes,
        step: p.step.word().into(),
        ..Default::default()
    }
}
