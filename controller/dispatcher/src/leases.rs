//! Until when each node counts as alive.
//!
//! The controller's deadline runs from the receipt of a renewal, the node's own from its sending: so the node's ends first.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use strata_model::{Millis, NodeName};

/// How leases run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseSettings {
    /// A node is heard at least this often, milliseconds.
    pub heartbeat_ms: u64,
    /// After this long without a word its pods are given away, milliseconds.
    pub lease_ms: u64,
}

impl LeaseSettings {
    /// When the first heartbeat counts as missed: half an interval late.
    fn unknown_after(self) -> u64 {
        (self.heartbeat_ms + self.heartbeat_ms / 2).min(self.lease_ms)
    }
}

/// What became of a silent node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It missed a heartbeat.
    Unknown,
    /// Its lease has ended.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Heard in time since it synced.
    Synced,
    /// Not heard of since the controller started, or heard but not synced yet.
    Unsynced,
    /// It missed a heartbeat.
    Silent,
    /// Its lease has ended.
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    renewed: Millis,
    state: State,
    /// Its place in the order of deadlines; `None` once Lost.
    deadline: Option<Millis>,
}

/// The leases of all nodes.
#[derive(Debug)]
pub struct Leases {
    settings: LeaseSettings,
    leases: BTreeMap<NodeName, Lease>,
    deadlines: BTreeSet<(Millis, NodeName)>,
}

impl Leases {
    /// No leases.
    #[must_use]
    pub fn new(settings: LeaseSettings) -> Self {
        Self { settings, leases: BTreeMap::new(), deadlines: BTreeSet::new() }
    }

    /// Begins the lease of a node that was known before the controller started: it has a whole lease to come back.
    pub fn begin(&mut self, node: &NodeName, now: Millis) {
        self.put(node, now, State::Unsynced);
    }

    /// Takes a renewal. True if the node was silent or lost until now: its phase has to be told again.
    pub fn renew(&mut self, node: &NodeName, now: Millis) -> bool {
        let before = self.leases.get(node).map(|l| l.state);
        let state = match before {
            Some(State::Synced | State::Silent) => State::Synced,
            Some(State::Unsynced | State::Lost) | None => State::Unsynced,
        };
        self.put(node, now, state);
        !matches!(before, Some(State::Synced | State::Unsynced))
    }

    /// The node has reported all its pods in a session and they are in the store.
    pub fn synced(&mut self, node: &NodeName, now: Millis) {
        self.put(node, now, State::Synced);
    }

    /// Whether what is known of the node is the truth: it has synced, or it is Lost. Else nothing of it may be replaced.
    #[must_use]
    pub fn is_settled(&self, node: &str) -> bool {
        self.leases.get(node).is_none_or(|l| matches!(l.state, State::Synced | State::Lost))
    }

    /// Whether the node is well: it has synced and was heard of in time.
    #[must_use]
    pub fn is_synced(&self, node: &str) -> bool {
        self.leases.get(node).is_some_and(|l| l.state == State::Synced)
    }

    /// The node is no more.
    pub fn forget(&mut self, node: &str) {
        if let Some((name, lease)) = self.leases.remove_entry(node)
            && let Some(deadline) = lease.deadline
        {
            self.deadlines.remove(&(deadline, name));
        }
    }

    /// Nodes whose next deadline has passed. Each is told once per verdict.
    pub fn expire(&mut self, now: Millis) -> Vec<(NodeName, Verdict)> {
        let mut verdicts = Vec::new();
        while let Some((deadline, node)) = self.deadlines.first().cloned() {
            if deadline > now {
                break;
            }
            let Some(lease) = self.leases.get(&node).copied() else {
                self.deadlines.remove(&(deadline, node));
                continue;
            };
            let lost = now >= lease.renewed + self.settings.lease_ms;
            let (state, verdict) = if lost { (State::Lost, Verdict::Lost) } else { (State::Silent, Verdict::Unknown) };
            self.put(&node, lease.renewed, state);
            verdicts.push((node, verdict));
        }
        verdicts
    }

    /// When [`Leases::expire`] has something to tell next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    fn put(&mut self, node: &NodeName, renewed: Millis, state: State) {
        let deadline = match state {
            State::Synced => Some(renewed + self.settings.unknown_after()),
            // It is Unknown already.
            State::Unsynced | State::Silent => Some(renewed + self.settings.lease_ms),
            State::Lost => None,
        };
        if let Some(old) = self.leases.insert(node.clone(), Lease { renewed, state, deadline })
            && let Some(at) = old.deadline
        {
            self.deadlines.remove(&(at, node.clone()));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, node.clone()));
        }
    }
}
