//! An archive becomes an image on one node.

use super::{first, permit};
use crate::api::{ApiState, Refusal, images, limits, select};
use futures::{StreamExt as _, future, stream};
use strata_model::ImageName;
use strata_proto::{
    cluster::ImportResponse,
    node::{ImportChunk, import_chunk},
};
use tonic::{Status, Streaming};

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
    // A client that breaks off ends the stream without its last message: the node then imports nothing. The answer comes soon, and with it the end
    // of the permit, unless this call is dropped before, which cancels the node's.
    let rest = chunks.take_while(|chunk| future::ready(chunk.is_ok())).filter_map(|chunk| future::ready(chunk.ok()));
    let mut client = api.client.clone();
    let call = client.import_image(stream::iter([begin]).chain(rest));
    let answer = api.answer(limits::TRANSFER_TIMEOUT, call).await?.into_inner();
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
