//! What is done about a workload: tables of cases in a small notation.
//!
//! A pod is `ORDINAL REVISION NODE STATE`, for instance `3b@n1:run`; states: pend, start, run (ready), exit, fail, lost; a `!` behind it: being
//! removed, a `~`: stopped on request. A node is `NAME` with a suffix `?` (Unknown), `x` (Lost), `-` (closed), `*` (drained), `/KEY=VALUE`.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "plans/drains.rs"]
mod drains;
#[path = "plans/jobs.rs"]
mod jobs;
#[path = "plans/ordered.rs"]
mod ordered;
#[path = "plans/rollouts.rs"]
mod rollouts;

use std::collections::BTreeSet;
use strata_model::{
    Desired, Labels, Mode, Node, NodeName, NodePhase, ObjectName, Phase, Pod, PodTemplate, Resources, RestartPolicy,
    Revision, RevisionName, RolloutState, Uid, UpdatePolicy, Workload,
};
use strata_orchestrator::{Action, Input, Plan, plan};

fn pod(text: &str) -> Pod {
    let (who, state) = text.split_once(':').unwrap();
    let (who, node) = who.split_once('@').unwrap_or((who, ""));
    let at = who.find(|c: char| c.is_ascii_alphabetic()).unwrap();
    let ordinal: u64 = who[..at].parse().unwrap();
    let (state, desired) = match state.chars().last() {
        Some('!') => (&state[..state.len() - 1], Desired::Removed),
        Some('~') => (&state[..state.len() - 1], Desired::Stopped),
        _ => (state, Desired::Run),
    };
    let phase = match state {
        "pend" => Phase::Pending,
        "start" => Phase::Starting,
        "run" => Phase::Running,
        "exit" => Phase::Exited,
        "fail" => Phase::Failed,
        "lost" => Phase::Lost,
        other => panic!("{other}"),
    };
    Pod {
        uid: Uid::from_trusted(format!("u{ordinal}")),
        name: ObjectName::new("default", format!("web-{ordinal}")),
        workload: "web".into(),
        ordinal,
        template: RevisionName::from_trusted(&who[at..]),
        node: NodeName::from_trusted(node),
        address_index: 2,
        desired,
        phase,
        ready: phase == Phase::Running,
        ready_since: 0,
        restarts: 0,
        reason: String::new(),
        message: String::new(),
        created: 0,
    }
}

fn node(text: &str) -> Node {
    let (text, label) = text.split_once('/').unwrap_or((text, ""));
    let mut labels = Labels::new();
    if let Some((k, v)) = label.split_once('=') {
        labels.insert(k.into(), v.into());
    }
    Node {
        name: NodeName::from_trusted(text.trim_end_matches(['?', 'x', '-', '*'])),
        labels,
        phase: match text.chars().last() {
            Some('?') => NodePhase::Unknown,
            Some('x') => NodePhase::Lost,
            _ => NodePhase::Ready,
        },
        unschedulable: text.ends_with(['-', '*']),
        draining: text.ends_with('*'),
        capacity: Resources::default(),
        layers: vec![],
        subnet: "10.64.0.0/20".parse().unwrap(),
    }
}

fn workload(mode: Mode, revision: &str) -> Workload {
    Workload {
        uid: Uid::from_trusted("w"),
        name: ObjectName::new("default", "web"),
        generation: 1,
        mode,
        template: PodTemplate::default(),
        update: UpdatePolicy::default(),
        revision: RevisionName::from_trusted(revision),
        next_ordinal: 0,
        deleting: false,
        created: 0,
        rollout: was_complete(revision),
        paused: false,
        stopped: false,
        observed_generation: 1,
        waits_for_images: false,
        message: String::new(),
        cause: String::new(),
        cron: None,
        last_scheduled: 0,
        finished: None,
        volume_templates: vec![],
    }
}

/// A revision whose rollout is long done.
fn was_complete(revision: &str) -> RolloutState {
    let record = Revision {
        number: 1,
        name: RevisionName::from_trusted(revision),
        created: 0,
        cause: String::new(),
        complete: true,
    };
    let history = if revision.is_empty() { vec![] } else { vec![record] };
    RolloutState { history, ..RolloutState::default() }
}

fn run(workload: &Workload, pods: &str, nodes: &str, now: u64) -> Plan {
    let pods: Vec<Pod> = pods.split_whitespace().map(pod).collect();
    let nodes: Vec<Node> = nodes.split_whitespace().map(node).collect();
    plan(Input { workload, pods: &pods, replaced: &BTreeSet::new(), nodes: &nodes, now })
}

/// `+ORDINAL[@NODE][<PREDECESSOR]`, `-ORDINAL`, `wake TIME`, `gone`.
fn text(plan: &Plan) -> String {
    let mut words: Vec<String> = plan
        .actions
        .iter()
        .map(|a| match a {
            Action::Create { ordinal, node, predecessor, .. } => {
                let node = node.as_ref().map(|n| format!("@{n}")).unwrap_or_default();
                let predecessor = predecessor.as_ref().map(|p| format!("<{}", &p.as_str()[1..])).unwrap_or_default();
                format!("+{ordinal}{node}{predecessor}")
            }
            Action::Remove { uid } => format!("-{}", &uid.as_str()[1..]),
        })
        .collect();
    words.extend(plan.wake.map(|at| format!("wake {at}")));
    words.extend(plan.gone.then(|| "gone".into()));
    words.join(" ")
}

fn check(workload: &Workload, pods: &str, nodes: &str, expect: &str) {
    assert_eq!(text(&run(workload, pods, nodes, 1_000_000)), expect, "pods: {pods}; nodes: {nodes}");
}

#[test]
fn as_many_pods_as_wanted() {
    let w = workload(Mode::Replicated(3), "a");
    check(&w, "", "n1", "+0 +1 +2");
    check(&w, "0a@n1:run 1a@n1:start 2a:pend", "n1", "");
    check(&w, "0a@n1:run 1a@n1:run! 2a:pend", "n1", "+3");
    check(&workload(Mode::Replicated(3), ""), "", "n1", "");
    check(&Workload { next_ordinal: 9, ..w }, "", "n1", "+9 +10 +11");
}

#[test]
fn the_useless_the_crowded_and_the_newest_go_first() {
    let w = |n| workload(Mode::Replicated(n), "a");
    check(&w(2), "0a@n1:run 1a@n2:start 2a@n1:run", "n1 n2", "-1");
    check(&w(2), "0a@n2:run 1a@n1:run 2a@n1:run 3a@n2:run 4a@n1:run", "n1 n2", "-4 -3 -2");
    check(&w(1), "0a@n1:run 1a@n2:run", "n1 n2", "-1");
    check(&w(0), "0a@n1:run 1a:pend", "n1", "-1 -0");
}

#[test]
fn lost_pods_are_replaced_at_once_and_named() {
    let w = workload(Mode::Replicated(2), "a");
    check(&w, "0a@n1:lost 1a@n2:run", "n1x n2", "+2<0");
    check(&w, "0a@n1:run 1a@n2:run", "n1? n2", "");
    check(&w, "0a@n1:run 1a@n2:run", "n1? n2?", "");
}

#[test]
fn nothing_is_done_about_pods_on_a_node_that_is_not_heard_of() {
    check(&workload(Mode::Replicated(1), "a"), "0a@n1:run 1a@n1:run", "n1?", "");
    // The one that is known to serve stays, too.
    check(&workload(Mode::Replicated(1), "a"), "0a@n1:run 1a@n2:run", "n1? n2", "");
    check(&workload(Mode::Replicated(1), "a"), "0a@n1:run 1a@n2:start", "n1? n2", "-1");
    // The rollout waits, for nobody knows whether the old pods serve.
    check(&workload(Mode::Replicated(2), "b"), "0a@n1:run 1a@n1:run 2b@n2:run", "n1? n2", "");
}

#[test]
fn pods_that_ended_are_replaced_with_back_off_unless_that_is_how_it_should_be() {
    let always = workload(Mode::Replicated(1), "a");
    assert_eq!(text(&run(&always, "0a@n1:fail", "n1", 10)), "wake 1000");
    assert_eq!(text(&run(&always, "0a@n1:fail", "n1", 1000)), "+1<0");
    assert_eq!(text(&run(&always, "0a@n1:fail 1a@n1:exit 2a@n1:fail", "n1", 3999)), "wake 4000");
    let with = |restart_policy| {
        let mut w = workload(Mode::Replicated(1), "a");
        w.template.restart_policy = restart_policy;
        w
    };
    check(&with(RestartPolicy::Never), "0a@n1:fail", "n1", "");
    check(&with(RestartPolicy::Never), "0a@n1:lost", "n1x", "+1<0");
    check(&with(RestartPolicy::OnFailure), "0a@n1:exit", "n1", "");
    check(&with(RestartPolicy::OnFailure), "0a@n1:fail", "n1", "+1<0");
    check(&always, "0a@n1:exit~", "n1", "");
}

#[test]
fn few_ended_pods_are_kept() {
    let w = workload(Mode::Replicated(1), "a");
    check(&w, "0a@n1:fail 1a@n1:fail 2a@n1:fail 3a@n1:fail 4a@n1:fail 5a@n1:fail 6a@n1:run", "n1", "-0");
}

#[test]
fn a_rollout_goes_step_by_step_and_waits_for_ready() {
    let w = workload(Mode::Replicated(2), "b");
    check(&w, "0a@n1:run 1a@n1:run", "n1", "+2");
    check(&w, "0a@n1:run 1a@n1:run 2b@n1:start", "n1", "");
    check(&w, "0a@n1:run 1a@n1:run 2b@n1:run", "n1", "-0 +3");
    check(&w, "0a@n1:run! 1a@n1:run 2b@n1:run 3b@n1:start", "n1", "");
    check(&w, "1a@n1:run 2b@n1:run 3b@n1:run", "n1", "-1");
    let mut in_place = w.clone();
    in_place.update = UpdatePolicy { max_surge: 0, max_unavailable: 1, ..UpdatePolicy::default() };
    check(&in_place, "0a@n1:run 1a@n1:run", "n1", "-0 +2");
    check(&in_place, "1a@n1:run 2b@n1:start", "n1", "");
    check(&in_place, "1a@n1:run 2b@n1:run", "n1", "-1 +3");
    // Back to the first revision while the second does not come up.
    check(&workload(Mode::Replicated(2), "a"), "0a@n1:run 1a@n1:run 2b@n1:start", "n1", "-2");
}

#[test]
fn a_global_workload_has_one_pod_on_every_matching_node() {
    let mut w = workload(Mode::Global, "a");
    check(&w, "", "n1 n2 n3- n4x n5?", "+0@n1 +1@n2");
    check(&w, "0a@n1:run 1a@n2:run", "n1 n2-", "");
    check(&w, "0a@n1:run 1a@n2:lost", "n1 n2x", "");
    check(&w, "0a@n1:run 1a@n2:lost", "n1 n2", "+2@n2<1");
    w.template.node_selector.insert("disk".into(), "ssd".into());
    check(&w, "0a@n1:run", "n1 n2/disk=ssd", "-0 +1@n2");
    assert_eq!(run(&w, "0a@n1:run", "n1/disk=ssd n2/disk=ssd", 0).counts.desired, 2);
}

#[test]
fn a_global_rollout_replaces_node_by_node() {
    let mut w = workload(Mode::Global, "b");
    check(&w, "0a@n1:run 1a@n2:run", "n1 n2", "+2@n1");
    check(&w, "0a@n1:run 1a@n2:run 2b@n1:start", "n1 n2", "");
    check(&w, "0a@n1:run 1a@n2:run 2b@n1:run", "n1 n2", "-0");
    w.update = UpdatePolicy { max_surge: 0, max_unavailable: 1, ..UpdatePolicy::default() };
    check(&w, "0a@n1:run 1a@n2:run", "n1 n2", "-0");
    check(&w, "1a@n2:run", "n1 n2", "+2@n1");
}

#[test]
fn what_is_deleted_goes_with_all_its_pods() {
    let mut w = workload(Mode::Replicated(3), "a");
    w.deleting = true;
    check(&w, "0a@n1:run 1a@n2:run! 2a@n1:fail", "n1 n2?", "-0 -2");
    check(&w, "1a@n2:run!", "n1", "");
    check(&w, "", "n1", "gone");
}

#[test]
fn counts_are_what_is_seen() {
    let w = workload(Mode::Replicated(4), "b");
    let counts = run(&w, "0a@n1:run 1b@n1:run 2b@n1:start 3b@n2:run 4b@n1:fail 5b@n1:run!", "n1 n2?", 0).counts;
    assert_eq!((counts.desired, counts.replicas, counts.ready, counts.updated), (4, 4, 2, 3));
}
