//! Read, change, commit; again if somebody was faster.

use crate::meters;
use std::sync::Arc;
use strata_proto::types::Object;
use strata_store::{Change, Condition, Key, Op, Store, StoreError};
use tracing::warn;

/// How often an edit is tried when others change the object at the same time.
pub const TRIES_MAX: usize = 8;

/// Whether a change has to survive a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// On disk before it counts.
    Durable,
    /// Status that its node sends again after a restart.
    Volatile,
}

/// A put that is conditional on the revision at which the object was read.
#[must_use]
pub fn changed(object: Object, keep: Keep) -> Change {
    let condition = Condition::Revision(crate::objects::meta(&object).revision);
    Change { key: Key::of(&object), condition, op: Op::Put(object), durable: keep == Keep::Durable }
}

/// A put of a new object.
#[must_use]
pub fn created(object: Object) -> Change {
    Change::put(object, Condition::Absent)
}

/// Changes one object by a function that says whether it changed anything. An object that is not there is left so.
///
/// # Errors
/// [`StoreError`], also `Conflict` after [`TRIES_MAX`] tries.
pub async fn edit(
    store: &Store,
    key: &Key,
    keep: Keep,
    mut change: impl FnMut(&mut Object) -> bool,
) -> Result<(), StoreError> {
    for tries in 1.. {
        let Some(found) = store.snapshot().get(key) else { return Ok(()) };
        let mut object = Object::clone(&found);
        if !change(&mut object) {
            return Ok(());
        }
        match store.commit(vec![changed(object, keep)]).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) if tries < TRIES_MAX => meters::note_error(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Commits and says whether it was done. A conflict is no error: the loop that asked looks again.
///
/// # Errors
/// Whatever is not a conflict.
pub async fn commit_or_retry(store: &Store, changes: Vec<Change>) -> Result<Done, StoreError> {
    if changes.is_empty() {
        return Ok(Done::Committed(Vec::new()));
    }
    match store.commit(changes).await {
        Ok(commit) => Ok(Done::Committed(commit.objects)),
        Err(StoreError::Conflict { key, .. }) => {
            meters::note_error();
            Ok(Done::Conflict(key))
        }
        Err(StoreError::DiskFull(error)) => {
            meters::note_error();
            warn!(%error, "the store takes no changes now; trying again");
            Ok(Done::Full)
        }
        Err(error) => Err(error),
    }
}

/// What became of a commit.
#[derive(Debug)]
pub enum Done {
    /// It is done.
    Committed(Vec<Arc<Object>>),
    /// Somebody was faster with this object: look again.
    Conflict(Key),
    /// There is no room on the disk now: look again later.
    Full,
}
