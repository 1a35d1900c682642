//! Following the changes: a bounded history and a bounded lag for each watcher.

use crate::{Key, limits};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};
use strata_proto::types::Object;
use tokio::sync::broadcast;
use tokio_stream::{
    Stream,
    wrappers::{BroadcastStream, errors::BroadcastStreamRecvError},
};

/// One change, as watchers see it.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its revision; no two changes share one.
    pub revision: u64,
    /// Which object.
    pub key: Key,
    /// Its new state; of a deleted one the last.
    pub object: Arc<Object>,
    /// It is gone.
    pub deleted: bool,
}

/// The history does not reach back to the revision asked for: list again and watch from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "changes after revision {from} are no longer all known (the oldest start after {oldest}): list again and watch from there"
)]
pub struct Compacted {
    /// What was asked for.
    pub from: u64,
    /// The smallest revision that can be.
    pub oldest: u64,
}

/// Why a watch ended before its store did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// The watcher was too slow.
    #[error("the watcher was too slow and missed changes: list again and watch from there")]
    Lagged,
}

type Slice = Arc<[Event]>;

/// Hands the changes out.
pub(crate) struct Hub {
    state: Mutex<State>,
}

struct State {
    /// `None` once the store is closed: streams end.
    live: Option<broadcast::Sender<Slice>>,
    history: VecDeque<Slice>,
    events: usize,
    /// Everything after this revision is in `history`.
    floor: u64,
    revision: u64,
}

impl Hub {
    pub fn new(revision: u64) -> Self {
        let (live, _) = broadcast::channel(limits::WATCH_SLICES);
        Self {
            state: Mutex::new(State {
                live: Some(live),
                history: VecDeque::new(),
                events: 0,
                floor: revision,
                revision,
            }),
        }
    }

    /// Adds changes in the order of their revisions.
    pub fn publish(&self, events: &[Event], revision: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for part in events.chunks(limits::WATCH_SLICE_EVENTS) {
            let slice: Slice = part.into();
            state.events += slice.len();
            state.history.push_back(slice.clone());
            if let Some(live) = &state.live {
                // An error only says that nobody watches.
                live.send(slice).ok();
            }
        }
        state.revision = revision;
        while state.events > limits::HISTORY_EVENTS {
            let Some(oldest) = state.history.pop_front() else { break };
            state.events -= oldest.len();
            state.floor = oldest.last().map_or(state.floor, |e| e.revision);
        }
    }

    pub fn watch(&self, from: u64) -> Result<WatchStream, Compacted> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let from = if from == 0 { state.revision } else { from };
        if from < state.floor || from > state.revision {
            return Err(Compacted { from, oldest: state.floor });
        }
        let backlog: VecDeque<Slice> =
            state.history.iter().filter(|s| s.last().is_some_and(|e| e.revision > from)).cloned().collect();
        let live = state.live.as_ref().map(|l| BroadcastStream::new(l.subscribe()));
        Ok(WatchStream { from, backlog, current: None, live })
    }

    /// Streams that are open.
    pub fn watchers(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.live.as_ref().map_or(0, broadcast::Sender::receiver_count)
    }

    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).live = None;
    }
}

/// The changes after a revision, in order. Ends when the store is closed, or after `Err` when the watcher was too slow.
pub struct WatchStream {
    from: u64,
    backlog: VecDeque<Slice>,
    current: Option<(Slice, usize)>,
    live: Option<BroadcastStream<Slice>>,
}

impl Stream for WatchStream {
    type Item = Result<Event, WatchEnd>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let from = self.from;
            if let Some((slice, at)) = &mut self.current {
                if let Some(event) = slice.get(*at) {
                    *at += 1;
                    if event.revision <= from {
                        continue;
                    }
                    return Poll::Ready(Some(Ok(event.clone())));
                }
                self.current = None;
            }
            if let Some(slice) = self.backlog.pop_front() {
                self.current = Some((slice, 0));
                continue;
            }
            let Some(live) = &mut self.live else { return Poll::Ready(None) };
            match ready!(Pin::new(live).poll_next(cx)) {
                Some(Ok(slice)) => self.current = Some((slice, 0)),
                Some(Err(BroadcastStreamRecvError::Lagged(_))) => {
                    self.live = None;
                    return Poll::Ready(Some(Err(WatchEnd::Lagged)));
                }
                None => self.live = None,
            }
        }
    }
}
