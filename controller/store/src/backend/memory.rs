//! A backend that keeps nothing over the process: for tests and throw-away clusters.

use super::{Appended, Backend, BackendError, Loaded};
use crate::{Key, Snapshot};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use strata_proto::{store, types::Kind};

/// Objects in memory. Clones share them, so that a test can open a store on it again.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Key, store::Change>,
    revision: u64,
    position: u64,
    full: bool,
    broken: bool,
}

impl Memory {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes it answer as a full disk does (nothing is written), until it is called with false.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Makes every later write fail as a broken disk does.
    pub fn break_disk(&self) {
        self.lock().broken = true;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(state: &State) -> Result<(), BackendError> {
    let dir = PathBuf::from("memory");
    if state.full {
        return Err(BackendError::Full { dir, free_bytes: 0, reserved_bytes: 1 });
    }
    if state.broken {
        return Err(BackendError::Io { what: "writing", dir, source: "broken on purpose".into() });
    }
    Ok(())
}

impl Backend for Memory {
    fn load(&self) -> Result<Loaded, BackendError> {
        let state = self.lock();
        Ok(Loaded {
            objects: state.objects.values().cloned().collect(),
            revision: state.revision,
            dirty: Vec::new(),
            position: state.position,
        })
    }

    fn append(&self, group: &[store::Change]) -> Result<Appended, BackendError> {
        let mut state = self.lock();
        check(&state)?;
        for change in group {
            let key = Key::new(
                Kind::try_from(change.kind).unwrap_or_default(),
                change.namespace.clone(),
                change.name.clone(),
            );
            if change.object.is_some() {
                state.objects.insert(key, change.clone());
            } else {
                state.objects.remove(&key);
            }
            state.revision = state.revision.max(change.revision);
        }
        state.position += 1;
        Ok(Appended { position: state.position, bytes: 0 })
    }

    fn reserve(&self, revision: u64) -> Result<(), BackendError> {
        let mut state = self.lock();
        check(&state)?;
        state.revision = state.revision.max(revision);
        Ok(())
    }

    fn checkpoint(&self, _: &Snapshot, _: &[Key], _: u64) -> Result<(), BackendError> {
        check(&self.lock())
    }
}
