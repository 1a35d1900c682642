//! From one revision to the next, and back.

use super::*;
use strata_model::{OnFailure, Rollout};

const NOW: u64 = 1_000_000;

/// A workload that was once complete at `a` and is to go to this revision.
fn turning(mode: Mode, revision: &str) -> Workload {
    let mut w = workload(mode, revision);
    w.generation = 2;
    w.observed_generation = 2;
    w.rollout = was_complete("a");
    w
}

/// Plans, and takes over what is to be remembered.
fn turn(w: &mut Workload, pods: &str, now: u64) -> Plan {
    let plan = run(w, pods, "n1 n2", now);
    if let Some(advance) = &plan.rollout {
        w.rollout = advance.state.clone();
        if let Some(revision) = &advance.revert {
            w.revision = revision.clone();
        }
    }
    plan
}

#[test]
fn a_rollout_is_begun_comes_forward_and_is_complete() {
    let mut w = turning(Mode::Replicated(2), "b");
    turn(&mut w, "0a@n1:run 1a@n2:run", NOW);
    let numbers: Vec<(u64, &str, bool)> =
        w.rollout.history.iter().map(|r| (r.number, r.name.as_str(), r.complete)).collect();
    assert_eq!(numbers, [(1, "a", true), (2, "b", false)]);
    assert_eq!((w.rollout.rollout, w.rollout.progressed), (Rollout::Progressing, NOW));
    turn(&mut w, "1a@n2:run 2b@n1:run 3b@n2:start", NOW + 5);
    assert_eq!(w.rollout.rollout, Rollout::Progressing);
    turn(&mut w, "2b@n1:run 3b@n2:run", NOW + 6);
    assert_eq!(w.rollout.rollout, Rollout::Complete);
    assert!(w.rollout.history[1].complete);
    // Pods that fall ill later are no matter of the rollout.
    turn(&mut w, "2b@n1:run 3b@n2:start", NOW + 9_000_000);
    assert_eq!(w.rollout.rollout, Rollout::Complete);
}

#[test]
fn without_progress_the_last_complete_revision_comes_back_and_the_old_pods_were_never_touched() {
    let mut w = turning(Mode::Replicated(2), "b");
    turn(&mut w, "0a@n1:run 1a@n2:run", NOW);
    let plan = turn(&mut w, "0a@n1:run 1a@n2:run 2b@n1:start", NOW + 599_999);
    assert_eq!((text(&plan).as_str(), w.rollout.rollout), ("wake 1600000", Rollout::Progressing));
    let plan = turn(&mut w, "0a@n1:run 1a@n2:run 2b@n1:start", NOW + 600_000);
    assert_eq!(plan.actions, [], "the way back is another plan");
    assert!(plan.more && w.revision.as_str() == "a");
    assert_eq!((w.rollout.rollout, w.rollout.failed_generation), (Rollout::Reverted, 2));
    let why = plan.rollout.unwrap().failure.unwrap();
    assert!(why.contains("revision 2") && why.contains("600 s") && why.contains("back at revision 1"), "{why}");
    assert_eq!(text(&turn(&mut w, "0a@n1:run 1a@n2:run 2b@n1:start", NOW + 600_001)), "-2");
    // It is not tried again, and nothing is begun anew.
    turn(&mut w, "0a@n1:run 1a@n2:run", NOW + 700_000);
    assert_eq!((w.rollout.rollout, w.rollout.history.len()), (Rollout::Reverted, 2));
    // Until the spec changes: here back to what runs.
    (w.generation, w.observed_generation) = (3, 3);
    turn(&mut w, "0a@n1:run 1a@n2:run", NOW + 800_000);
    assert_eq!(w.rollout.rollout, Rollout::Complete);
    assert_eq!(w.rollout.history.last().map(|r| (r.number, r.name.as_str())), Some((3, "a")));
}

#[test]
fn each_new_pod_that_serves_is_progress() {
    let mut w = turning(Mode::Replicated(2), "b");
    turn(&mut w, "0a@n1:run 1a@n2:run", NOW);
    let mut up = pod("2b@n1:run");
    up.ready_since = NOW + 500_000;
    let pods = [pod("1a@n2:run"), up, pod("3b@n2:start")];
    let nodes = [node("n1"), node("n2")];
    let replaced = BTreeSet::new();
    let plan_at = |w: &Workload, now| plan(Input { workload: w, pods: &pods, replaced: &replaced, nodes: &nodes, now });
    let plan = plan_at(&w, NOW + 900_000);
    let advance = plan.rollout.unwrap();
    // Without a readiness probe it has to stay for a second first.
    assert_eq!((advance.state.progressed, advance.state.rollout), (NOW + 501_000, Rollout::Progressing));
    w.rollout = advance.state;
    let plan = plan_at(&w, NOW + 1_101_000);
    assert_eq!(plan.rollout.unwrap().state.rollout, Rollout::Reverted);
}

#[test]
fn a_pod_serves_only_once_it_has_stayed() {
    let mut w = turning(Mode::Replicated(1), "b");
    let nodes = [node("n1")];
    let plan_with = |w: &Workload, restarts: u32, now: u64| {
        let mut new = pod("1b@n1:run");
        (new.ready_since, new.restarts) = (NOW, restarts);
        let pods = [pod("0a@n1:run"), new];
        let plan = plan(Input { workload: w, pods: &pods, replaced: &BTreeSet::new(), nodes: &nodes, now });
        let removes = plan.actions.iter().any(|a| matches!(a, Action::Remove { .. }));
        (removes, plan.wake)
    };
    assert_eq!(plan_with(&w, 0, NOW + 10), (false, Some(NOW + 1_000)));
    assert!(plan_with(&w, 0, NOW + 1_000).0);
    assert_eq!(plan_with(&w, 3, NOW + 1_000), (false, Some(NOW + 10_000)), "it has ended before");
    w.update.min_ready_ms = 30_000;
    assert_eq!(plan_with(&w, 0, NOW + 10_000), (false, Some(NOW + 30_000)));
    assert!(plan_with(&w, 0, NOW + 30_000).0);
}

#[test]
fn a_first_rollout_that_fails_says_so_and_goes_on_trying() {
    let mut w = workload(Mode::Replicated(1), "a");
    w.rollout = RolloutState::default();
    turn(&mut w, "0a@n1:start", NOW);
    let plan = turn(&mut w, "0a@n1:start", NOW + 600_000);
    assert_eq!((w.rollout.rollout, w.revision.as_str()), (Rollout::Failed, "a"));
    assert!(plan.rollout.unwrap().failure.is_some());
    let plan = turn(&mut w, "0a@n1:start", NOW + 600_001);
    assert!(plan.rollout.unwrap().failure.is_none(), "told once");
    turn(&mut w, "0a@n1:run", NOW + 700_000);
    assert_eq!(w.rollout.rollout, Rollout::Complete);
}

#[test]
fn one_that_is_to_pause_stays_as_it_is() {
    let mut w = turning(Mode::Replicated(2), "b");
    w.update.on_failure = OnFailure::Pause;
    turn(&mut w, "0a@n1:run 1a@n2:run", NOW);
    turn(&mut w, "0a@n1:run 1a@n2:run 2b@n1:start", NOW + 600_000);
    assert_eq!((w.rollout.rollout, w.revision.as_str()), (Rollout::Failed, "b"));
    assert_eq!(text(&turn(&mut w, "0a@n1:run 2b@n1:start", NOW + 600_001)), "");
}

#[test]
fn a_pause_holds_changes_back_but_not_numbers() {
    let mut w = turning(Mode::Replicated(2), "b");
    w.paused = true;
    assert_eq!(text(&turn(&mut w, "0a@n1:run 1a@n2:run", NOW)), "");
    assert_eq!(w.rollout.rollout, Rollout::Paused);
    w.mode = Mode::Replicated(3);
    let plan = turn(&mut w, "0a@n1:run 1a@n2:run", NOW + 1);
    let Some(Action::Create { revision, .. }) = plan.actions.first() else { panic!("{plan:?}") };
    assert_eq!(revision.as_str(), "a", "of the revision that was complete");
    w.paused = false;
    let plan = turn(&mut w, "0a@n1:run 1a@n2:run 2a@n1:run", NOW + 9_000_000);
    assert_eq!((w.rollout.rollout, w.rollout.progressed), (Rollout::Progressing, NOW + 9_000_000));
    assert!(text(&plan).starts_with("+3"), "{}", text(&plan));
}

#[test]
fn images_that_cannot_be_had_fail_a_rollout_too() {
    let mut w = turning(Mode::Replicated(1), "a");
    w.observed_generation = 1;
    w.waits_for_images = true;
    w.message = "ImageNotFound: no such image".into();
    turn(&mut w, "0a@n1:run", NOW);
    assert_eq!((w.rollout.rollout, w.rollout.history.len()), (Rollout::Progressing, 1));
    let plan = turn(&mut w, "0a@n1:run", NOW + 600_000);
    let advance = plan.rollout.unwrap();
    assert!(advance.failure.unwrap().contains("no such image"));
    assert_eq!((advance.revert.unwrap().as_str(), w.rollout.rollout), ("a", Rollout::Reverted));
}

#[test]
fn all_at_once_waits_until_the_old_ones_are_gone() {
    let mut w = turning(Mode::Replicated(2), "b");
    w.update = UpdatePolicy { max_surge: 0, max_unavailable: 2, ..UpdatePolicy::default() };
    let text_of = |w: &Workload, pods: &str| {
        let plan = run(w, pods, "n1", NOW);
        text(&Plan { wake: None, ..plan })
    };
    assert_eq!(text_of(&w, "0a@n1:run 1a@n1:run"), "-0 -1");
    assert_eq!(text_of(&w, "0a@n1:run! 1a@n1:run!"), "");
    assert_eq!(text_of(&w, "1a@n1:run!"), "");
    assert_eq!(text_of(&w, ""), "+0 +1");
}

#[test]
fn the_history_keeps_ten_and_what_one_would_go_back_to() {
    let mut w = turning(Mode::Replicated(1), "b");
    for i in 0..15u32 {
        w.revision = RevisionName::from_trusted(format!("x{i}"));
        turn(&mut w, "0a@n1:run", NOW + u64::from(i));
    }
    let names: Vec<&str> = w.rollout.history.iter().map(|r| r.name.as_str()).collect();
    assert_eq!((names.len(), names[0], names[9]), (10, "a", "x14"));
    // Back to one that is still known: it moves up under a new number.
    w.revision = RevisionName::from_trusted("a");
    turn(&mut w, "0a@n1:run", NOW + 100);
    assert_eq!(w.rollout.history.last().map(|r| (r.number, r.name.as_str(), r.complete)), Some((17, "a", true)));
}

#[test]
fn a_pod_that_has_just_become_ready_is_not_taken_for_a_useless_one() {
    // As after a restart of the controller: everything has just become ready as far as it knows.
    let w = workload(Mode::Replicated(1), "a");
    let mut pods = [pod("0a@n1:run"), pod("1a@n1:run")];
    pods.iter_mut().for_each(|p| p.ready_since = NOW);
    let nodes = [node("n1")];
    let replaced = BTreeSet::new();
    let plan_at = |now| plan(Input { workload: &w, pods: &pods, replaced: &replaced, nodes: &nodes, now });
    assert_eq!(text(&plan_at(NOW + 1)), "wake 1001000");
    assert_eq!(text(&plan_at(NOW + 1_000)), "-1");
}
