//! Files of a container, both ways, and what it has changed.

use super::{BoxStream, first, outward, permit};
use crate::api::{ApiState, Refusal, images, limits, select};
use futures::{StreamExt as _, future, stream};
use strata_model::ImageName;
use strata_proto::{
    cluster::{CommitRequest, CommitResponse, CopyInRequest, CopyOutRequest, PodRequest},
    node::{
        self, CopyInChunk, CopyInResponse, CopyInStart, DataChunk, DiffRequest, DiffResponse, copy_in_chunk::Message,
    },
};
use tonic::{Status, Streaming};

/// A tar of a path of a container.
pub async fn copy_out(state: &ApiState, request: CopyOutRequest) -> Result<BoxStream<DataChunk>, Status> {
    let permit = permit(state)?;
    let (api, target) = find(state, request.pod).await?;
    let asked = node::CopyOutRequest { pod_uid: target.pod_uid, container: target.container, path: request.path };
    let mut client = api.client.clone();
    let stream = api.answer(limits::NODE_ANSWER_TIMEOUT, client.copy_out(asked)).await?.into_inner();
    Ok(outward(api, stream, permit))
}

/// A tar into a directory of a container. The answer comes when all of it is there.
pub async fn copy_in(state: &ApiState, mut requests: Streaming<CopyInRequest>) -> Result<CopyInResponse, Status> {
    let _permit = permit(state)?;
    let begin = first(&mut requests, "where to copy to").await?;
    let (api, target) = find(state, begin.pod).await?;
    let start = CopyInStart { pod_uid: target.pod_uid, container: target.container, path: begin.path };
    let begin = [Some(CopyInChunk { message: Some(Message::Start(start)) }), begin.chunk.filter(is_data)];
    // A client that breaks off ends the stream without its last message, and the node then says so.
    let rest = requests
        .take_while(|r| future::ready(r.is_ok()))
        .filter_map(|r| future::ready(r.ok().and_then(|r| r.chunk).filter(is_data)));
    let mut client = api.client.clone();
    let call = client.copy_in(stream::iter(begin.into_iter().flatten()).chain(rest));
    Ok(api.answer(limits::TRANSFER_TIMEOUT, call).await?.into_inner())
}

fn is_data(chunk: &CopyInChunk) -> bool {
    matches!(chunk.message, Some(Message::Data(_) | Message::End(_)))
}

/// What a container has changed of its image.
pub async fn diff(state: &ApiState, request: PodRequest) -> Result<BoxStream<DiffResponse>, Status> {
    let permit = permit(state)?;
    let (api, target) = find(state, Some(request)).await?;
    let asked = DiffRequest { pod_uid: target.pod_uid, container: target.container };
    let mut client = api.client.clone();
    let stream = api.answer(limits::NODE_ANSWER_TIMEOUT, client.diff(asked)).await?.into_inner();
    Ok(outward(api, stream, permit))
}

/// The container of a request, and its node.
async fn find(
    state: &ApiState,
    request: Option<PodRequest>,
) -> Result<(crate::api::node_clients::NodeApi, select::Target), Status> {
    let request = request.ok_or_else(|| Refusal::invalid("pod: is missing"))?;
    let snapshot = state.store.snapshot();
    let target = select::container(&snapshot, &request.namespace, &request.pod, &request.container)?;
    let api = state.nodes.of(&snapshot, &target.node).await?;
    Ok((api, target))
}

/// A container's writable layer becomes an image, known under a name.
pub async fn commit(state: &ApiState, request: CommitRequest) -> Result<CommitResponse, Status> {
    let _permit = permit(state)?;
    let commit = request.commit.ok_or_else(|| Refusal::invalid("commit: is missing"))?;
    ImageName::parse(&commit.name).map_err(|e| Refusal::invalid(e.to_string()))?;
    let (api, target) = find(state, request.pod).await?;
    let asked = node::CommitRequest { pod_uid: target.pod_uid, container: target.container, ..commit };
    let mut client = api.client.clone();
    let made = api.answer(limits::TRANSFER_TIMEOUT, client.commit(asked)).await?.into_inner();
    let made = made.image.unwrap_or_default();
    let image = images::record_image(&state.store, &made.name, made.image.unwrap_or_default(), &api.name).await?;
    Ok(CommitResponse { image: Some(image) })
}
