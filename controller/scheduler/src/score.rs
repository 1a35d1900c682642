//! How good a feasible node is for a shape. Field order is the order of importance.

use crate::{Scheduler, Shape, nodes::Slot};
use alloc::{vec, vec::Vec};
use core::cmp::Reverse;
use strata_model::Resources;

/// Greater is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// Pods of the same workload that are there: few.
    spread: Reverse<u32>,
    /// Bytes of layers it would have to fetch: few.
    missing_bytes: Reverse<u64>,
    /// Used share of CPU and memory with this pod, in 1/1000 each: much.
    used: u64,
    /// Pods on it: few, so that pods which ask for nothing do not all end up on one node.
    pods: Reverse<u32>,
    /// Lower slots first: the last word, so that the choice is deterministic.
    slot: Reverse<usize>,
}

impl Score {
    pub fn of(index: usize, slot: &Slot, want: Resources, same_workload: u32, missing_bytes: u64) -> Self {
        let share = |taken: u64, capacity: u64| (taken.saturating_mul(1000)).checked_div(capacity).unwrap_or(0);
        let taken = slot.allocated.plus(want);
        // Pods that ask for nothing pack nothing.
        let used = if want.cpu_millis == 0 && want.memory_bytes == 0 {
            0
        } else {
            share(taken.cpu_millis, slot.capacity.cpu_millis) + share(taken.memory_bytes, slot.capacity.memory_bytes)
        };
        Self {
            spread: Reverse(same_workload),
            missing_bytes: Reverse(missing_bytes),
            used,
            pods: Reverse(slot.pods),
            slot: Reverse(index),
        }
    }

    pub fn slot(&self) -> usize {
        self.slot.0
    }
}

/// Bytes of the shape's layers that each slot lacks.
pub(crate) fn missing_bytes(scheduler: &Scheduler, shape: &Shape) -> Vec<u64> {
    let total: u64 = shape.layers.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
    let mut missing = vec![total; scheduler.slots.len()];
    for (layer, bytes) in &shape.layers {
        for index in scheduler.holders.get(layer).into_iter().flatten() {
            missing[*index] = missing[*index].saturating_sub(*bytes);
        }
    }
    missing
}
