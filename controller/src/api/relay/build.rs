//! A Dockerfile becomes an image on one node.

use super::{BoxStream, first, permit};
use crate::api::{ApiState, Refusal, images, limits, node_clients::NodeApi, select};
use futures::{StreamExt as _, future, stream};
use std::sync::Arc;
use strata_model::ImageName;
use strata_proto::{
    cluster::BuildRequest,
    node::{BuildProgress, build_chunk},
};
use strata_store::Snapshot;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

type Progress = mpsc::Sender<Result<BuildProgress, Status>>;

/// Passes the context to a node and its progress back; the image is recorded before the last message is passed on.
pub async fn build(
    state: &Arc<ApiState>,
    mut requests: Streaming<BuildRequest>,
) -> Result<BoxStream<BuildProgress>, Status> {
    let permit = permit(state)?;
    let begin = first(&mut requests, "what to build").await?;
    let Some(build_chunk::Message::Start(start)) = begin.chunk.as_ref().and_then(|chunk| chunk.message.as_ref()) else {
        return Err(Refusal::invalid("the first message must be `start`").into());
    };
    if !start.name.is_empty() {
        ImageName::parse(&start.name).map_err(|e| Refusal::invalid(e.to_string()))?;
    }
    let snapshot = state.store.snapshot();
    let node = choose(&snapshot, &begin.node)?;
    let api = state.nodes.of(&snapshot, &node).await?;
    let first = begin.chunk.unwrap_or_default();
    // A client that breaks off ends the stream without its last message: the node then builds nothing. One that goes away later also drops the
    // answer, and with it the node's call.
    let rest = requests
        .take_while(|request| future::ready(request.is_ok()))
        .filter_map(|request| future::ready(request.ok().and_then(|request| request.chunk)));
    let mut client = api.client.clone();
    let call = client.build(stream::iter([first]).chain(rest));
    let mut steps = api.answer(limits::TRANSFER_TIMEOUT, call).await?.into_inner();
    let (progress, answers) = mpsc::channel(limits::PROGRESS_QUEUE);
    let state = state.clone();
    tokio::spawn(async move {
        let work = async {
            if let Err(status) = follow(&state, &api, &mut steps, &progress).await {
                // A client that has gone away needs no answer.
                progress.send(Err(status)).await.ok();
            }
        };
        tokio::select! {
            () = work => {}
            () = progress.closed() => {}
        }
        drop(permit);
    });
    Ok(Box::pin(ReceiverStream::new(answers)))
}

async fn follow(
    state: &ApiState,
    api: &NodeApi,
    steps: &mut Streaming<BuildProgress>,
    progress: &Progress,
) -> Result<(), Status> {
    while let Some(step) = steps.message().await.map_err(|s| api.name_it(s))? {
        let last = step.image.is_some() || !step.error.is_empty();
        if let Some(built) = &step.image
            && !built.name.is_empty()
        {
            let spec = built.image.clone().unwrap_or_default();
            images::record_image(&state.store, &built.name, spec, &api.name).await?;
        }
        if progress.send(Ok(step)).await.is_err() || last {
            return Ok(());
        }
    }
    let message = format!("node {} ended the build before it was done: see its log", api.name);
    Err(Refusal::new(Code::Unavailable, "BuildBroken", message).into())
}

/// The node that is named, else the ready one with the fewest pods.
fn choose(snapshot: &Snapshot, wanted: &str) -> Result<String, Refusal> {
    let nodes = select::ready_nodes(snapshot);
    if wanted.is_empty() {
        return nodes.into_iter().next().ok_or_else(|| select::no_node("build an image"));
    }
    nodes.into_iter().find(|node| node == wanted).ok_or_else(|| {
        let message =
            format!("node {wanted} is not ready to build an image, or there is none of this name: see `ctl get nodes`");
        Refusal::new(Code::Unavailable, "NodeNotReady", message)
    })
}
