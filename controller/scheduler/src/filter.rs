//! Which nodes a shape may go to, and for the others the first reason why not.

use crate::{Lack, Shape, nodes::Slot};
use strata_model::Resources;

/// The first filter that a node does not pass, in the order in which people would ask. `None`: it is feasible.
pub(crate) fn lack_of(slot: &Slot, shape: &Shape) -> Option<Lack> {
    if let Some(node) = &shape.node
        && *node != slot.name
    {
        return Some(Lack::OtherNode);
    }
    if let Some((volume, node)) = shape.volumes.iter().find(|(_, node)| *node != slot.name) {
        return Some(Lack::Volume { volume: volume.clone(), node: node.clone() });
    }
    if !slot.ready {
        return Some(Lack::NotReady);
    }
    if slot.unschedulable {
        return Some(Lack::Unschedulable);
    }
    if let Some((key, value)) = shape.selector.iter().find(|(k, v)| slot.labels.get(*k) != Some(*v)) {
        return Some(Lack::Label { key: key.clone(), value: value.clone() });
    }
    lack_of_room(slot, shape.resources())
}

/// The part of the filters that placements change.
pub(crate) fn lack_of_room(slot: &Slot, want: Resources) -> Option<Lack> {
    let free = slot.free();
    if want.cpu_millis > free.cpu_millis {
        return Some(Lack::Cpu);
    }
    if want.memory_bytes > free.memory_bytes {
        return Some(Lack::Memory);
    }
    if want.pids > free.pids {
        return Some(Lack::Pids);
    }
    (slot.pods >= slot.pods_max).then_some(Lack::Pods)
}
