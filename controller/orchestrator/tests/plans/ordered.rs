//! Slots, one after another.

use super::*;

#[test]
fn slots_are_made_in_order_each_once_the_one_before_is_ready() {
    let w = workload(Mode::Ordered(3), "a");
    check(&w, "", "n1", "+0");
    check(&w, "0a@n1:start", "n1", "");
    check(&w, "0a@n1:run", "n1", "+1");
    check(&w, "0a@n1:run 1a@n1:run 2a@n1:run", "n1", "");
    // A slot that is missing in the middle.
    check(&w, "0a@n1:run 2a@n1:run", "n1", "+1");
}

#[test]
fn slots_are_removed_in_reverse_one_at_a_time() {
    let w = workload(Mode::Ordered(1), "a");
    check(&w, "0a@n1:run 1a@n1:run 2a@n1:run", "n1", "-2");
    check(&w, "0a@n1:run 1a@n1:run 2a@n1:run!", "n1", "");
    check(&w, "0a@n1:run 1a@n1:run", "n1", "-1");
    check(&w, "0a@n1:run 1a@n1:run", "n1?", "");
    check(&workload(Mode::Ordered(0), "a"), "0a@n1:run", "n1", "-0");
}

#[test]
fn a_name_is_free_only_when_its_record_is_gone() {
    let w = workload(Mode::Ordered(1), "a");
    check(&w, "0a@n1:run!", "n1", "");
    check(&w, "0a@n1:lost", "n1x n2", "-0");
    check(&w, "0a@n1:lost!", "n1x n2", "");
    check(&w, "", "n1x n2", "+0");
    check(&w, "0a@n1:fail", "n1", "-0");
    assert_eq!(text(&run(&w, "0a@n1:fail", "n1", 10)), "wake 1000");
}

#[test]
fn an_update_goes_from_the_highest_down_and_waits_for_each() {
    let w = workload(Mode::Ordered(3), "b");
    check(&w, "0a@n1:run 1a@n1:run 2a@n1:run", "n1", "-2");
    check(&w, "0a@n1:run 1a@n1:run 2a@n1:run!", "n1", "");
    check(&w, "0a@n1:run 1a@n1:run", "n1", "+2");
    check(&w, "0a@n1:run 1a@n1:run 2b@n1:start", "n1", "");
    check(&w, "0a@n1:run 1a@n1:run 2b@n1:run", "n1", "-1");
    // One that never came up does not keep its own repair away.
    check(&w, "0a@n1:run 1a@n1:start 2a@n1:run", "n1", "-1");
}
