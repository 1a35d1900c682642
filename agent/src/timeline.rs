//! How long the steps in the life of pods take: counted for metrics, told as spans in the trace of the apply that led to them, and on request as
//! debug events of the target [`TARGET`]: `STRATA_LOG=info,strata::start=debug`.
//!
//! An event `assigned` (fields `pod`, `assigned_ns`) marks the arrival of an assignment, one `step` (fields `pod`, `step`, `from_ns`,
//! `took_us`) the end of a step. Times are of CLOCK_MONOTONIC (clock_gettime(2)), so that they can be set beside those of other
//! processes. A step's word is fixed text; a colon in it says that it is a part of another step.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use strata_proto::{dispatch::Assignments, types::pod_spec::Desired};
use strata_telemetry::metrics::Histogram;
use tracing::{Level, Span};

/// The target of all events here.
pub const TARGET: &str = "strata::start";

/// As many as there are words for steps.
static METERS: Mutex<BTreeMap<&'static str, Arc<Histogram>>> = Mutex::new(BTreeMap::new());

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn is_on() -> bool {
    tracing::enabled!(target: TARGET, Level::DEBUG)
}

/// Tells of every pod that a frame wants to run, at its arrival.
pub fn assigned(frame: &Assignments) {
    if !is_on() {
        return;
    }
    let assigned_ns = monotonic_ns();
    for pod in frame.pods.iter().filter(|p| p.desired() == Desired::Run) {
        tracing::debug!(target: TARGET, pod = pod.name, assigned_ns, "assigned");
    }
}

/// The steps that have happened in this process, and how long they took.
#[must_use]
pub fn meters() -> Vec<(&'static str, Arc<Histogram>)> {
    let meters = METERS.lock().unwrap_or_else(PoisonError::into_inner);
    meters.iter().map(|(step, histogram)| (*step, histogram.clone())).collect()
}

/// A step that goes on until this is dropped, whatever came of it.
#[derive(Debug)]
pub struct Step<'a> {
    pod: &'a str,
    step: &'static str,
    from_ns: u64,
    /// Closed with the step; none if the step is not part of a trace.
    _span: Span,
}

impl<'a> Step<'a> {
    /// Begins a step of the pod of this name.
    #[must_use]
    pub fn begin(pod: &'a str, step: &'static str) -> Self {
        let traced = !Span::current().is_none();
        let span = if traced { tracing::info_span!("part", otel.name = step, pod) } else { Span::none() };
        Self { pod, step, from_ns: monotonic_ns(), _span: span }
    }

    /// The same for a step that its caller has given a span.
    #[must_use]
    pub fn begin_whole(pod: &'a str, step: &'static str) -> Self {
        Self { pod, step, from_ns: monotonic_ns(), _span: Span::none() }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let took_ns = monotonic_ns().saturating_sub(self.from_ns);
        let meter = METERS.lock().unwrap_or_else(PoisonError::into_inner).entry(self.step).or_default().clone();
        meter.record(Duration::from_nanos(took_ns));
        if is_on() {
            let (from_ns, took_us) = (self.from_ns, took_ns / 1_000);
            tracing::debug!(target: TARGET, pod = self.pod, step = self.step, from_ns, took_us, "step");
        }
    }
}
