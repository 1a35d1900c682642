//! A node that follows the frames ends up with the set, whatever is lost or late.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use strata_dispatcher::{Assignment, AssignmentSet, FRAMES_MAX, Frame, REMOVED_KEPT, Session};
use strata_model::{Desired, ObjectName, RevisionName, Uid};

fn uid(n: usize) -> Uid {
    Uid::from_trusted(format!("uid-{n}"))
}

fn pod(n: usize, template: &str) -> Assignment {
    Assignment {
        uid: uid(n),
        name: ObjectName::new("default", format!("web-{n}")),
        template: RevisionName::from_trusted(template),
        address_index: 2,
        desired: Desired::Run,
        workload: "web".into(),
        ordinal: n as u64,
        grace_s: None,
    }
}

fn put(set: &mut AssignmentSet, n: usize, template: &str) {
    assert!(set.change(0, [(uid(n), Some(pod(n, template)))]));
}

/// `full 12: +0 +1 / a` or `delta 11>12: +0 -1 / a`.
fn text(frame: &Frame) -> String {
    let list = |pods: &[Assignment], removed: &[Uid], templates: &[RevisionName]| {
        let pods = pods.iter().map(|p| format!(" +{}", p.ordinal));
        let removed = removed.iter().map(|u| format!(" -{}", u.as_str().trim_start_matches("uid-")));
        let templates = templates.iter().map(|t| format!(" {t}"));
        format!("{} /{}", pods.chain(removed).collect::<String>(), templates.collect::<String>())
    };
    match frame {
        Frame::Full { generation, pods, templates } => format!("full {generation}:{}", list(pods, &[], templates)),
        Frame::Delta { base, generation, pods, removed, templates } => {
            format!("delta {base}>{generation}:{}", list(pods, removed, templates))
        }
        Frame::Nothing => "nothing".into(),
    }
}

#[test]
fn first_the_whole_truth_then_what_changed_and_each_template_once() {
    let mut set = AssignmentSet::new(10);
    put(&mut set, 0, "a");
    let mut session = Session::new();
    assert_eq!(text(&session.frame(&set)), "full 11: +0 / a");
    assert_eq!(text(&session.frame(&set)), "nothing");
    put(&mut set, 1, "a");
    put(&mut set, 2, "b");
    set.change(20, [(uid(0), None)]);
    assert_eq!(text(&session.frame(&set)), "delta 11>20: +1 +2 -0 / b");
    assert!(!set.change(30, [(uid(1), Some(pod(1, "a"))), (uid(7), None)]), "nothing changed");
    assert_eq!(text(&session.frame(&set)), "nothing");
    session.resync();
    assert_eq!(text(&session.frame(&set)), "full 20: +1 +2 / a b");
}

#[test]
fn an_empty_node_is_told_so() {
    assert_eq!(text(&Session::new().frame(&AssignmentSet::new(5))), "full 5: /");
}

#[test]
fn a_node_that_does_not_acknowledge_is_sent_no_more_and_then_everything() {
    let mut set = AssignmentSet::new(0);
    let mut session = Session::new();
    for n in 0..FRAMES_MAX {
        put(&mut set, n, "a");
        assert_ne!(session.frame(&set), Frame::Nothing);
    }
    put(&mut set, 100, "a");
    assert_eq!(session.frame(&set), Frame::Nothing);
    session.acknowledge(1);
    assert_eq!(session.acknowledged(), Some(1));
    assert!(matches!(session.frame(&set), Frame::Full { pods, .. } if pods.len() == FRAMES_MAX + 1));
}

#[test]
fn a_session_that_is_too_far_behind_gets_a_full_frame() {
    let mut set = AssignmentSet::new(0);
    put(&mut set, 0, "a");
    let mut session = Session::new();
    session.frame(&set);
    for n in 1..REMOVED_KEPT + 3 {
        put(&mut set, n, "a");
        set.change(0, [(uid(n), None)]);
    }
    assert!(matches!(session.frame(&set), Frame::Full { pods, .. } if pods.len() == 1));
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u8),
    Remove(usize),
    Send,
    Lose,
    Acknowledge,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..6, 0u8..3).prop_map(|(n, t)| Step::Put(n, t)),
        2 => (0usize..6).prop_map(Step::Remove),
        4 => Just(Step::Send),
        1 => Just(Step::Lose),
        2 => Just(Step::Acknowledge),
    ]
}

proptest! {
    #[test]
    fn the_node_ends_up_with_the_set(steps in prop::collection::vec(step(), 0..80)) {
        let mut set = AssignmentSet::new(3);
        let mut session = Session::new();
        let mut node: BTreeMap<Uid, Assignment> = BTreeMap::new();
        let mut at: Option<u64> = None;
        let mut templates: BTreeSet<RevisionName> = BTreeSet::new();
        let end = [Step::Acknowledge, Step::Send, Step::Acknowledge, Step::Send];
        for (i, step) in steps.into_iter().chain(end).enumerate() {
            match step {
                Step::Put(n, t) => { set.change(i as u64, [(uid(n), Some(pod(n, &t.to_string())))]); }
                Step::Remove(n) => { set.change(i as u64, [(uid(n), None)]); }
                Step::Lose => { session.frame(&set); session.resync(); }
                Step::Acknowledge => if let Some(g) = at { session.acknowledge(g) },
                Step::Send => {
                    let (pods, new) = match session.frame(&set) {
                        Frame::Nothing => continue,
                        Frame::Full { generation, pods, templates } => {
                            node.clear();
                            at = Some(generation);
                            (pods, templates)
                        }
                        Frame::Delta { base, generation, pods, removed, templates } => {
                            prop_assert_eq!(at, Some(base), "a delta applies to what was sent before");
                            prop_assert!(generation > base);
                            for u in &removed { prop_assert!(node.remove(u).is_some()
                                || !pods.iter().any(|p| p.uid == *u)); }
                            at = Some(generation);
                            (pods, templates)
                        }
                    };
                    templates.extend(new);
                    for p in pods {
                        prop_assert!(templates.contains(&p.template), "its template has been sent");
                        node.insert(p.uid.clone(), p);
                    }
                }
            }
        }
        let wanted: BTreeMap<Uid, Assignment> = set.pods().map(|p| (p.uid.clone(), p.clone())).collect();
        prop_assert_eq!(node, wanted);
    }
}
