//! What one connection of a node was told of services, and what to tell it next.

use super::Catalog;
use crate::FRAMES_MAX;
use alloc::{collections::VecDeque, vec::Vec};
use strata_model::{ObjectName, ServiceView};

/// What to send to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceFrame {
    /// The whole truth.
    Full {
        /// 1, 2, ... within the session.
        sequence: u64,
        /// All services.
        services: Vec<ServiceView>,
    },
    /// What changed since the frame before.
    Delta {
        /// 1, 2, ... within the session.
        sequence: u64,
        /// New or changed ones.
        changed: Vec<ServiceView>,
        /// Those that are no more.
        removed: Vec<ObjectName>,
    },
    /// The node has it all, or has to acknowledge first.
    Nothing,
}

/// One connection of a node.
#[derive(Debug, Clone, Default)]
pub struct ServiceSession {
    sent: Option<u64>,
    sequence: u64,
    /// Sequences sent and not acknowledged with their versions, oldest first; at most [`FRAMES_MAX`].
    waiting: VecDeque<(u64, u64)>,
    in_effect: Option<u64>,
}

impl ServiceSession {
    /// A connection that was sent nothing yet: its first frame is a full one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides what to send next and counts it as sent.
    pub fn frame(&mut self, catalog: &Catalog) -> ServiceFrame {
        let version = catalog.version();
        if self.sent == Some(version) || self.waiting.len() >= FRAMES_MAX {
            return ServiceFrame::Nothing;
        }
        self.sequence += 1;
        let sequence = self.sequence;
        let delta = self.sent.and_then(|base| catalog.since(base));
        self.sent = Some(version);
        self.waiting.push_back((sequence, version));
        match delta {
            Some((changed, removed)) => ServiceFrame::Delta { sequence, changed, removed },
            None => {
                let services = catalog.names().filter_map(|name| catalog.view(name)).collect();
                ServiceFrame::Full { sequence, services }
            }
        }
    }

    /// Everything up to this sequence is in effect on the node.
    pub fn acknowledge(&mut self, sequence: u64) {
        while let Some((_, version)) = self.waiting.front().copied().filter(|(sent, _)| *sent <= sequence) {
            self.in_effect = Some(version);
            self.waiting.pop_front();
        }
    }

    /// The version that is in effect on the node, as far as it said; `None` = nothing is known.
    #[must_use]
    pub fn in_effect(&self) -> Option<u64> {
        self.in_effect
    }
}
