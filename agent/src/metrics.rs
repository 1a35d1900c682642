//! `/metrics` for Prometheus: what the board and the inventory say, at the time of asking.

use crate::{pods::Board, world::Images};
use axum::{Router, routing::get};
use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr, sync::Arc};
use strata_proto::types::PodStatus;
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
            ([("content-type", "text/plain; version=0.0.4")], text)
        }
    };
    axum::serve(listener, Router::new().route("/metrics", get(answer))).await?;
    Ok(())
}

fn render(board: &Board, inventory: &crate::world::Inventory, up: bool) -> String {
    let (phases, restarts) = count(&board.statuses());
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: Vec<(String, u64)>| {
        // Writing to a String cannot fail.
        write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
        for (labels, value) in values {
            writeln!(text, "{name}{labels} {value}").ok();
        }
    };
    let one = |value| vec![(String::new(), value)];
    let bytes = inventory.layers.iter().map(|l| l.size_bytes).sum();
    let phases = phases.into_iter().map(|(phase, n)| (format!("{{phase=\"{phase}\"}}"), n)).collect();
    metric("strata_agent_session_up", "gauge", "Whether a session with the controller is up.", one(u64::from(up)));
    metric("strata_agent_pods", "gauge", "Pods on this node by phase.", phases);
    metric(
        "strata_agent_container_restarts",
        "gauge",
        "Restarts of the containers that are on this node.",
        one(restarts),
    );
    metric("strata_agent_layers", "gauge", "Layers on this node.", one(inventory.layers.len() as u64));
    metric("strata_agent_layer_bytes", "gauge", "Bytes of their files.", one(bytes));
    metric("strata_agent_images", "gauge", "Images that are wholly here.", one(inventory.images.len() as u64));
    text
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
