//! When the steps of a pod's start happen, told as debug events of the target [`TARGET`]: `STRATA_LOG=info,strata::start=debug`.
//!
//! An event `assigned` (fields `pod`, `assigned_ns`) marks the arrival of an assignment, one `step` (fields `pod`, `step`, `from_ns`,
//! `took_us`) the end of a step. Times are of CLOCK_MONOTONIC (clock_gettime(2)), so that they can be set beside those of other
//! processes. While the target is off, no clock is read.

use strata_proto::{dispatch::Assignments, types::pod_spec::Desired};
use tracing::Level;

/// The target of all events here.
pub const TARGET: &str = "strata::start";

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

/// A step that goes on until this is dropped, whatever came of it.
#[derive(Debug)]
pub struct Step<'a> {
    pod: &'a str,
    step: &'static str,
    from_ns: Option<u64>,
}

impl<'a> Step<'a> {
    /// Begins a step of the pod of this name.
    #[must_use]
    pub fn begin(pod: &'a str, step: &'static str) -> Self {
        Self { pod, step, from_ns: is_on().then(monotonic_ns) }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if let Some(from_ns) = self.from_ns {
            let took_us = monotonic_ns().saturating_sub(from_ns) / 1_000;
            tracing::debug!(target: TARGET, pod = self.pod, step = self.step, from_ns, took_us, "step");
        }
    }
}
