//! `/metrics` for Prometheus, plain HTTP: what the store and the sessions say at the time of asking, and what was counted since the start.

use crate::{
    control::Control,
    objects::{node_status, pod_status, workload_status},
    serve::ServeError,
};
use axum::{Router, http::HeaderMap, routing::get};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use strata_model::Phase;
use strata_proto::{
    document::kind_word,
    types::{Kind, Object, node_status::Phase as NodePhase, object},
};
use strata_store::Snapshot;
use strata_telemetry::metrics::{self, Exposition, Format, write_process};
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
    let answer = move |headers: HeaderMap| {
        let format = Format::of_accept(headers.get("accept").and_then(|v| v.to_str().ok()).unwrap_or_default());
        let text = render(&control, format);
        async move { ([("content-type", format.content_type())], text) }
    };
    match axum::serve(listener, Router::new().route("/metrics", get(answer))).await {
        Ok(()) => "the metrics' server ended".to_owned(),
        Err(error) => format!("metrics: {error}"),
    }
}

/// The text.
#[must_use]
pub fn render(control: &Control, format: Format) -> String {
    let mut text = Exposition::new(format);
    write_process(&mut text, "controller", env!("CARGO_PKG_VERSION"));
    objects(&mut text, &control.store.snapshot());
    store(&mut text, control);
    let meters = &control.meters;
    text.value(metrics::CONTROLLER_SESSIONS, control.sessions.connected().len());
    text.value(metrics::CONTROLLER_SESSIONS_OPENED, control.sessions.opened());
    let frames = [("full", meters.frames_full.get()), ("delta", meters.frames_delta.get())];
    text.by(metrics::CONTROLLER_FRAMES, "kind", frames);
    let loops = meters.loops();
    text.histograms(metrics::CONTROLLER_LOOP_SECONDS, "loop", loops.iter().map(|(name, meter)| (name, &meter.rounds)));
    text.by(metrics::CONTROLLER_LOOP_ERRORS, "loop", loops.iter().map(|(name, meter)| (name, meter.errors.get())));
    text.by_two(metrics::CONTROLLER_REQUESTS, ("method", "code"), control.requests.counts());
    text.histograms(metrics::CONTROLLER_REQUEST_SECONDS, "method", control.requests.latencies());
    text.count(metrics::CONTROLLER_PLACED_PODS, &meters.placed);
    text.value(metrics::CONTROLLER_UNSCHEDULABLE_PODS, meters.unschedulable.load(Relaxed));
    text.histogram(metrics::CONTROLLER_SCHEDULE_SECONDS, &meters.schedule_seconds);
    text.finish()
}

/// What there is. A phase that nobody is in is written as 0, so that queries need not care.
fn objects(text: &mut Exposition, snapshot: &Snapshot) {
    let kinds = KINDS.map(|kind| (kind_word(kind), count(snapshot.list(kind, None))));
    let mut pods = Phase::ALL.map(|phase| (phase.word(), 0));
    for pod in snapshot.list(Kind::Pod, None) {
        add(&mut pods, Phase::from(pod_status(&pod).phase()).word());
    }
    let mut nodes = ["Unknown", "Ready", "Lost"].map(|word| (word, 0));
    for node in snapshot.list(Kind::Node, None) {
        let word = match node_status(&node).phase() {
            NodePhase::Unknown => "Unknown",
            NodePhase::Ready => "Ready",
            NodePhase::Lost => "Lost",
        };
        add(&mut nodes, word);
    }
    text.by(metrics::CONTROLLER_OBJECTS, "kind", kinds);
    text.by(metrics::CONTROLLER_PODS, "phase", pods);
    text.by(metrics::CONTROLLER_NODES, "phase", nodes);
    let unready = snapshot.list(Kind::Workload, None).filter(|o| is_unready(o));
    text.value(metrics::CONTROLLER_WORKLOADS_UNREADY, count(unready));
}

/// Whether a workload has fewer ready pods than it wants. Jobs want none that stay.
fn is_unready(workload: &Object) -> bool {
    let Some(object::Kind::Workload(w)) = &workload.kind else { return false };
    let wanted = w.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    workload_status(workload).ready < wanted
}

fn store(text: &mut Exposition, control: &Control) {
    let (status, meters) = (control.store.status(), control.store.meters());
    text.value(metrics::CONTROLLER_STORE_REVISION, status.revision);
    let commits = [("done", meters.done.get()), ("conflict", meters.conflicts.get()), ("failed", meters.failed.get())];
    text.by(metrics::CONTROLLER_STORE_COMMITS, "result", commits);
    text.histogram(metrics::CONTROLLER_STORE_COMMIT_SECONDS, &meters.commit_seconds);
    text.histogram(metrics::CONTROLLER_STORE_GROUP_COMMITS, &meters.group_commits);
    text.histogram(metrics::CONTROLLER_STORE_SYNC_SECONDS, &meters.sync_seconds);
    text.count(metrics::CONTROLLER_STORE_WRITTEN_BYTES, &meters.written_bytes);
    text.value(metrics::CONTROLLER_STORE_LOG_BYTES, status.log_bytes);
    text.value(metrics::CONTROLLER_STORE_WATCHERS, status.watchers);
    text.value(metrics::CONTROLLER_STORE_FAILED, u64::from(!status.failed.is_empty()));
    text.value(metrics::CONTROLLER_STORE_ALARM, u64::from(!status.alarm.is_empty()));
}

fn add(counts: &mut [(&str, u64)], word: &str) {
    if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == word) {
        *count += 1;
    }
}

fn count<T>(items: impl IntoIterator<Item = T>) -> u64 {
    items.into_iter().map(|_| 1).sum()
}
