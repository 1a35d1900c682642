//! An archive becomes an image on one node.

use super::{first, permit};
use crate::api::{ApiState, Refusal, images, limits, select};
use futures::{StreamExt as _, stream};
use strata_model::ImageName;
use strata_proto::{
    cluster::ImportResponse,
    node::{ImportChunk, import_chunk},
};
use tokio::sync::oneshot;
use tonic::{Code, Status, Streaming};

/// Passes the archive to the ready node with the fewest pods and records the images it finds in it.
pub async fn import(state: &ApiState, mut chunks: Streaming<ImportChunk>) -> Result<ImportResponse, Status> {
    let _permit = permit(state)?;
    let begin = first(&mut chunks, "the image's name").await?;
    let Some(import_chunk::Message::Start(start)) = &begin.message else {
        return Err(Refusal::invalid("the first message must be `start`").into());
    };
    if !start.name.is_empty() {
        ImageName::parse(&start.name).map_err(|e| Refusal::invalid(e.to_string()))?;
    }
    let snapshot = state.store.snapshot();
    let node = select::ready_nodes(&snapshot).into_iter().next().ok_or_else(|| select::no_node("take an image"))?;
    let api = state.nodes.of(&snapshot, &node).await?;
    // A client that breaks off must not look like the end of the archive: its error cancels the node's call.
    let (broken, breaks) = oneshot::channel::<Status>();
    let rest = stream::unfold((chunks, Some(broken)), |(mut chunks, mut broken)| async move {
        match chunks.next().await? {
            Ok(chunk) => Some((chunk, (chunks, broken))),
            Err(status) => {
                if let Some(broken) = broken.take() {
                    // Nobody listens once the node has answered.
                    broken.send(status).ok();
                }
                std::future::pending().await
            }
        }
    });
    let mut client = api.client.clone();
    let call = client.import_image(stream::iter([begin]).chain(rest));
    let answer = tokio::select! {
        answer = api.answer(limits::TRANSFER_TIMEOUT, call) => answer?.into_inner(),
        Ok(status) = breaks => return Err(Refusal::new(Code::Cancelled, "Interrupted", format!("the archive was cut off: {}", status.message())).into()),
    };
    if answer.images.is_empty() {
        return Err(Refusal::invalid("the archive has no image").into());
    }
    let mut response = ImportResponse::default();
    for imported in answer.images {
        if imported.name.is_empty() {
            return Err(Refusal::invalid(
                "the archive names no image: say how to call it (`ctl image import --name NAME`)",
            )
            .into());
        }
        let spec = imported.image.unwrap_or_default();
        response.images.push(images::record_image(&state.store, &imported.name, spec, &node).await?);
    }
    Ok(response)
}
