//! `/metrics` for Prometheus: what the board and the inventory say, at the time of asking.

use crate::{pods::Board, world::Images};
use axum::{Router, routing::get};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use strata_proto::types::PodStatus;
use strata_telemetry::metrics::{self, CONTENT_TYPE, Exposition};
use tokio::{net::TcpListener, sync::watch};

/// Serves until it fails; without an address it only waits.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn serve<W: Images>(
    listen: Option<SocketAddr>,
    board: Arc<Board>,
    world: Arc<W>,
    session_up: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let Some(listen) = listen else { return std::future::pending().await };
    let listener = TcpListener::bind(listen).await?;
    let answer = move || {
        let (board, world, up) = (board.clone(), world.clone(), *session_up.borrow());
        async move {
            let text = render(&board, &world.inventory().await, up);
            ([("content-type", CONTENT_TYPE)], text)
        }
    };
    axum::serve(listener, Router::new().route("/metrics", get(answer))).await?;
    Ok(())
}

fn render(board: &Board, inventory: &crate::world::Inventory, up: bool) -> String {
    let (phases, restarts) = count(&board.statuses());
    let mut text = Exposition::default();
    let bytes = inventory.layers.iter().map(|l| l.size_bytes).sum();
    text.value(metrics::AGENT_SESSION_UP, u64::from(up));
    text.by(metrics::AGENT_PODS, "phase", phases);
    text.value(metrics::AGENT_CONTAINER_RESTARTS, restarts);
    text.value(metrics::AGENT_LAYERS, inventory.layers.len() as u64);
    text.value(metrics::AGENT_LAYER_BYTES, bytes);
    text.value(metrics::AGENT_IMAGES, inventory.images.len() as u64);
    text.finish()
}

fn count(statuses: &[PodStatus]) -> (BTreeMap<&'static str, u64>, u64) {
    let mut phases: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut restarts = 0;
    for status in statuses {
        *phases.entry(strata_model::Phase::from(status.phase()).word()).or_default() += 1;
        restarts += status.containers.iter().map(|c| u64::from(c.restarts)).sum::<u64>();
    }
    (phases, restarts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_proto::{dispatch::PodReport, types::pod_status::Phase};

    #[test]
    fn pods_are_counted_by_phase() {
        let board = Board::default();
        for uid in ["a", "b"] {
            let mut status = PodStatus::default();
            status.set_phase(Phase::Running);
            board.put(PodReport { uid: uid.into(), status: Some(status), gone: false });
        }
        let text = render(&board, &crate::world::Inventory::default(), true);
        assert!(text.contains("strata_agent_pods{phase=\"Running\"} 2\n"), "{text}");
        assert!(text.contains("strata_agent_session_up 1\n"), "{text}");
    }
}
