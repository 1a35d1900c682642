//! The agents' sessions: one stream each, assignments down, status up (strata.dispatch.v1).
//!
//! A session begins with Hello, which makes or updates the Node object and brings the status of all its pods; only then is the node
//! told its assignments. A second session of a node ends the first. What is sent down comes from [`crate::loops::dispatch`].
//!
//! Bounds: [`QUEUE_MESSAGES`] messages wait for a node, of these assignments take only what `strata_dispatcher::FRAMES_MAX` allows;
//! a stream that does not begin with Hello within [`HELLO_TIMEOUT`] is closed.

pub mod events;
mod hello;
mod registry;
mod status;

pub(crate) use hello::set_phase;
pub use registry::{Link, ResolveError, Sessions};

use crate::control::Control;
use std::{sync::Arc, time::Duration};
use strata_proto::dispatch::{
    AgentMessage, ControllerMessage, HeartbeatAck, Hello, Refused, Welcome, agent_message, controller_message,
    dispatch_server::Dispatch,
};
use strata_transport::{Role, require};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

/// Messages that wait to be sent to one node.
pub const QUEUE_MESSAGES: usize = 16;
/// How long a new stream may take to say Hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one message from an agent: Hello carries every pod of a node and its layers.
pub const AGENT_MESSAGE_BYTES_MAX: usize = 16 << 20;

type Outgoing = mpsc::Sender<Result<ControllerMessage, Status>>;

/// The dispatch service.
#[derive(Clone)]
pub struct DispatchService {
    control: Arc<Control>,
}

impl DispatchService {
    /// The service over the controller's state.
    #[must_use]
    pub fn new(control: Arc<Control>) -> Self {
        Self { control }
    }
}

#[tonic::async_trait]
impl Dispatch for DispatchService {
    type SessionStream = ReceiverStream<Result<ControllerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = require(&request, &[Role::Node])?;
        let (out, incoming) = mpsc::channel(QUEUE_MESSAGES);
        let control = self.control.clone();
        tokio::spawn(async move {
            let node = peer.name;
            if let Err(status) = run(&control, &node, request.into_inner(), &out).await {
                debug!(node, %status, "session ended");
                // The node may be gone already; then nobody wants to know.
                out.try_send(Err(status)).ok();
            }
        });
        Ok(Response::new(ReceiverStream::new(incoming)))
    }
}

/// One message down.
fn down(message: controller_message::Message) -> ControllerMessage {
    ControllerMessage { message: Some(message) }
}

async fn run(
    control: &Arc<Control>,
    node: &str,
    mut inbound: Streaming<AgentMessage>,
    out: &Outgoing,
) -> Result<(), Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the session did not begin with Hello in time"))??;
    let Some(AgentMessage { message: Some(agent_message::Message::Hello(hello)) }) = first else {
        return Err(Status::failed_precondition("a session begins with Hello"));
    };
    if hello.api_level == 0 {
        refuse(out, "ApiLevel", "API level 0 is not spoken here: update the agent".into()).await;
        return Ok(());
    }
    let link = control.sessions.open(node, out.clone());
    let result = serve(control, node, hello, &mut inbound, out, &link).await;
    control.sessions.close(&link);
    info!(node, "agent disconnected");
    result
}

async fn serve(
    control: &Arc<Control>,
    node: &str,
    hello: Hello,
    inbound: &mut Streaming<AgentMessage>,
    out: &Outgoing,
    link: &Arc<Link>,
) -> Result<(), Status> {
    let api_level = hello.api_level.min(strata_proto::API_LEVEL);
    let admitted = match hello::admit(control, node, &hello).await {
        Ok(admitted) => admitted,
        Err(hello::NotAdmitted::Refused { reason, message }) => {
            refuse(out, reason, message).await;
            return Ok(());
        }
        Err(hello::NotAdmitted::Store(error)) => return Err(unavailable(&error)),
    };
    let mut pods = status::Pods::new(node);
    pods.apply(control, &hello.pods).await.map_err(|e| unavailable(&e))?;
    pods.remember_strangers(control, &hello.pods);
    let settings = &control.settings;
    let welcome = Welcome {
        api_level,
        cluster_id: settings.cluster_id.clone(),
        subnet: admitted.subnet.clone(),
        cluster_cidr: settings.cluster_cidr.to_string(),
        heartbeat_ms: u32::try_from(settings.leases.heartbeat_ms).unwrap_or(u32::MAX),
        lease_ms: u32::try_from(settings.leases.lease_ms).unwrap_or(u32::MAX),
        node_index: admitted.index,
        service_cidr: settings.service_cidr.to_string(),
        cluster_domain: strata_model::limits::CLUSTER_DOMAIN.to_owned(),
    };
    send(out, controller_message::Message::Welcome(welcome)).await?;
    control.leases().synced(&strata_model::NodeName::from_trusted(node), control.now());
    control.leases_changed.notify_one();
    hello::set_ready(control, node).await.map_err(|e| unavailable(&e))?;
    info!(node, pods = hello.pods.len(), address = hello.address, "agent connected");
    control.sessions.announce(link);
    loop {
        let message = tokio::select! {
            () = link.ended() => return Ok(()),
            message = inbound.message() => message?,
        };
        let Some(message) = message.and_then(|m| m.message) else { return Ok(()) };
        match message {
            agent_message::Message::Hello(_) => {
                return Err(Status::failed_precondition("a session says Hello once"));
            }
            agent_message::Message::Heartbeat(beat) => renew(control, node, out, beat.sequence).await?,
            agent_message::Message::Status(batch) => {
                renew(control, node, out, batch.sequence).await?;
                pods.apply(control, &batch.pods).await.map_err(|e| unavailable(&e))?;
                hello::apply_node(control, node, &batch).await.map_err(|e| unavailable(&e))?;
                for event in &batch.events {
                    events::record(control, event.clone(), node).await;
                }
            }
            agent_message::Message::Resolved(reply) => control.sessions.resolved(link, reply),
            agent_message::Message::Ack(ack) => control.sessions.acknowledged(link, ack.generation),
            agent_message::Message::Resync(_) => control.sessions.wants_resync(link),
            agent_message::Message::Services(ack) => control.sessions.services_in_effect(link, ack.sequence),
        }
    }
}

/// Takes a sign of life and acknowledges it. A node that was given up in the meantime has to begin anew.
async fn renew(control: &Control, node: &str, out: &Outgoing, sequence: u64) -> Result<(), Status> {
    let name = strata_model::NodeName::from_trusted(node);
    let (returned, settled) = {
        let mut leases = control.leases();
        (leases.renew(&name, control.now()), leases.is_settled(node))
    };
    if !settled {
        return Err(Status::aborted("the node's lease has ended in this session: connect again and report all pods"));
    }
    if returned {
        hello::set_ready(control, node).await.map_err(|e| unavailable(&e))?;
        control.leases_changed.notify_one();
    }
    // A full queue means the node does not read: then it may as well miss an acknowledgement.
    out.try_send(Ok(down(controller_message::Message::Heartbeat(HeartbeatAck { sequence })))).ok();
    Ok(())
}

async fn refuse(out: &Outgoing, reason: &str, message: String) {
    warn!(reason, message, "session refused");
    let refused = Refused { reason: reason.to_owned(), message };
    // An error says that the node is gone: then it is refused anyway.
    out.send(Ok(down(controller_message::Message::Refused(refused)))).await.ok();
}

async fn send(out: &Outgoing, message: controller_message::Message) -> Result<(), Status> {
    out.send(Ok(down(message))).await.map_err(|_| Status::cancelled("the agent closed the session"))
}

fn unavailable(error: &strata_store::StoreError) -> Status {
    warn!(%error, "a session ends because its report cannot be stored");
    Status::unavailable(format!("the report could not be stored, connect again: {error}"))
}
