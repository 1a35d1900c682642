//! What is counted of pods as it happens.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use strata_reconciler::Observed;
use strata_telemetry::metrics::Counter;

/// Counted since the agent started.
#[derive(Debug, Default)]
pub struct PodMeters {
    /// Containers that were started again.
    pub restarts: Counter,
    /// Containers that ended for want of memory.
    pub oom_kills: Counter,
    /// Starts of containers that failed.
    pub start_failures: Counter,
    step_failures: Mutex<BTreeMap<&'static str, u64>>,
}

impl PodMeters {
    /// Counts what has become of a pod's containers between two looks at it. An end that is told twice changes nothing and counts once.
    pub(super) fn compare(&self, before: &Observed, after: &Observed) {
        for container in &after.containers {
            let old = before.containers.iter().find(|c| c.name == container.name);
            let restarts = old.map_or(0, |c| c.restarts);
            self.restarts.add(u64::from(container.restarts.saturating_sub(restarts)));
            if let Some(exit) = &container.last_exit
                && old.and_then(|c| c.last_exit.as_ref()) != Some(exit)
            {
                match exit.reason.as_str() {
                    "OOMKilled" => self.oom_kills.increment(),
                    "StartError" => self.start_failures.increment(),
                    _ => {}
                }
            }
        }
    }

    /// Counts a step that is tried again.
    pub(super) fn step_failed(&self, step: &'static str) {
        *self.lock().entry(step).or_default() += 1;
    }

    /// How often which step failed.
    #[must_use]
    pub fn step_failures(&self) -> Vec<(&'static str, u64)> {
        self.lock().iter().map(|(step, count)| (*step, *count)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.step_failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
