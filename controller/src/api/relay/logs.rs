//! Logs of a container.

use super::{BoxStream, outward, permit};
use crate::api::{ApiState, limits, select};
use strata_proto::{
    cluster::LogsRequest,
    node::{self, LogChunk},
};
use tonic::Status;

/// Opens the log of a container, also of one that has ended.
pub async fn logs(state: &ApiState, request: LogsRequest) -> Result<BoxStream<LogChunk>, Status> {
    let permit = permit(state)?;
    let snapshot = state.store.snapshot();
    let target = select::container(&snapshot, &request.namespace, &request.pod, &request.container)?;
    let api = state.nodes.of(&snapshot, &target.node).await?;
    let asked = node::LogsRequest {
        pod_uid: target.pod_uid,
        container: target.container,
        follow: request.follow,
        tail_lines: request.tail_lines,
        timestamps: request.timestamps,
        previous: request.previous,
    };
    let mut client = api.client.clone();
    let stream = api.answer(limits::NODE_ANSWER_TIMEOUT, client.logs(asked)).await?.into_inner();
    Ok(outward(api, stream, permit))
}
