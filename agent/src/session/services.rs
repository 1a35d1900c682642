//! Taking services in, one frame after the other: acknowledged when it is in effect on this node, so that a pod which has left them may stop.

use super::SEND_TIMEOUT;
use crate::world::{Network, ServiceRanges, World};
use std::{sync::Arc, time::Duration};
use strata_proto::dispatch::{AgentMessage, Services, ServicesAck, Welcome, agent_message::Message};
use tokio::sync::mpsc;

/// The wait before a frame is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The ranges that a controller names; `None` if it knows no services.
pub(super) fn ranges(welcome: &Welcome) -> Option<ServiceRanges> {
    ServiceRanges::parse(&welcome.cluster_cidr, &welcome.service_cidr, &welcome.cluster_domain)
}

/// Runs until the stream ends.
pub(super) async fn take_in<W: World>(
    world: Arc<W>,
    ranges: ServiceRanges,
    mut down: mpsc::Receiver<Services>,
    up: mpsc::Sender<AgentMessage>,
) {
    while let Some(frame) = down.recv().await {
        let mut told = false;
        while let Err(trouble) = Network::set_services(&*world, &ranges, &frame).await {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(reason = trouble.reason, "services are not in effect yet: {trouble}");
            }
            tokio::time::sleep(RETRY).await;
        }
        let ack = Message::Services(ServicesAck { sequence: frame.sequence });
        if up.send_timeout(AgentMessage { message: Some(ack) }, SEND_TIMEOUT).await.is_err() {
            return;
        }
    }
}
