//! Pods leave a node that is drained, when another place serves.

use super::*;

#[test]
fn a_replacement_serves_before_a_pod_leaves_a_drained_node() {
    let mut w = workload(Mode::Replicated(2), "a");
    check(&w, "0a@n1:run 1a@n2:run", "n1* n2", "+2");
    check(&w, "0a@n1:run 1a@n2:run 2a:pend", "n1* n2", "");
    check(&w, "0a@n1:run 1a@n2:run 2a@n2:run", "n1* n2", "-0");
    // Also where an update would take pods away first.
    w.update = UpdatePolicy { max_surge: 0, max_unavailable: 2, ..UpdatePolicy::default() };
    check(&w, "0a@n1:run 1a@n1:run", "n1* n2", "+2");
    check(&w, "0a@n1:run 1a@n1:run 2a@n2:run", "n1* n2", "-0 +3");
}

#[test]
fn nothing_leaves_the_only_node() {
    let w = workload(Mode::Replicated(1), "a");
    check(&w, "0a@n1:run", "n1*", "+1");
    check(&w, "0a@n1:run 1a:pend", "n1*", "");
    // Once it is open again the one that waits is one too many.
    check(&w, "0a@n1:run 1a:pend", "n1", "-1");
}

#[test]
fn one_per_node_stays_where_it_is() {
    check(&workload(Mode::Global, "a"), "0a@n1:run 1a@n2:run", "n1* n2", "");
}

#[test]
fn a_slot_moves_only_where_it_can() {
    let mut w = workload(Mode::Ordered(2), "a");
    check(&w, "0a@n1:run 1a@n1:run", "n1* n2", "-1");
    check(&w, "0a@n1:run 1a@n1:run", "n1*", "");
    check(&w, "0a@n1:run 1a@n1:start", "n1* n2", "");
    w.volume_templates = vec![strata_model::VolumeTemplate { name: "data".into(), size_bytes: 0 }];
    check(&w, "0a@n1:run 1a@n1:run", "n1* n2", "");
}
