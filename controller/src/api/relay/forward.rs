//! A TCP connection to a port of a pod.

use super::{BoxStream, first, outward, permit};
use crate::api::{ApiState, Refusal, limits, select};
use futures::{StreamExt as _, future, stream};
use strata_proto::{
    cluster::PortForwardRequest,
    node::{DataChunk, PortForwardInput, PortForwardStart, port_forward_input::Message},
};
use tonic::{Status, Streaming};

/// Connects and ties both directions together.
pub async fn forward(
    state: &ApiState,
    mut requests: Streaming<PortForwardRequest>,
) -> Result<BoxStream<DataChunk>, Status> {
    let permit = permit(state)?;
    let begin = first(&mut requests, "the port to connect to").await?;
    let Some(pod) = begin.pod else {
        return Err(Refusal::invalid("the first message must name the pod").into());
    };
    let snapshot = state.store.snapshot();
    let target = select::pod(&snapshot, &pod.namespace, &pod.pod)?;
    target.must_run()?;
    let api = state.nodes.of(&snapshot, &target.node).await?;
    let start = Message::Start(PortForwardStart { pod_uid: target.pod_uid, port: begin.port });
    // A client that goes away also drops the answer below, and with it the node's call; so an error here is just an end.
    let rest = requests
        .take_while(|r| future::ready(r.is_ok()))
        .filter_map(|r| future::ready(r.ok().and_then(|r| r.input)))
        .filter(|input| future::ready(!matches!(input.message, Some(Message::Start(_)) | None)));
    let input = stream::iter([PortForwardInput { message: Some(start) }]).chain(rest);
    let mut client = api.client.clone();
    let output = api.answer(limits::NODE_ANSWER_TIMEOUT, client.port_forward(input)).await?.into_inner();
    Ok(outward(api, output, permit))
}
