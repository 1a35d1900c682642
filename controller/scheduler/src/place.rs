//! Placing a batch: per shape one scan into a heap, then the best node again and again.

use crate::{
    Explanation, Occupant, Request, Scheduler, Shape,
    filter::{lack_of, lack_of_room},
    score::{Score, missing_bytes},
};
use alloc::{
    collections::{BTreeMap, BinaryHeap},
    vec::Vec,
};
use strata_model::{NodeName, Uid};

/// Where a pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// To this node; it is counted there already.
    Node(NodeName),
    /// Nowhere now, and why.
    Nowhere(Explanation),
}

impl Scheduler {
    /// Places requests; the answers are in their order. Requests of one shape are placed together, shapes in the order of their
    /// first request: earlier requests go first.
    pub fn place(&mut self, requests: &[Request]) -> Vec<Placement> {
        let mut order: Vec<&Shape> = Vec::new();
        let mut groups: BTreeMap<&Shape, Vec<usize>> = BTreeMap::new();
        for (i, request) in requests.iter().enumerate() {
            let group = groups.entry(&request.shape).or_default();
            if group.is_empty() {
                order.push(&request.shape);
            }
            group.push(i);
        }
        let mut answers: Vec<Option<Placement>> = requests.iter().map(|_| None).collect();
        for shape in order {
            let members = groups.remove(shape).unwrap_or_default();
            let uids = members.iter().map(|i| &requests[*i].uid);
            for (i, placement) in members.iter().zip(self.place_alike(shape, uids)) {
                answers[*i] = Some(placement);
            }
        }
        answers.into_iter().flatten().collect()
    }

    /// Says why a shape fits nowhere now, or how many nodes are feasible.
    #[must_use]
    pub fn why(&self, shape: &Shape) -> Explanation {
        Explanation::of(self, shape)
    }

    fn place_alike<'a>(&mut self, shape: &Shape, uids: impl Iterator<Item = &'a Uid>) -> Vec<Placement> {
        let want = shape.resources();
        let missing = missing_bytes(self, shape);
        let mut heap: BinaryHeap<Score> = self
            .candidates(shape)
            .filter(|i| lack_of(&self.slots[*i], shape).is_none())
            .map(|i| self.score(i, shape, missing[i]))
            .collect();
        let mut nowhere: Option<Explanation> = None;
        uids.map(|uid| {
            // Every entry is up to date: only this loop changes nodes, and it re-enters the one node that it changed.
            let Some(best) = heap.pop() else {
                return Placement::Nowhere(nowhere.get_or_insert_with(|| Explanation::of(self, shape)).clone());
            };
            let index = best.slot();
            let node = self.slots[index].name.clone();
            let occupant = Occupant { node: node.clone(), resources: want, workload: shape.workload.clone() };
            self.add_pod(uid, occupant);
            if lack_of_room(&self.slots[index], want).is_none() {
                heap.push(self.score(index, shape, missing[index]));
            }
            Placement::Node(node)
        })
        .collect()
    }

    fn candidates(&self, shape: &Shape) -> impl Iterator<Item = usize> {
        match &shape.node {
            Some(node) => {
                let index = self.index_of(node);
                index.map_or(0..0, |i| i..i + 1)
            }
            None => 0..self.slots.len(),
        }
        .filter(|i| self.slots[*i].present)
    }

    fn score(&self, index: usize, shape: &Shape, missing: u64) -> Score {
        let same = shape.workload.as_ref().and_then(|w| self.spread.get(w)?.get(&index)).copied().unwrap_or(0);
        Score::of(index, &self.slots[index], shape.resources(), same, missing)
    }
}
