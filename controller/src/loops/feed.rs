//! How a loop follows the store: everything once, then what changed; everything again when it was too slow.

use crate::meters::Rest;
use futures::FutureExt as _;
use strata_store::{Event, Snapshot, Store, WatchStream};
use tokio_stream::StreamExt as _;

/// Changes handed over at once.
pub const BATCH_MAX: usize = 1_000;

/// What a loop sees next.
pub enum Batch {
    /// The loop begins, or has missed changes: look at everything.
    Everything(Snapshot),
    /// These have changed.
    Changes(Vec<Event>),
}

/// A loop's view of the store's changes.
pub struct Feed {
    store: Store,
    stream: Option<WatchStream>,
}

impl Feed {
    /// A feed that begins with everything.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), stream: None }
    }

    /// Waits for the next batch; `None` when the store is closed. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Batch> {
        let _rest = Rest::begin();
        let Some(stream) = &mut self.stream else { return self.everything() };
        match stream.next().await {
            Some(Ok(event)) => {
                let mut events = vec![event];
                while events.len() < BATCH_MAX {
                    match stream.next().now_or_never() {
                        Some(Some(Ok(event))) => events.push(event),
                        Some(Some(Err(_))) => return self.everything(),
                        Some(None) | None => break,
                    }
                }
                Some(Batch::Changes(events))
            }
            Some(Err(_)) => self.everything(),
            None => None,
        }
    }

    fn everything(&mut self) -> Option<Batch> {
        // The watch first: what changes between the two is seen twice rather than never.
        self.stream = self.store.watch(0).ok();
        Some(Batch::Everything(self.store.snapshot()))
    }
}
