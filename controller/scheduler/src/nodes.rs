//! The dense arrays of nodes and what occupies them, kept up to date change by change.

use crate::{Occupant, PODS_PER_NODE_MAX};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use strata_model::{Digest, Labels, Node, NodeName, NodePhase, ObjectName, Resources, Uid};

/// Nodes, what their pods take, and who has which layer.
#[derive(Debug, Default)]
pub struct Scheduler {
    pub(crate) slots: Vec<Slot>,
    by_name: BTreeMap<NodeName, usize>,
    occupants: BTreeMap<Uid, (usize, Occupant)>,
    /// Pods per slot of each workload that has any.
    pub(crate) spread: BTreeMap<ObjectName, BTreeMap<usize, u32>>,
    /// Which slots have a layer.
    pub(crate) holders: BTreeMap<Digest, BTreeSet<usize>>,
}

/// One node. A slot stays when its node goes, so that indexes never move.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub name: NodeName,
    /// Known now; a slot may exist before its node is heard of, because pods are bound to it.
    pub present: bool,
    pub ready: bool,
    pub unschedulable: bool,
    pub labels: Labels,
    /// 0 = not limited.
    pub capacity: Resources,
    pub allocated: Resources,
    pub pods: u32,
    pub pods_max: u32,
    layers: BTreeSet<Digest>,
}

impl Slot {
    /// What is left; an amount that the node does not limit is as good as endless.
    pub fn free(&self) -> Resources {
        let left = |capacity: u64, taken: u64| if capacity == 0 { u64::MAX } else { capacity.saturating_sub(taken) };
        Resources {
            cpu_millis: left(self.capacity.cpu_millis, self.allocated.cpu_millis),
            memory_bytes: left(self.capacity.memory_bytes, self.allocated.memory_bytes),
            pids: u32::try_from(left(self.capacity.pids.into(), self.allocated.pids.into())).unwrap_or(u32::MAX),
        }
    }
}

impl Scheduler {
    /// An empty cluster.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn slot(&mut self, name: &NodeName) -> usize {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        self.slots.push(Slot {
            name: name.clone(),
            present: false,
            ready: false,
            unschedulable: false,
            labels: Labels::new(),
            capacity: Resources::default(),
            allocated: Resources::default(),
            pods: 0,
            pods_max: PODS_PER_NODE_MAX,
            layers: BTreeSet::new(),
        });
        self.by_name.insert(name.clone(), self.slots.len() - 1);
        self.slots.len() - 1
    }

    /// Takes in a new node or a node's new state. True if more pods might fit now than before: worth another try for those that wait.
    pub fn set_node(&mut self, node: &Node) -> bool {
        let index = self.slot(&node.name);
        let wanted: BTreeSet<Digest> = node.layers.iter().map(|l| l.diff_id.clone()).collect();
        let slot = &mut self.slots[index];
        let ready = node.phase == NodePhase::Ready;
        let pods_max = node.subnet.last_index().saturating_sub(1).min(PODS_PER_NODE_MAX);
        let better = (ready && !slot.ready)
            || (slot.unschedulable && !node.unschedulable)
            || slot.labels != node.labels
            || slot.capacity != node.capacity
            || slot.pods_max != pods_max
            || !slot.present;
        slot.present = true;
        slot.ready = ready;
        slot.unschedulable = node.unschedulable;
        slot.capacity = node.capacity;
        slot.pods_max = pods_max;
        if slot.labels != node.labels {
            slot.labels = node.labels.clone();
        }
        if slot.layers != wanted {
            for lost in slot.layers.difference(&wanted) {
                drop_holder(&mut self.holders, lost, index);
            }
            for gained in wanted.difference(&slot.layers) {
                self.holders.entry(gained.clone()).or_default().insert(index);
            }
            slot.layers = wanted;
        }
        better
    }

    /// Forgets a node; pods bound to it stay counted, should it come back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(index) = self.by_name.get(name).copied() else { return };
        let slot = &mut self.slots[index];
        slot.present = false;
        slot.ready = false;
        for lost in core::mem::take(&mut slot.layers) {
            drop_holder(&mut self.holders, &lost, index);
        }
    }

    /// Counts a bound pod, or its new state. True if that freed something.
    pub fn add_pod(&mut self, uid: &Uid, occupant: Occupant) -> bool {
        if self.occupants.get(uid).is_some_and(|(_, o)| *o == occupant) {
            return false;
        }
        let freed = self.remove_pod(uid);
        let index = self.slot(&occupant.node);
        let slot = &mut self.slots[index];
        slot.allocated = slot.allocated.plus(occupant.resources);
        slot.pods += 1;
        if let Some(workload) = &occupant.workload {
            *self.spread.entry(workload.clone()).or_default().entry(index).or_default() += 1;
        }
        self.occupants.insert(uid.clone(), (index, occupant));
        freed
    }

    /// Stops counting a pod. True if it was counted.
    pub fn remove_pod(&mut self, uid: &Uid) -> bool {
        let Some((index, occupant)) = self.occupants.remove(uid) else { return false };
        let slot = &mut self.slots[index];
        slot.allocated = slot.allocated.minus(occupant.resources);
        slot.pods = slot.pods.saturating_sub(1);
        if let Some(workload) = occupant.workload
            && let Some(counts) = self.spread.get_mut(&workload)
        {
            if let Some(count) = counts.get_mut(&index) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&index);
                }
            }
            if counts.is_empty() {
                self.spread.remove(&workload);
            }
        }
        true
    }

    /// What the pods of a node have set aside, and how many they are.
    #[must_use]
    pub fn allocated(&self, node: &str) -> (Resources, u32) {
        self.by_name.get(node).map_or((Resources::default(), 0), |i| (self.slots[*i].allocated, self.slots[*i].pods))
    }

    /// How many nodes are known.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.slots.iter().filter(|s| s.present).count()
    }

    pub(crate) fn index_of(&self, node: &NodeName) -> Option<usize> {
        self.by_name.get(node).copied()
    }
}

fn drop_holder(holders: &mut BTreeMap<Digest, BTreeSet<usize>>, layer: &Digest, index: usize) {
    if let Some(slots) = holders.get_mut(layer) {
        slots.remove(&index);
        if slots.is_empty() {
            holders.remove(layer);
        }
    }
}
