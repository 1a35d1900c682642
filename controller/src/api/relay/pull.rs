//! A pull on one node or all: first one node resolves and fetches, then the others by digest.

use super::{BoxStream, permit};
use crate::api::{ApiState, Refusal, images, limits, node_clients::NodeApi, select};
use futures::{StreamExt as _, stream};
use std::{sync::Arc, time::Duration};
use strata_model::ImageName;
use strata_proto::{
    cluster::PullRequest,
    node::{self, PullProgress},
    types::ImageSpec,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

type Progress = mpsc::Sender<Result<PullProgress, Status>>;

/// Starts a pull; the stream is its progress on all nodes, and ends with an error if it failed on any. The task ends with the stream's reader.
pub fn pull(state: &Arc<ApiState>, request: PullRequest) -> Result<BoxStream<PullProgress>, Status> {
    let permit = permit(state)?;
    let name = ImageName::parse(&request.image).map_err(|e| Refusal::invalid(e.to_string()))?;
    let nodes = select::ready_nodes(&state.store.snapshot());
    if nodes.is_empty() {
        return Err(select::no_node("pull an image").into());
    }
    let (progress, answers) = mpsc::channel(limits::PROGRESS_QUEUE);
    let state = state.clone();
    tokio::spawn(async move {
        let work = async {
            if let Err(status) = pull_everywhere(&state, &name, nodes, request.all_nodes, &progress).await {
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

async fn pull_everywhere(
    state: &ApiState,
    name: &ImageName,
    nodes: Vec<String>,
    all_nodes: bool,
    progress: &Progress,
) -> Result<(), Status> {
    let Some((first, others)) = nodes.split_first() else { return Ok(()) };
    let spec = pull_on(state, first, name, &name.to_string(), progress).await?;
    if !all_nodes {
        return Ok(());
    }
    // By digest, so that every node gets the same even if the tag moves meanwhile.
    let pinned = format!("{}/{}@{}", name.registry(), name.repository(), spec.digest);
    let failed: Vec<String> = stream::iter(others.to_vec())
        .map(|node| {
            let pinned = &pinned;
            async move { pull_on(state, &node, name, pinned, progress).await.err().map(|s| (node, s)) }
        })
        .buffer_unordered(limits::NODES_AT_ONCE)
        .filter_map(|failure| async move { failure.map(|(node, s)| format!("{node}: {}", s.message())) })
        .collect()
        .await;
    if failed.is_empty() {
        return Ok(());
    }
    let message = format!("{name} is on {first}, but not on {} other nodes: {}", failed.len(), failed.join("; "));
    Err(Refusal::new(Code::Unavailable, "PullIncomplete", message).into())
}

/// Pulls on one node, passes its progress on, and records the image before its `Done` is passed on.
async fn pull_on(
    state: &ApiState,
    node: &str,
    name: &ImageName,
    image: &str,
    progress: &Progress,
) -> Result<ImageSpec, Status> {
    let api = state.nodes.of(&state.store.snapshot(), node).await?;
    let pulled = tokio::time::timeout(limits::TRANSFER_TIMEOUT, follow(state, &api, name, image, progress)).await;
    pulled.unwrap_or_else(|_| Err(too_long(&api, limits::TRANSFER_TIMEOUT)))
}

async fn follow(
    state: &ApiState,
    api: &NodeApi,
    name: &ImageName,
    image: &str,
    progress: &Progress,
) -> Result<ImageSpec, Status> {
    let mut client = api.client.clone();
    let request = node::PullRequest { image: image.to_owned() };
    let mut steps = api.answer(limits::NODE_ANSWER_TIMEOUT, client.pull_image(request)).await?.into_inner();
    let mut failure = String::new();
    while let Some(mut step) = steps.message().await.map_err(|s| api.name_it(s))? {
        step.node = api.name.clone();
        let done = (step.step == "Done").then(|| step.image.clone()).flatten();
        if step.step == "Failed" {
            failure.clone_from(&step.message);
        }
        if let Some(spec) = &done {
            images::record_image(&state.store, &name.to_string(), spec.clone(), &api.name).await?;
        }
        if progress.send(Ok(step)).await.is_err() {
            return Err(Status::cancelled("the client has gone away"));
        }
        if let Some(spec) = done {
            return Ok(spec);
        }
    }
    if failure.is_empty() {
        failure = "its stream ended before the image was there".into();
    }
    Err(Refusal::new(
        Code::FailedPrecondition,
        "PullFailed",
        format!("node {} did not get {name}: {failure}", api.name),
    )
    .into())
}

fn too_long(api: &NodeApi, bound: Duration) -> Status {
    Refusal::timed_out(format!("node {} did not finish within {} s", api.name, bound.as_secs())).into()
}
