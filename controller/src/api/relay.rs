//! Streams that pass through the controller between people and nodes. Nothing is buffered here beyond a message or two: the flow control of
//! both connections meets, and a client that goes away ends the node's call.

mod build;
mod exec;
mod files;
mod forward;
mod image_verbs;
mod import;
mod logs;
mod pull;
mod stats;

pub(super) use build::build;
pub(super) use exec::exec;
pub(super) use files::{commit, copy_in, copy_out, diff};
pub(super) use forward::forward;
pub(super) use image_verbs::{export, history, prune, push, tag};
pub(super) use import::import;
pub(super) use logs::logs;
pub(super) use pull::pull;
pub(super) use stats::stats;

use super::{ApiState, Refusal, limits, node_clients::NodeApi, view::BoxStream};
use futures::StreamExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Status, Streaming};

/// A place among the relayed streams.
fn permit(state: &ApiState) -> Result<OwnedSemaphorePermit, Refusal> {
    state.relays.clone().try_acquire_owned().map_err(|_| Refusal::overloaded("streams to nodes"))
}

/// The node's stream as the client's, with the node named in errors, holding the permit until its end.
fn outward<T: Send + 'static>(api: NodeApi, stream: Streaming<T>, permit: OwnedSemaphorePermit) -> BoxStream<T> {
    Box::pin(stream.map(move |item| {
        let _held = &permit;
        item.map_err(|status| api.name_it(status))
    }))
}

/// The first message of a client's stream, within a bound.
async fn first<T>(stream: &mut Streaming<T>, what: &str) -> Result<T, Status> {
    match tokio::time::timeout(limits::FIRST_MESSAGE_TIMEOUT, stream.message()).await {
        Ok(message) => message?.ok_or_else(|| Refusal::invalid(format!("the stream ended before {what}")).into()),
        Err(_) => {
            let seconds = limits::FIRST_MESSAGE_TIMEOUT.as_secs();
            Err(Refusal::timed_out(format!("{what} did not come within {seconds} s")).into())
        }
    }
}
