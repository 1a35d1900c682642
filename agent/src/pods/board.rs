//! The board: the latest status of every pod, and what of it the controller has not been told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
};
use strata_proto::{dispatch::PodReport, types::EventSpec};
use tokio::sync::watch;

/// Events that wait for a session; older ones are dropped first.
pub const EVENTS_WAITING_MAX: usize = 1000;

/// Level-triggered: only the newest status of a pod counts, however many there were.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    reports: BTreeMap<String, PodReport>,
    untold: BTreeSet<String>,
    events: VecDeque<EventSpec>,
}

impl Default for Board {
    fn default() -> Self {
        Self { inner: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Board {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts up a report; an equal one changes nothing, unless it says that the pod is gone: that is an answer.
    pub fn put(&self, report: PodReport) {
        let mut inner = self.lock();
        if !report.gone && inner.reports.get(&report.uid) == Some(&report) {
            return;
        }
        inner.untold.insert(report.uid.clone());
        inner.reports.insert(report.uid.clone(), report);
        drop(inner);
        self.changes.send_modify(|n| *n += 1);
    }

    /// Adds an event.
    pub fn event(&self, event: EventSpec) {
        let mut inner = self.lock();
        if inner.events.len() == EVENTS_WAITING_MAX {
            inner.events.pop_front();
        }
        inner.events.push_back(event);
        drop(inner);
        self.changes.send_modify(|n| *n += 1);
    }

    /// Every pod, for the first message of a session; all of it counts as told. Pods that are gone are not among them.
    #[must_use]
    pub fn all(&self) -> Vec<PodReport> {
        let mut inner = self.lock();
        inner.untold.clear();
        inner.reports.retain(|_, r| !r.gone);
        inner.reports.values().cloned().collect()
    }

    /// At most `max` reports and events that were not told yet.
    #[must_use]
    pub fn take(&self, max: usize) -> (Vec<PodReport>, Vec<EventSpec>) {
        let mut inner = self.lock();
        let uids: Vec<String> = inner.untold.iter().take(max).cloned().collect();
        let mut reports = Vec::with_capacity(uids.len());
        for uid in uids {
            inner.untold.remove(&uid);
            if let Some(report) = inner.reports.get(&uid).cloned() {
                if report.gone {
                    inner.reports.remove(&uid);
                }
                reports.push(report);
            }
        }
        let count = inner.events.len().min(max.saturating_sub(reports.len()));
        let events = inner.events.drain(..count).collect();
        (reports, events)
    }

    /// The latest report of one pod.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<PodReport> {
        self.lock().reports.get(uid).cloned()
    }

    /// The latest report of every pod.
    #[must_use]
    pub fn reports(&self) -> Vec<PodReport> {
        self.lock().reports.values().cloned().collect()
    }

    /// The status of every pod that is here.
    #[must_use]
    pub fn statuses(&self) -> Vec<strata_proto::types::PodStatus> {
        self.lock().reports.values().filter(|r| !r.gone).filter_map(|r| r.status.clone()).collect()
    }

    /// Whether anything was not told yet.
    #[must_use]
    pub fn has_untold(&self) -> bool {
        let inner = self.lock();
        !inner.untold.is_empty() || !inner.events.is_empty()
    }

    /// Changes its value with every change of the board.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
