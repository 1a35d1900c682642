//! `/metrics` for Prometheus, plain HTTP: what the store and the sessions say at the time of asking, and latencies since the start.

use crate::{
    control::Control,
    objects::{node_status, pod_status},
    serve::ServeError,
};
use axum::{Router, routing::get};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use strata_model::Phase;
use strata_proto::{
    document::kind_word,
    types::{Kind, node_status::Phase as NodePhase},
};
use strata_telemetry::metrics::{self, CONTENT_TYPE, Exposition};
use tokio::net::TcpListener;

const KINDS: [Kind; 12] = [
    Kind::Workload,
    Kind::Pod,
    Kind::Node,
    Kind::Image,
    Kind::Template,
    Kind::Event,
    Kind::Namespace,
    Kind::Token,
    Kind::Service,
    Kind::Volume,
    Kind::Config,
    Kind::Secret,
];

/// Takes the port, if there is to be one.
///
/// # Errors
/// [`ServeError::Metrics`].
pub async fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>, ServeError> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Metrics { address, source })?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "serving metrics");
    }
    Ok(Some(listener))
}

/// Serves until it fails, and says why; without a listener it only waits.
pub async fn serve(listener: Option<TcpListener>, control: Arc<Control>) -> String {
    let Some(listener) = listener else { return std::future::pending().await };
    let answer = move || {
        let text = render(&control);
        async move { ([("content-type", CONTENT_TYPE)], text) }
    };
    match axum::serve(listener, Router::new().route("/metrics", get(answer))).await {
        Ok(()) => "the metrics' server ended".to_owned(),
        Err(error) => format!("metrics: {error}"),
    }
}

/// The text.
#[must_use]
pub fn render(control: &Control) -> String {
    let (snapshot, status) = (control.store.snapshot(), control.store.status());
    let objects = KINDS.map(|kind| (kind_word(kind), count(snapshot.list(kind, None))));
    let mut pods: BTreeMap<&str, u64> = BTreeMap::new();
    for pod in snapshot.list(Kind::Pod, None) {
        *pods.entry(Phase::from(pod_status(&pod).phase()).word()).or_default() += 1;
    }
    let mut nodes: BTreeMap<&str, u64> = BTreeMap::new();
    for node in snapshot.list(Kind::Node, None) {
        let word = match node_status(&node).phase() {
            NodePhase::Unknown => "Unknown",
            NodePhase::Ready => "Ready",
            NodePhase::Lost => "Lost",
        };
        *nodes.entry(word).or_default() += 1;
    }
    let mut text = Exposition::default();
    text.by(metrics::CONTROLLER_OBJECTS, "kind", objects);
    text.by(metrics::CONTROLLER_PODS, "phase", pods);
    text.by(metrics::CONTROLLER_NODES, "phase", nodes);
    text.value(metrics::CONTROLLER_SESSIONS, count(control.sessions.connected()));
    text.value(metrics::CONTROLLER_STORE_REVISION, snapshot.revision());
    text.value(metrics::CONTROLLER_STORE_LOG_BYTES, status.log_bytes);
    text.value(metrics::CONTROLLER_STORE_FAILED, u64::from(!status.failed.is_empty()));
    text.histogram(metrics::CONTROLLER_COMMIT_SECONDS, &control.commit_times);
    text.histogram(metrics::CONTROLLER_SCHEDULE_SECONDS, &control.schedule_times);
    text.finish()
}

fn count<T>(items: impl IntoIterator<Item = T>) -> u64 {
    items.into_iter().map(|_| 1).sum()
}
