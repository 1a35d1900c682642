//! `/metrics` for Prometheus: what the board and the inventory say at the time of asking, and what was counted since the start.

use crate::{
    pods::{PodMeters, Pods},
    timeline,
    world::{Inventory, Storage, World},
};
use axum::{Router, http::HeaderMap, routing::get};
use std::{net::SocketAddr, sync::Arc};
use strata_model::Phase;
use strata_proto::types::{PodStatus, container_status::State};
use strata_telemetry::metrics::{self, Exposition, Format, write_process};
use tokio::{net::TcpListener, sync::watch};

/// Serves until it fails; without an address it only waits.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn serve<W: World>(
    listen: Option<SocketAddr>,
    pods: Arc<Pods<W>>,
    world: Arc<W>,
    session_up: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let Some(listen) = listen else { return std::future::pending().await };
    let listener = TcpListener::bind(listen).await?;
    let answer = move |headers: HeaderMap| {
        let (pods, world, is_up) = (pods.clone(), world.clone(), *session_up.borrow());
        let format = Format::of_accept(headers.get("accept").and_then(|v| v.to_str().ok()).unwrap_or_default());
        async move {
            let mut text = Exposition::new(format);
            write_process(&mut text, "agent", env!("CARGO_PKG_VERSION"));
            text.value(metrics::AGENT_SESSION_UP, u64::from(is_up));
            write_pods(&mut text, &pods.board().statuses(), pods.meters());
            write_images(&mut text, &world.inventory().await, world.storage().await);
            ([("content-type", format.content_type())], text.finish())
        }
    };
    axum::serve(listener, Router::new().route("/metrics", get(answer))).await?;
    Ok(())
}

/// A phase or state that nobody is in is written as 0, so that queries need not care.
fn write_pods(text: &mut Exposition, statuses: &[PodStatus], meters: &PodMeters) {
    let mut phases = Phase::ALL.map(|phase| (phase.word(), 0));
    let mut states = [("Waiting", State::Waiting, 0), ("Running", State::Running, 0), ("Exited", State::Exited, 0)];
    for status in statuses {
        let word = Phase::from(status.phase()).word();
        phases.iter_mut().filter(|(known, _)| *known == word).for_each(|(_, count)| *count += 1);
        for container in &status.containers {
            states.iter_mut().filter(|(_, s, _)| *s == container.state()).for_each(|(_, _, count)| *count += 1);
        }
    }
    text.by(metrics::AGENT_PODS, "phase", phases);
    text.by(metrics::AGENT_CONTAINERS, "state", states.map(|(word, _, count)| (word, count)));
    text.count(metrics::AGENT_CONTAINER_RESTARTS, &meters.restarts);
    text.count(metrics::AGENT_CONTAINER_OOM_KILLS, &meters.oom_kills);
    text.count(metrics::AGENT_CONTAINER_START_FAILURES, &meters.start_failures);
    let steps = timeline::meters();
    text.histograms(metrics::AGENT_STEP_SECONDS, "step", steps.iter().map(|(step, histogram)| (step, &**histogram)));
    text.by(metrics::AGENT_STEP_FAILURES, "step", meters.step_failures());
}

fn write_images(text: &mut Exposition, inventory: &Inventory, storage: Storage) {
    let bytes: u64 = inventory.layers.iter().map(|l| l.size_bytes).sum();
    text.value(metrics::AGENT_LAYERS, inventory.layers.len());
    text.value(metrics::AGENT_LAYERS_MOUNTED, storage.mounted_layers);
    text.value(metrics::AGENT_LAYER_BYTES, bytes);
    text.value(metrics::AGENT_IMAGES, inventory.images.len());
    let fetched = [("registry", storage.registry_bytes), ("peer", storage.peer_bytes)];
    text.by(metrics::AGENT_FETCHED_BYTES, "source", fetched);
    text.value(metrics::AGENT_SERVED_BYTES, storage.served_bytes);
    text.value(metrics::AGENT_STATE_SIZE_BYTES, storage.size_bytes);
    text.value(metrics::AGENT_STATE_FREE_BYTES, storage.free_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_proto::types::{ContainerStatus, pod_status::Phase as PodPhase};

    #[test]
    fn pods_and_containers_are_counted() {
        let mut status = PodStatus::default();
        status.set_phase(PodPhase::Running);
        let mut container = ContainerStatus::default();
        container.set_state(State::Running);
        status.containers = vec![container, ContainerStatus::default()];
        let mut text = Exposition::new(Format::Text);
        write_pods(&mut text, &[status.clone(), status], &PodMeters::default());
        write_images(&mut text, &Inventory::default(), Storage { peer_bytes: 7, ..Storage::default() });
        let text = text.finish();
        for line in [
            "strata_agent_pods{phase=\"Running\"} 2\n",
            "strata_agent_pods{phase=\"Lost\"} 0\n",
            "strata_agent_containers{state=\"Running\"} 2\n",
            "strata_agent_containers{state=\"Waiting\"} 2\n",
            "strata_agent_fetched_bytes_total{source=\"peer\"} 7\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
