//! A command in a container.

use super::{BoxStream, first, outward, permit};
use crate::api::{ApiState, Refusal, limits, select};
use futures::{StreamExt as _, future, stream};
use strata_proto::{
    cluster::{ExecRequest, exec_request},
    node::{self, ExecInput, ExecOutput, exec_input},
};
use tonic::{Status, Streaming};

/// Starts a command and ties both directions together.
pub async fn exec(state: &ApiState, mut requests: Streaming<ExecRequest>) -> Result<BoxStream<ExecOutput>, Status> {
    let permit = permit(state)?;
    let Some(exec_request::Message::Start(start)) = first(&mut requests, "what to execute").await?.message else {
        return Err(Refusal::invalid("the first message must be `start`").into());
    };
    if start.command.is_empty() != start.attach {
        return Err(Refusal::invalid("start.command: is missing, or there is one although `attach` is set").into());
    }
    let snapshot = state.store.snapshot();
    let target = select::container(&snapshot, &start.namespace, &start.pod, &start.container)?;
    target.must_run()?;
    let api = state.nodes.of(&snapshot, &target.node).await?;
    let start = node::ExecStart {
        pod_uid: target.pod_uid,
        container: target.container,
        command: start.command,
        tty: start.tty,
        stdin: start.stdin,
        size: start.size,
        attach: start.attach,
    };
    let begin = ExecInput { message: Some(exec_input::Message::Start(start)) };
    // A client that goes away also drops the answer below, and with it the node's call; so an error here is just an end.
    let rest = requests
        .take_while(|r| future::ready(r.is_ok()))
        .filter_map(|r| future::ready(r.ok().and_then(|r| r.message).and_then(pass_on)));
    let input = stream::iter([begin]).chain(rest.map(|message| ExecInput { message: Some(message) }));
    let mut client = api.client.clone();
    let output = api.answer(limits::NODE_ANSWER_TIMEOUT, client.exec(input)).await?.into_inner();
    Ok(outward(api, output, permit))
}

fn pass_on(message: exec_request::Message) -> Option<exec_input::Message> {
    match message {
        exec_request::Message::Start(_) => None,
        exec_request::Message::Stdin(data) => Some(exec_input::Message::Stdin(data)),
        exec_request::Message::StdinClosed(closed) => Some(exec_input::Message::StdinClosed(closed)),
        exec_request::Message::Resize(size) => Some(exec_input::Message::Resize(size)),
    }
}
