#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use std::sync::atomic::AtomicUsize;
use strata_model::{ContainerName, Phase, RestartPolicy};
use strata_reconciler::{Assigned, Fact, Observed};

fn template(revision: &str, command: &str) -> dispatch::Template {
    let container = types::Container {
        name: "main".into(),
        image: "a/b:1".into(),
        image_digest: format!("sha256:{}", "0".repeat(64)),
        command: vec![command.into()],
        ..Default::default()
    };
    let pod = types::PodTemplate { containers: vec![container], ..Default::default() };
    dispatch::Template {
        revision: revision.into(),
        spec: Some(types::TemplateSpec { pod: Some(pod), images: vec![], ..Default::default() }),
        ..Default::default()
    }
}

fn assignment(uid: &str, revision: &str) -> dispatch::Assignment {
    dispatch::Assignment {
        uid: uid.into(),
        name: uid.into(),
        template_revision: revision.into(),
        address_index: 2,
        ..Default::default()
    }
}

fn full(generation: u64, pods: &[(&str, &str)], templates: &[dispatch::Template]) -> dispatch::Assignments {
    dispatch::Assignments {
        full: true,
        generation,
        pods: pods.iter().map(|(u, r)| assignment(u, r)).collect(),
        templates: templates.to_vec(),
        ..Default::default()
    }
}

fn desired_on_disk(ledger: &Ledger) -> Vec<(String, String, bool)> {
    let removed = |a: &dispatch::Assignment| a.desired() == types::pod_spec::Desired::Removed;
    let pods = ledger.pods().unwrap().into_iter();
    pods.filter_map(|p| p.assignment).map(|a| (a.uid.clone(), a.template_revision.clone(), removed(&a))).collect()
}

#[test]
fn a_full_frame_is_the_whole_truth_and_a_delta_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let t = [template("r1", "a")];
    assert_eq!(ledger.apply(&full(1, &[("u1", "r1"), ("u2", "r1")], &t)).unwrap().len(), 2);
    let delta =
        dispatch::Assignments { base: 1, generation: 2, pods: vec![assignment("u3", "r1")], ..Default::default() };
    assert_eq!(ledger.apply(&delta).unwrap().len(), 1);
    let changed = ledger.apply(&full(3, &[("u1", "r1"), ("u3", "r1")], &t)).unwrap();
    assert_eq!(changed.iter().map(|a| a.uid.as_str()).collect::<Vec<_>>(), ["u2"]);
    assert_eq!(changed[0].desired(), types::pod_spec::Desired::Removed);
    // What was said survives: the next agent reads the same.
    let again = Ledger::open(dir.path()).unwrap();
    assert_eq!(
        desired_on_disk(&again),
        [("u1".into(), "r1".into(), false), ("u2".into(), "r1".into(), true), ("u3".into(), "r1".into(), false)]
    );
    assert_eq!(again.session().unwrap().generation, 3);
}

#[test]
fn templates_nobody_names_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.apply(&full(1, &[("u1", "r1")], &[template("r1", "a"), template("r2", "b")])).unwrap();
    ledger.apply(&full(2, &[("u1", "r2")], &[])).unwrap();
    assert!(ledger.template("r2").unwrap().is_some());
    assert!(ledger.template("r1").unwrap().is_none());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let t = [template("r1", "a")];
    for uid in ["../x", "", "a/b", ".."] {
        assert!(matches!(ledger.apply(&full(1, &[(uid, "r1")], &t)), Err(LedgerError::Frame(_))), "{uid}");
    }
    assert!(matches!(ledger.apply(&full(1, &[], &[template("../r", "a")])), Err(LedgerError::Frame(_))));
    assert!(matches!(ledger.apply(&full(1, &[("u1", "unsent")], &t)), Err(LedgerError::Frame(_))));
    assert_eq!(ledger.session().unwrap().generation, 0);
}

#[test]
fn a_power_cut_at_any_step_leaves_old_or_new_and_the_frame_can_come_again() {
    let first = full(1, &[("u1", "r1"), ("u2", "r1")], &[template("r1", "a")]);
    let second = full(2, &[("u1", "r2"), ("u3", "r2")], &[template("r2", "b")]);
    let mut cut_short = 0;
    for steps in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.apply(&first).unwrap();
        ledger.files.steps_left = Some(AtomicUsize::new(steps));
        let result = ledger.apply(&second);
        drop(ledger);

        let after = Ledger::open(dir.path()).unwrap();
        let pods = desired_on_disk(&after);
        for (uid, revision, removed) in &pods {
            let old_or_new: &[(&str, bool)] = match uid.as_str() {
                "u1" => &[("r1", false), ("r2", false)],
                "u2" => &[("r1", false), ("r1", true)],
                "u3" => &[("r2", false)],
                other => panic!("{other}"),
            };
            assert!(old_or_new.contains(&(revision.as_str(), *removed)), "after {steps} steps: {pods:?}");
            assert!(after.template(revision).unwrap().is_some(), "after {steps} steps {uid} has no template");
        }
        let generation = after.session().unwrap().generation;
        assert!(result.is_err() || generation == 2, "acknowledged and not there");
        after.apply(&second).unwrap();
        assert_eq!(
            desired_on_disk(&after),
            [("u1".into(), "r2".into(), false), ("u2".into(), "r1".into(), true), ("u3".into(), "r2".into(), false)]
        );
        if result.is_ok() {
            break;
        }
        cut_short += 1;
        let leftovers = files::names(&dir.path().join("ledger")).unwrap();
        assert!(leftovers.iter().all(|n| !n.starts_with(files::HALF_WRITTEN)), "{leftovers:?}");
    }
    assert!(cut_short > 20, "only {cut_short} steps were seen");
}

#[test]
fn a_removal_cut_short_is_finished_by_the_next_agent() {
    for steps in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.apply(&full(1, &[("u1", "r1")], &[template("r1", "a")])).unwrap();
        ledger.files.steps_left = Some(AtomicUsize::new(steps));
        let done = ledger.remove_pod(&Uid::from_trusted("u1")).is_ok();
        let after = Ledger::open(dir.path()).unwrap();
        after.remove_pod(&Uid::from_trusted("u1")).unwrap();
        assert_eq!(files::names(&dir.path().join("pods")).unwrap(), Vec::<String>::new(), "{steps} {done}");
    }
}

#[test]
fn a_record_reads_back_and_a_reboot_forgets_the_old_clock() {
    let main = ContainerName::from_trusted("main");
    let mut assigned = Assigned::unwanted();
    assigned.containers = vec![main.clone()];
    assigned.restart_policy = RestartPolicy::Always;
    assigned.desired = strata_model::Desired::Run;
    let mut observed = Observed::new(&assigned);
    observed.record(&assigned, Fact::ImagesReady, 5);
    observed.record(&assigned, Fact::SandboxReady, 6);
    observed.record(&assigned, Fact::Started { container: main, pid: 42, started_unix_ms: 9 }, 7);
    let record = Record::new("boot-a", &observed);
    let back: Record = serde_json::from_slice(&serde_json::to_vec(&record).unwrap()).unwrap();
    let mut want = observed;
    want.images = strata_reconciler::Images::Unknown;
    assert_eq!(back.observed(), want);
    assert_eq!(back.observed().reached, Phase::Running);
    let after = back.observed_after_reboot(100);
    assert_eq!(after.sandbox, strata_reconciler::Sandbox::Ready { since: 100 });
}
