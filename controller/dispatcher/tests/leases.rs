//! When nodes count as alive.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use strata_dispatcher::{LeaseSettings, Leases, Verdict};
use strata_model::NodeName;

const SETTINGS: LeaseSettings = LeaseSettings { heartbeat_ms: 5_000, lease_ms: 15_000 };

fn node() -> NodeName {
    NodeName::from_trusted("n")
}

/// Runs `begin|renew|sync|expire@TIME` steps; collects the verdicts with their times and at the end whether the node is settled.
fn check(steps: &str, expect: &str) {
    let mut leases = Leases::new(SETTINGS);
    let mut got = String::new();
    for step in steps.split_whitespace() {
        let (verb, at) = step.split_once('@').unwrap();
        let now = at.parse().unwrap();
        match verb {
            "begin" => leases.begin(&node(), now),
            "sync" => leases.synced(&node(), now),
            "renew" => {
                if leases.renew(&node(), now) {
                    got += &format!("back@{now} ");
                }
            }
            "expire" => {
                for (_, verdict) in leases.expire(now) {
                    got += &format!("{verdict:?}@{now} ");
                }
            }
            _ => panic!("{verb}"),
        }
    }
    got += if leases.is_settled("n") { "settled" } else { "unsettled" };
    assert_eq!(got, expect, "{steps}");
}

#[test]
fn a_silent_node_is_unknown_after_one_missed_heartbeat_and_lost_at_the_end() {
    check("sync@0 expire@7499", "settled");
    check("sync@0 expire@7500 expire@7501", "Unknown@7500 unsettled");
    check("sync@0 expire@7500 expire@14999 expire@15000 expire@99999", "Unknown@7500 Lost@15000 settled");
    check("sync@0 expire@20000", "Lost@20000 settled");
    check("sync@0 renew@5000 expire@7500 renew@10000 expire@15000", "settled");
}

#[test]
fn a_node_that_returns_in_time_is_well_and_a_lost_one_has_to_sync() {
    check("sync@0 expire@8000 renew@9000 expire@15000", "Unknown@8000 back@9000 settled");
    check("sync@0 expire@16000 renew@17000", "Lost@16000 back@17000 unsettled");
    check("sync@0 expire@16000 renew@17000 sync@17001", "Lost@16000 back@17000 settled");
}

#[test]
fn after_a_start_every_lease_begins_anew() {
    check("begin@100", "unsettled");
    check("begin@100 expire@15099", "unsettled");
    check("begin@100 expire@15100", "Lost@15100 settled");
    check("begin@100 renew@5000 expire@15100", "unsettled");
    check("begin@100 renew@5000 sync@5001", "settled");
}

proptest! {
    #[test]
    fn nobody_is_lost_early_or_kept_too_long(gaps in prop::collection::vec(1u64..20_000, 1..20)) {
        let mut leases = Leases::new(SETTINGS);
        leases.synced(&node(), 0);
        let mut now = 0;
        for gap in gaps {
            let mut lost_at = None;
            for t in (now + 1..=now + gap).step_by(250) {
                prop_assert!(leases.next_deadline().is_none_or(|d| d + 250 > t));
                for (_, v) in leases.expire(t) { if v == Verdict::Lost { lost_at = Some(t - now); } }
            }
            match lost_at {
                Some(at) => prop_assert!((15_000..15_250).contains(&at)),
                None => prop_assert!(gap < 15_250),
            }
            now += gap;
            leases.renew(&node(), now);
            leases.synced(&node(), now);
        }
    }
}
