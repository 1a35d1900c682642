//! What loops and sessions count between two looks of Prometheus.
//!
//! A loop need not know that it is measured: its round begins when [`crate::loops::Feed::next`] is left (with something, or because something else woke
//! the loop) and ends when it is called again.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Instant,
};
use strata_telemetry::metrics::{Counter, Histogram};

/// Counted since the controller started.
#[derive(Debug, Default)]
pub struct Meters {
    /// From a pod's creation to its being bound.
    pub schedule_seconds: Histogram,
    /// Pods that were given a node.
    pub placed: Counter,
    /// Pods that fit nowhere at present.
    pub unschedulable: AtomicU64,
    /// Full assignment frames.
    pub frames_full: Counter,
    /// Delta frames.
    pub frames_delta: Counter,
    loops: Mutex<BTreeMap<&'static str, Arc<LoopMeter>>>,
}

/// Of one control loop.
#[derive(Debug, Default)]
pub struct LoopMeter {
    /// Its rounds and how long they took.
    pub rounds: Histogram,
    /// Changes that were not made at once.
    pub errors: Counter,
}

tokio::task_local! {
    static CURRENT: Arc<LoopMeter>;
    static BEGUN: RefCell<Option<Instant>>;
}

impl Meters {
    /// Runs a loop so that it is measured under this name.
    pub async fn measured<F: Future>(&self, name: &'static str, run: F) -> F::Output {
        let meter = self.lock().entry(name).or_default().clone();
        CURRENT.scope(meter, BEGUN.scope(RefCell::new(None), run)).await
    }

    /// The loops that have run, by name.
    #[must_use]
    pub fn loops(&self) -> Vec<(&'static str, Arc<LoopMeter>)> {
        self.lock().iter().map(|(name, meter)| (*name, meter.clone())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Arc<LoopMeter>>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between two rounds of the loop that runs this: ends the round before, and begins the next when it is dropped. Outside of a measured loop it does nothing.
#[must_use = "the next round begins when it is dropped"]
pub(crate) struct Rest(());

impl Rest {
    pub(crate) fn begin() -> Self {
        // An error says that nobody measures.
        let begun = BEGUN.try_with(RefCell::take).ok().flatten();
        if let Some(begun) = begun {
            CURRENT.try_with(|meter| meter.rounds.record(begun.elapsed())).ok();
        }
        Self(())
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        BEGUN.try_with(|begun| begun.replace(Some(Instant::now()))).ok();
    }
}

/// Counts a change of the loop that runs this which was not made at once.
pub(crate) fn note_error() {
    CURRENT.try_with(|meter| meter.errors.increment()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    #[tokio::test]
    async fn a_round_is_what_lies_between_two_rests() {
        let meters = Meters::default();
        let looping = async {
            for _ in 0..3 {
                let rest = Rest::begin();
                tokio::task::yield_now().await;
                drop(rest);
                note_error();
            }
            drop(Rest::begin());
        };
        meters.measured("a", looping).await;
        drop(Rest::begin());
        note_error();
        let (name, meter) = meters.loops().remove(0);
        let (buckets, _) = meter.rounds.read();
        assert_eq!((name, buckets.last().map(|b| b.1), meter.errors.get()), ("a", Some(3), 3));
    }
}
