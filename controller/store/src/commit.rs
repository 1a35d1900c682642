//! What callers ask of the writer.

use crate::{Key, StoreError, limits};
use prost::Message as _;
use std::sync::Arc;
use strata_proto::types::Object;

/// One change of one object.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which object.
    pub key: Key,
    /// What must hold for the change, else the whole commit is refused.
    pub condition: Condition,
    /// What to do.
    pub op: Op,
    /// False: visible to readers and watchers, but not logged and lost on restart (status that its node sends again). A deletion is always logged.
    pub durable: bool,
}

impl Change {
    /// A durable put under a condition.
    #[must_use]
    pub fn put(object: Object, condition: Condition) -> Self {
        Self { key: Key::of(&object), condition, op: Op::Put(object), durable: true }
    }

    /// No change, but a condition of the commit.
    #[must_use]
    pub fn check(key: Key, condition: Condition) -> Self {
        Self { key, condition, op: Op::Check, durable: true }
    }

    /// A deletion under a condition. Deleting what is not there is no change (with [`Condition::None`]).
    #[must_use]
    pub fn delete(key: Key, condition: Condition) -> Self {
        Self { key, condition, op: Op::Delete, durable: true }
    }
}

/// What must hold for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// There is no such object.
    Absent,
    /// It is there with exactly this revision.
    Revision(u64),
}

/// What to do with an object.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly every change is a put: a box would only add an allocation")]
pub enum Op {
    /// Create or replace it. The store sets `meta.revision`.
    Put(Object),
    /// Remove it.
    Delete,
    /// Only the condition counts; nothing changes.
    Check,
}

/// What a commit did.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The revision of its last change (the store's present one if it changed nothing).
    pub revision: u64,
    /// The objects put and (last state of those) deleted, in the order of the changes, with their new revisions. Deletions of what was not there are left out.
    pub objects: Vec<Arc<Object>>,
}

/// Checks the bounds of a commit and returns its encoded size.
pub(crate) fn measure(changes: &[Change]) -> Result<usize, StoreError> {
    if changes.len() > limits::COMMIT_CHANGES_MAX {
        return Err(StoreError::TooLarge {
            what: "a commit".into(),
            size: changes.len(),
            limit: limits::COMMIT_CHANGES_MAX,
            unit: "changes",
        });
    }
    let mut total = 0;
    for change in changes {
        let size = match &change.op {
            Op::Put(object) => object.encoded_len(),
            Op::Delete | Op::Check => 0,
        };
        if size > strata_model::limits::OBJECT_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: change.key.to_string(),
                size,
                limit: strata_model::limits::OBJECT_BYTES_MAX,
                unit: "bytes",
            });
        }
        total += size + change.key.name.len() + change.key.namespace.len() + 32;
    }
    if total > limits::COMMIT_BYTES_MAX {
        return Err(StoreError::TooLarge {
            what: "a commit".into(),
            size: total,
            limit: limits::COMMIT_BYTES_MAX,
            unit: "bytes",
        });
    }
    Ok(total)
}
