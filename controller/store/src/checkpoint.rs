//! The thread that rewrites what changed, so that the log stays short.

use crate::{
    Key,
    backend::{Appended, BackendError},
    handle::Shared,
    limits,
};
use std::{
    collections::HashSet,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use strata_proto::{store, types::Kind};

/// What the log holds and no checkpoint covers yet.
pub(crate) struct Pending {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    dirty: HashSet<Key>,
    position: u64,
    log_bytes: u64,
    finish: bool,
    /// The checkpointer no longer works: nobody waits for it.
    over: bool,
}

impl Pending {
    /// Begins with what the log held at start.
    pub fn new(dirty: Vec<Key>, position: u64) -> Self {
        let state = State { dirty: dirty.into_iter().collect(), position, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, group: &[store::Change], appended: Appended) {
        let mut state = self.lock();
        state.dirty.extend(
            group
                .iter()
                .map(|c| Key::new(Kind::try_from(c.kind).unwrap_or_default(), c.namespace.clone(), c.name.clone())),
        );
        state.position = appended.position;
        state.log_bytes += appended.bytes;
    }

    /// Waits while the log is at its bound.
    pub fn wait_for_room(&self) {
        let mut state = self.lock();
        while state.log_bytes > limits::LOG_BYTES_MAX && !state.over {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn log_bytes(&self) -> u64 {
        self.lock().log_bytes
    }
}

/// The running thread.
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    thread: thread::JoinHandle<()>,
}

impl Checkpointer {
    /// Lets it write a last checkpoint and waits for its end.
    pub fn finish(self) {
        self.shared.pending.lock().finish = true;
        self.shared.pending.changed.notify_all();
        if self.thread.join().is_err() {
            tracing::error!("the store's checkpoint thread panicked");
        }
    }
}

pub(crate) fn start(shared: Arc<Shared>) -> io::Result<Checkpointer> {
    let its = shared.clone();
    let thread = thread::Builder::new().name("store-checkpoint".into()).spawn(move || run(&its))?;
    Ok(Checkpointer { shared, thread })
}

fn run(shared: &Shared) {
    loop {
        let period = Duration::from_millis(limits::CHECKPOINT_MS);
        let state = shared.pending.lock();
        let (state, _) = shared
            .pending
            .changed
            .wait_timeout_while(state, period, |s| !s.finish)
            .unwrap_or_else(PoisonError::into_inner);
        let finish = state.finish;
        drop(state);
        if shared.failure().is_none() {
            match round(shared) {
                Ok(()) => {}
                // The log stays; the next round tries again.
                Err(error @ BackendError::Full { .. }) => raise(shared, Some(error.to_string())),
                Err(error) => shared.fail(&Arc::new(error)),
            }
        }
        if finish || shared.failure().is_some() {
            shared.pending.lock().over = true;
            shared.pending.changed.notify_all();
            if finish {
                return;
            }
        }
    }
}

fn round(shared: &Shared) -> Result<(), BackendError> {
    let (dirty, position, log_bytes) = {
        let mut state = shared.pending.lock();
        if state.dirty.is_empty() {
            return Ok(());
        }
        (std::mem::take(&mut state.dirty).into_iter().collect::<Vec<_>>(), state.position, state.log_bytes)
    };
    let snapshot = shared.snapshot();
    let result = shared.backend.checkpoint(&snapshot, &dirty, position);
    let mut state = shared.pending.lock();
    if result.is_ok() {
        state.log_bytes -= log_bytes;
    } else {
        state.dirty.extend(dirty);
    }
    drop(state);
    shared.pending.changed.notify_all();
    if result.is_ok() {
        raise(shared, shared.backend.alarm());
    }
    result
}

/// Keeps the alarm for [`crate::Store::status`] and logs it when it is new.
fn raise(shared: &Shared, alarm: Option<String>) {
    let mut present = shared.alarm.lock().unwrap_or_else(PoisonError::into_inner);
    if *present != alarm {
        if let Some(alarm) = &alarm {
            tracing::error!(alarm, "the store needs attention");
        }
        *present = alarm;
    }
}
