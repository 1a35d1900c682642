//! One pod on every node that matches.

use crate::{Input, Plan, plan::back_off, view::View};
use alloc::{collections::BTreeMap, vec::Vec};
use strata_model::{Node, Pod};

/// The pods of one node.
#[derive(Default)]
struct OnNode<'a> {
    new: Vec<&'a Pod>,
    old: Vec<&'a Pod>,
    finished: bool,
}

pub(crate) fn plan(input: &Input<'_>, view: &View<'_>, plan: &mut Plan) {
    let selector = &input.workload.template.node_selector;
    let nodes: BTreeMap<&str, &Node> = input.nodes.iter().map(|n| (n.name.as_str(), n)).collect();
    let mut by_node: BTreeMap<&str, OnNode<'_>> = BTreeMap::new();
    for pod in &view.live {
        let on = by_node.entry(pod.node.as_str()).or_default();
        if view.is_new(pod) || view.is_frozen() { on.new.push(pod) } else { on.old.push(pod) }
    }
    for pod in &view.finished {
        by_node.entry(pod.node.as_str()).or_default().finished = true;
    }
    // Pods whose node is no more or does not match any longer. A node that is only closed for new pods keeps its own.
    for (name, on) in &by_node {
        let matches = nodes.get(name).is_some_and(|n| selector.iter().all(|(k, v)| n.labels.get(k) == Some(v)));
        if !matches {
            on.new.iter().chain(&on.old).filter(|p| !view.is_held(p)).for_each(|p| plan.remove(p));
        }
    }
    if input.workload.revision.is_empty() {
        return;
    }
    let update = input.workload.update;
    let available = |on: &OnNode<'_>| on.finished || on.new.iter().chain(&on.old).any(|p| view.is_available(p));
    let targets: Vec<&Node> = view.targets().collect();
    let empty = OnNode::default();
    let on = |name: &str| by_node.get(name).unwrap_or(&empty);
    let mut surging =
        targets.iter().filter(|n| !on(n.name.as_str()).new.is_empty() && !on(n.name.as_str()).old.is_empty()).count();
    let mut unavailable = targets.iter().filter(|n| !available(on(n.name.as_str()))).count();
    let wait = back_off(input, view);
    for node in targets {
        let on = on(node.name.as_str());
        on.new.iter().skip(1).for_each(|p| plan.remove(p));
        match (on.new.first(), on.finished, on.old.is_empty()) {
            (None, false, true) => {
                let ended = view.ended.iter().find(|p| p.node == node.name && !input.replaced.contains(&p.uid));
                match (wait, ended) {
                    (Some(at), Some(pod)) if pod.phase != strata_model::Phase::Lost => plan.wake(at),
                    _ => plan.create(
                        Some(node.name.clone()),
                        ended.map(|p| p.uid.clone()),
                        view.revision_to_make().clone(),
                    ),
                }
            }
            (None, false, false) => {
                let serves = on.old.iter().any(|p| view.is_ready(p));
                if !serves || unavailable < update.max_unavailable as usize {
                    // Its place becomes free; the next plan makes the new one.
                    unavailable += usize::from(serves);
                    on.old.iter().for_each(|p| plan.remove(p));
                } else if surging < update.max_surge as usize {
                    surging += 1;
                    plan.create(Some(node.name.clone()), None, view.revision_to_make().clone());
                    // Of several old revisions the one that serves is enough.
                    on.old.iter().filter(|p| !view.is_ready(p)).for_each(|p| plan.remove(p));
                }
            }
            (Some(new), _, false) if view.is_available(new) => on.old.iter().for_each(|p| plan.remove(p)),
            (None, true, false) => on.old.iter().for_each(|p| plan.remove(p)),
            _ => {}
        }
    }
}
