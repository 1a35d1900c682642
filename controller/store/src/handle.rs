//! The store as its callers see it.

use crate::{
    Change, Commit, Compacted, Key, Meters, Snapshot, StoreError, WatchStream,
    backend::{Backend, BackendError},
    checkpoint::{self, Pending},
    commit, limits,
    tables::Tables,
    watch::Hub,
    writer::{self, Message},
};
use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};
use strata_proto::types::Kind;
use tokio::sync::{mpsc, oneshot, watch};

/// What the threads and the handles share.
pub(crate) struct Shared {
    pub backend: Box<dyn Backend>,
    pub tables: RwLock<Arc<Tables>>,
    pub hub: Hub,
    pub pending: Pending,
    /// The error after which nothing is written any more.
    pub failed: watch::Sender<Option<Arc<BackendError>>>,
    pub alarm: Mutex<Option<String>>,
    pub meters: Meters,
}

impl Shared {
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { tables: self.tables.read().unwrap_or_else(PoisonError::into_inner).clone() }
    }

    pub fn publish(&self, tables: Arc<Tables>) {
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = tables;
    }

    pub fn failure(&self) -> Option<Arc<BackendError>> {
        self.failed.borrow().clone()
    }

    pub fn fail(&self, error: &Arc<BackendError>) {
        tracing::error!(%error, "the store takes no more changes");
        self.failed.send_replace(Some(error.clone()));
    }
}

/// How the store is.
#[derive(Debug, Clone)]
pub struct Status {
    /// The newest revision.
    pub revision: u64,
    /// Something an operator must know although the store works on; "" = nothing.
    pub alarm: String,
    /// Why it takes no more changes; "" = it does.
    pub failed: String,
    /// Log bytes that no checkpoint covers yet.
    pub log_bytes: u64,
    /// Watchers that follow it now.
    pub watchers: usize,
}

/// A handle to the store; clones are the same store. Its threads end with the last handle or with [`Store::close`].
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
}

impl Store {
    /// Reads everything from the backend and starts the writer. Blocks: call it before serving, or from a blocking thread.
    ///
    /// # Errors
    /// What the backend says about its state: damaged, newer, in use.
    pub fn open(backend: Box<dyn Backend>) -> Result<Self, StoreError> {
        let loaded = backend.load().map_err(|e| StoreError::Open(Arc::new(e)))?;
        let mut tables = Tables::default();
        for change in loaded.objects {
            let Some(mut object) = change.object else { continue };
            let kind = Kind::try_from(change.kind).unwrap_or_default();
            object.meta.get_or_insert_default().revision = change.revision;
            tables.put(Key::new(kind, change.namespace, change.name), Arc::new(object));
        }
        tables.set_revision(loaded.revision);
        let tables = Arc::new(tables);
        let shared = Arc::new(Shared {
            backend,
            tables: RwLock::new(tables.clone()),
            hub: Hub::new(loaded.revision),
            pending: Pending::new(loaded.dirty, loaded.position),
            failed: watch::Sender::new(None),
            alarm: Mutex::new(None),
            meters: Meters::default(),
        });
        let (queue, requests) = mpsc::channel(limits::QUEUE_COMMITS);
        let threads = |e| StoreError::Threads(Arc::new(e));
        let checkpointer = checkpoint::start(shared.clone()).map_err(threads)?;
        writer::start(shared.clone(), (*tables).clone(), requests, checkpointer).map_err(threads)?;
        Ok(Self { shared, queue })
    }

    /// Makes the changes, all or none. Answers when the durable ones are on disk and readers see them.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a condition does not hold, [`StoreError::DiskFull`] and others: nothing was done.
    /// After [`StoreError::Disk`] a restart shows what is on disk.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<Commit, StoreError> {
        let bytes = commit::measure(&changes)?;
        let (reply, answer) = oneshot::channel();
        let request = writer::Request { changes, bytes, reply };
        let begun = Instant::now();
        self.queue.send(Message::Commit(request)).await.map_err(|_| StoreError::Closed)?;
        let result = answer.await.unwrap_or(Err(StoreError::Closed));
        let meters = &self.shared.meters;
        match &result {
            Ok(_) => {
                meters.done.increment();
                meters.commit_seconds.record(begun.elapsed());
            }
            Err(StoreError::Conflict { .. }) => meters.conflicts.increment(),
            Err(_) => meters.failed.increment(),
        }
        result
    }

    /// What it has counted since it was opened.
    #[must_use]
    pub fn meters(&self) -> &Meters {
        &self.shared.meters
    }

    /// The objects as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// The changes after a revision, in order; 0 = from now on.
    ///
    /// # Errors
    /// [`Compacted`] if they are no longer all known.
    pub fn watch(&self, from_revision: u64) -> Result<WatchStream, Compacted> {
        self.shared.hub.watch(from_revision)
    }

    /// How the store is.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            revision: self.snapshot().revision(),
            alarm: self.shared.alarm.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default(),
            failed: self.shared.failure().map(|e| e.to_string()).unwrap_or_default(),
            log_bytes: self.shared.pending.log_bytes(),
            watchers: self.shared.hub.watchers(),
        }
    }

    /// Waits until the store has failed and takes no more changes, and returns why. A controller ends then.
    pub async fn failed(&self) -> StoreError {
        let mut failed = self.shared.failed.subscribe();
        match failed.wait_for(Option::is_some).await.map(|e| e.clone()) {
            Ok(Some(error)) => StoreError::Failed(error),
            _ => StoreError::Closed,
        }
    }

    /// Finishes what was queued, writes a last checkpoint and releases the backend's files. Other handles get [`StoreError::Closed`] from then on.
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            // An error says the writer has ended by itself.
            closed.await.ok();
        }
    }
}
