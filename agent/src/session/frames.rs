//! Taking frames in, in order, on a task of its own: a large frame must not hold up heartbeats.

use super::SEND_TIMEOUT;
use crate::{
    ledger::{Ledger, SessionFacts},
    pods::Pods,
    timeline,
    world::World,
};
use std::{sync::Arc, time::Duration};
use strata_proto::dispatch::{Ack, AgentMessage, Assignments, Resync, Welcome, agent_message::Message};
use tokio::sync::mpsc;
use tracing::{Instrument as _, Span};

/// How long the agent waits after the disk refused a frame, before it asks for another one.
const DISK_WAIT: Duration = Duration::from_secs(2);

/// What comes down the stream and belongs into the ledger.
#[derive(Debug)]
pub(super) enum Down {
    Welcome(Welcome),
    Frame(Assignments),
}

/// Where the assignments of this session stand.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum At {
    /// Nothing came yet, or something did not fit: only a full frame does.
    Nowhere,
    /// This generation is in the ledger.
    Generation(u64),
}

impl At {
    /// Whether a frame may be taken in here.
    pub(super) fn fits(self, frame: &Assignments) -> bool {
        frame.full || self == Self::Generation(frame.base)
    }
}

/// Runs until the stream ends.
pub(super) async fn take_in<W: World>(
    ledger: Arc<Ledger>,
    pods: Arc<Pods<W>>,
    mut down: mpsc::Receiver<Down>,
    up: mpsc::Sender<AgentMessage>,
) {
    let mut at = At::Nowhere;
    // One Resync is enough until its answer, a full frame, is here.
    let mut asked = false;
    while let Some(message) = down.recv().await {
        let frame = match message {
            Down::Welcome(welcome) => {
                keep_facts(&ledger, welcome).await;
                continue;
            }
            Down::Frame(frame) => frame,
        };
        if !at.fits(&frame) {
            tracing::info!(base = frame.base, ?at, "a delta does not fit");
            if !std::mem::replace(&mut asked, true) && !send(&up, Message::Resync(Resync {})).await {
                return;
            }
            at = At::Nowhere;
            continue;
        }
        let generation = frame.generation;
        let span = span(&frame);
        let timed = span.in_scope(|| timeline::Step::begin("", "ledger: frame"));
        let applied = pods.apply(frame).instrument(span).await;
        drop(timed);
        let answer = match applied {
            Ok(()) => {
                at = At::Generation(generation);
                asked = false;
                Message::Ack(Ack { generation })
            }
            Err(e) => {
                tracing::error!(generation, "{e}");
                at = At::Nowhere;
                asked = true;
                tokio::time::sleep(DISK_WAIT).await;
                Message::Resync(Resync {})
            }
        };
        if !send(&up, answer).await {
            return;
        }
    }
}

/// In the trace of the first pod that has one; none if no pod has.
fn span(frame: &Assignments) -> Span {
    let Some(trace) = frame.pods.iter().map(|p| p.trace_parent.as_str()).find(|t| !t.is_empty()) else {
        return Span::none();
    };
    let span =
        tracing::info_span!("session", generation = frame.generation, full = frame.full, pods = frame.pods.len());
    strata_telemetry::continue_trace(&span, trace);
    span
}

async fn send(up: &mpsc::Sender<AgentMessage>, message: Message) -> bool {
    up.send_timeout(AgentMessage { message: Some(message) }, SEND_TIMEOUT).await.is_ok()
}

async fn keep_facts(ledger: &Arc<Ledger>, welcome: Welcome) {
    let ledger = ledger.clone();
    let kept = tokio::task::spawn_blocking(move || {
        let before = ledger.session()?;
        let facts = SessionFacts {
            generation: before.generation,
            subnet: welcome.subnet,
            cluster_cidr: welcome.cluster_cidr,
            service_cidr: welcome.service_cidr,
            cluster_domain: welcome.cluster_domain,
            node_index: welcome.node_index,
            cluster_id: welcome.cluster_id,
        };
        if facts == before { Ok(()) } else { ledger.save_session(&facts) }
    })
    .await;
    match kept {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::error!("{e}"),
        Err(e) => tracing::error!("keeping the session's facts: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_fits_exactly_its_base() {
        let full = Assignments { full: true, generation: 9, ..Default::default() };
        let delta = |base| Assignments { base, generation: base + 1, ..Default::default() };
        assert!(At::Nowhere.fits(&full) && At::Generation(20).fits(&full));
        assert!(!At::Nowhere.fits(&delta(0)));
        assert!(At::Generation(3).fits(&delta(3)));
        assert!(!At::Generation(3).fits(&delta(2)) && !At::Generation(3).fits(&delta(4)));
    }
}
