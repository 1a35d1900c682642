//! One flight per key: whoever wants the same thing while it is being fetched waits for the same work.
//!
//! The work runs in a task of its own that ends when it is done or when the last one who waits for it goes away.

use crate::error::{ImageError, Result};
use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::{sync::watch, task::AbortHandle};

/// Where a flight is.
#[derive(Debug, Clone)]
enum State<T> {
    Flying { done_bytes: u64, total_bytes: u64 },
    Landed(Result<T>),
}

/// The work in progress of one kind.
#[derive(Debug)]
pub(crate) struct Flights<K, T>(Mutex<HashMap<K, Weak<Flight<T>>>>);

#[derive(Debug)]
struct Flight<T> {
    state: watch::Receiver<State<T>>,
    task: AbortHandle,
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Says how far the work is.
#[derive(Debug)]
pub(crate) struct Altitude<T>(watch::Sender<State<T>>);

impl<T> Altitude<T> {
    pub(crate) fn report(&self, done_bytes: u64, total_bytes: u64) {
        self.0.send_replace(State::Flying { done_bytes, total_bytes });
    }
}

impl<K: Hash + Eq + Clone + ToString, T: Clone + Send + Sync + 'static> Flights<K, T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Joins the flight for `key`, or starts `work`. Gives the result and whether it was this caller's own work.
    pub(crate) async fn join<F>(
        &self,
        key: &K,
        work: impl FnOnce(Arc<Altitude<T>>) -> F,
        mut progress: impl FnMut(u64, u64),
    ) -> (Result<T>, bool)
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (flight, own) = self.board(key, work);
        let mut state = flight.state.clone();
        loop {
            // The guard must not be held while others wait for it.
            let now = state.borrow_and_update().clone();
            match now {
                State::Flying { done_bytes, total_bytes } => progress(done_bytes, total_bytes),
                State::Landed(result) => return (result, own),
            }
            if state.changed().await.is_err() {
                // The sender goes after its last word, so look once more: without one the task has panicked or was shut down.
                let last = state.borrow().clone();
                let result = match last {
                    State::Landed(result) => result,
                    State::Flying { .. } => Err(ImageError::Cancelled { what: key.to_string() }),
                };
                return (result, own);
            }
        }
    }

    fn board<F>(&self, key: &K, work: impl FnOnce(Arc<Altitude<T>>) -> F) -> (Arc<Flight<T>>, bool)
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key).and_then(Weak::upgrade)
            && !flight.task.is_finished()
        {
            return (flight, false);
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let (sender, state) = watch::channel(State::Flying { done_bytes: 0, total_bytes: 0 });
        let altitude = Arc::new(Altitude(sender));
        let work = work(altitude.clone());
        let task = tokio::spawn(async move {
            let result = work.await;
            altitude.0.send_replace(State::Landed(result));
        });
        let flight = Arc::new(Flight { state, task: task.abort_handle() });
        flights.insert(key.clone(), Arc::downgrade(&flight));
        (flight, true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn many_who_want_the_same_share_one_flight() {
        let flights = Arc::new(Flights::<String, u32>::new());
        let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let joined: Vec<_> = (0..10)
            .map(|_| {
                let (flights, runs, gate) = (flights.clone(), runs.clone(), gate.clone());
                tokio::spawn(async move {
                    let work = move |_| async move {
                        runs.fetch_add(1, Ordering::SeqCst);
                        gate.notified().await;
                        Ok(7)
                    };
                    flights.join(&"k".to_owned(), work, |_, _| ()).await.0.unwrap()
                })
            })
            .collect();
        while runs.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
        for one in joined {
            assert_eq!(one.await.unwrap(), 7);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_flight_ends_when_nobody_waits_any_more() {
        struct Landing(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Landing {
            fn drop(&mut self) {
                self.0.take().unwrap().send(()).ok();
            }
        }
        let flights = Flights::<String, u32>::new();
        let (sender, dropped) = tokio::sync::oneshot::channel();
        let landing = Landing(Some(sender));
        let key = "k".to_owned();
        let work = move |_| async move {
            let _landing = landing;
            std::future::pending::<()>().await;
            Ok(1)
        };
        let waiting = flights.join(&key, work, |_, _| ());
        let begun = tokio::time::timeout(std::time::Duration::from_millis(50), waiting).await;
        assert!(begun.is_err());
        dropped.await.unwrap();
    }
}
