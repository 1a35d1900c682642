//! The pods of one node and which change made them so.

use alloc::collections::{BTreeMap, VecDeque};
use strata_model::{Desired, ObjectName, RevisionName, Uid};

/// Removals that are remembered for deltas; a session that is further behind gets a full frame.
pub const REMOVED_KEPT: usize = 1024;

/// One pod as its node is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The pod.
    pub uid: Uid,
    /// Namespace and name.
    pub name: ObjectName,
    /// What runs in it.
    pub template: RevisionName,
    /// Its place in the node's subnet.
    pub address_index: u32,
    /// What should become of it.
    pub desired: Desired,
    /// The workload it belongs to; "" = none.
    pub workload: alloc::string::String,
    /// Its number within the workload.
    pub ordinal: u64,
    /// Seconds between stop signal and kill, instead of the template's.
    pub grace_s: Option<u32>,
}

/// The pods of one node.
#[derive(Debug, Clone)]
pub struct AssignmentSet {
    generation: u64,
    pods: BTreeMap<Uid, (u64, Assignment)>,
    /// Removed pods with the generation that removed them, oldest first.
    removed: VecDeque<(u64, Uid)>,
    /// Deltas from an older generation than this cannot be made.
    delta_floor: u64,
}

impl AssignmentSet {
    /// An empty set. `generation` is the store's revision, so that generations grow over restarts of the controller too.
    #[must_use]
    pub fn new(generation: u64) -> Self {
        Self { generation, pods: BTreeMap::new(), removed: VecDeque::new(), delta_floor: generation }
    }

    /// Grows with every change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The pods, in the order of their uids.
    pub fn pods(&self) -> impl Iterator<Item = &Assignment> {
        self.pods.values().map(|(_, a)| a)
    }

    /// One pod of it.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Assignment> {
        self.pods.get(uid).map(|(_, a)| a)
    }

    /// Makes the set what these changes say, at the store's `revision`: `Some` is new or changed, `None` is forgotten.
    /// True if anything changed; then the generation has grown.
    pub fn change(&mut self, revision: u64, changes: impl IntoIterator<Item = (Uid, Option<Assignment>)>) -> bool {
        let next = revision.max(self.generation + 1);
        let mut changed = false;
        for (uid, assignment) in changes {
            match assignment {
                Some(a) if self.pods.get(&uid).is_some_and(|(_, old)| *old == a) => {}
                Some(a) => {
                    self.pods.insert(uid, (next, a));
                    changed = true;
                }
                None => {
                    if self.pods.remove(&uid).is_some() {
                        self.removed.push_back((next, uid));
                        changed = true;
                    }
                }
            }
        }
        while self.removed.len() > REMOVED_KEPT {
            if let Some((generation, _)) = self.removed.pop_front() {
                self.delta_floor = generation;
            }
        }
        if changed {
            self.generation = next;
        }
        changed
    }

    /// Replaces the whole set, as after a new listing of the store.
    pub fn replace(&mut self, revision: u64, pods: impl IntoIterator<Item = Assignment>) -> bool {
        let wanted: BTreeMap<Uid, Assignment> = pods.into_iter().map(|a| (a.uid.clone(), a)).collect();
        let mut changes: alloc::vec::Vec<(Uid, Option<Assignment>)> =
            self.pods.keys().filter(|uid| !wanted.contains_key(*uid)).map(|uid| (uid.clone(), None)).collect();
        changes.extend(wanted.into_iter().map(|(uid, a)| (uid, Some(a))));
        self.change(revision, changes)
    }

    /// New or changed pods and forgotten ones since a generation; `None` if that is too long ago.
    pub(crate) fn since(&self, base: u64) -> Option<(impl Iterator<Item = &Assignment>, impl Iterator<Item = &Uid>)> {
        if base < self.delta_floor || base > self.generation {
            return None;
        }
        let pods = self.pods.values().filter(move |(g, _)| *g > base).map(|(_, a)| a);
        let gone = self.removed.iter().filter(move |(g, uid)| *g > base && !self.pods.contains_key(uid));
        Some((pods, gone.map(|(_, uid)| uid)))
    }
}
