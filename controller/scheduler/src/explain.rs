//! Why a pod fits nowhere, in words with counts.

use crate::{Scheduler, Shape, filter::lack_of};
use alloc::{collections::BTreeMap, string::String};
use core::fmt;
use strata_model::{NodeName, Resources};

/// The first thing a node lacks for a shape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// Too little CPU is left.
    Cpu,
    /// Too little memory is left.
    Memory,
    /// Too few processes are left.
    Pids,
    /// No room for another pod: addresses or ports of its bridge.
    Pods,
    /// A label of the selector.
    Label {
        /// The label's key.
        key: String,
        /// What the selector wants.
        value: String,
    },
    /// No valid lease.
    NotReady,
    /// Closed for new pods.
    Unschedulable,
    /// The pod was made for another node.
    OtherNode,
    /// A volume of the pod is elsewhere.
    Volume {
        /// Which.
        volume: String,
        /// Where it is.
        node: NodeName,
    },
}

/// Why a shape fits nowhere: nodes counted by the first thing they lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Nodes that are known.
    pub nodes: usize,
    /// Nodes that lack nothing.
    pub feasible: usize,
    /// Nodes by what they lack.
    pub lacks: BTreeMap<Lack, usize>,
    /// What was asked for.
    pub want: Resources,
    /// The most that any of the nodes lacking it has left, of each resource.
    pub most_free: Resources,
    /// The only node it may go to.
    pub only: Option<NodeName>,
}

impl Explanation {
    pub(crate) fn of(scheduler: &Scheduler, shape: &Shape) -> Self {
        let mut e = Self {
            nodes: 0,
            feasible: 0,
            lacks: BTreeMap::new(),
            want: shape.resources(),
            most_free: Resources::default(),
            only: shape.node.clone(),
        };
        for slot in scheduler.slots.iter().filter(|s| s.present) {
            e.nodes += 1;
            let Some(lack) = lack_of(slot, shape) else {
                e.feasible += 1;
                continue;
            };
            let free = slot.free();
            match lack {
                Lack::Cpu => e.most_free.cpu_millis = e.most_free.cpu_millis.max(free.cpu_millis),
                Lack::Memory => e.most_free.memory_bytes = e.most_free.memory_bytes.max(free.memory_bytes),
                Lack::Pids => e.most_free.pids = e.most_free.pids.max(free.pids),
                _ => {}
            }
            *e.lacks.entry(lack).or_default() += 1;
        }
        e
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("there are no nodes: start an agent that joins this controller");
        }
        write!(f, "{} {}: ", self.nodes, if self.nodes == 1 { "node" } else { "nodes" })?;
        let mut separate = "";
        if self.feasible > 0 {
            write!(f, "{} could take it", self.feasible)?;
            separate = ", ";
        }
        for (lack, count) in &self.lacks {
            write!(f, "{separate}{count} ")?;
            separate = ", ";
            self.write_lack(f, lack, *count == 1)?;
        }
        Ok(())
    }
}

impl Explanation {
    fn write_lack(&self, f: &mut fmt::Formatter<'_>, lack: &Lack, one: bool) -> fmt::Result {
        let word = |single: &'static str, many: &'static str| if one { single } else { many };
        let lacks = word("lacks", "lack");
        match lack {
            Lack::Cpu => {
                write!(f, "{lacks} cpu (want {}m, at most {}m free)", self.want.cpu_millis, self.most_free.cpu_millis)
            }
            Lack::Memory => write!(
                f,
                "{lacks} memory (want {}, at most {} free)",
                Bytes(self.want.memory_bytes),
                Bytes(self.most_free.memory_bytes)
            ),
            Lack::Pids => {
                write!(f, "{lacks} processes (want {}, at most {} free)", self.want.pids, self.most_free.pids)
            }
            Lack::Pods => write!(f, "{} full: no address is left for another pod", word("is", "are")),
            Lack::Label { key, value } => write!(f, "{} not match {key}={value}", word("does", "do")),
            Lack::NotReady => write!(f, "{} not ready", word("is", "are")),
            Lack::Unschedulable => write!(f, "{} closed for new pods", word("is", "are")),
            Lack::Volume { volume, node } => {
                write!(f, "{} not have volume {volume}, which is on {node}", word("does", "do"))
            }
            Lack::OtherNode => {
                let only = self.only.as_ref().map_or("", NodeName::as_str);
                write!(f, "{} not {only}, for which the pod was made", word("is", "are"))
            }
        }
    }
}

/// Bytes in the largest binary unit that loses nothing, else in whole MiB.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n > 0 && n % (1 << 30) == 0 => write!(f, "{}Gi", n >> 30),
            n if n >= 1 << 20 => write!(f, "{}Mi", n >> 20),
            n => write!(f, "{n} bytes"),
        }
    }
}
