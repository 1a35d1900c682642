//! One case a row: what is wanted, what happened, what is planned and told.
#![allow(clippy::unwrap_used, clippy::panic)]

use strata_model::{ContainerName, ContainerState, Desired, Phase, RestartPolicy};
use strata_reconciler::{Assigned, ExitFact, Fact, KILL_PATIENCE_MS, Observed, PodPlan, Step, plan, status};

fn name(n: &str) -> ContainerName {
    ContainerName::from_trusted(n)
}

fn assigned(policy: RestartPolicy, containers: &[&str]) -> Assigned {
    Assigned {
        desired: Desired::Run,
        containers: containers.iter().map(|n| name(n)).collect(),
        restart_policy: policy,
        grace_ms: 10_000,
        probes: std::collections::BTreeMap::new(),
    }
}

fn exit(code: i32) -> ExitFact {
    let reason = if code == 0 { "Completed" } else { "Error" };
    ExitFact { code, reason: reason.into(), message: String::new(), finished_unix_ms: 0 }
}

fn started(c: &str) -> Fact {
    Fact::Started { container: name(c), pid: 7, started_unix_ms: 1_700_000_000_000 }
}

fn exited(c: &str, code: i32) -> Fact {
    Fact::Exited { container: name(c), exit: exit(code) }
}

fn start_failed(c: &str) -> Fact {
    let exit =
        ExitFact { code: 127, reason: "StartError".into(), message: "no such file: /nope".into(), finished_unix_ms: 1 };
    Fact::StartFailed { container: name(c), exit }
}

fn up(containers: &[&str]) -> Vec<Fact> {
    let mut facts = vec![Fact::ImagesReady, Fact::SandboxReady];
    facts.extend(containers.iter().map(|c| started(c)));
    facts
}

struct Case {
    assigned: Assigned,
    observed: Observed,
    now: u64,
}

impl Case {
    fn new(policy: RestartPolicy, containers: &[&str], facts: Vec<Fact>) -> Self {
        let assigned = assigned(policy, containers);
        let observed = Observed::new(&assigned);
        let mut case = Self { assigned, observed, now: 1_000_000 };
        facts.into_iter().for_each(|f| case.fact(f));
        case
    }
    fn fact(&mut self, fact: Fact) {
        self.observed.record(&self.assigned, fact, self.now);
    }
    fn plan(&self) -> PodPlan {
        plan(&self.assigned, &self.observed, self.now)
    }
    #[track_caller]
    fn expect(&self, steps: &[Step], phase: Phase, reason: &str) {
        let s = status(&self.assigned, &self.observed, self.now);
        assert_eq!(self.plan().steps, steps);
        assert_eq!((s.phase, s.reason.as_str()), (phase, reason), "{s:?}");
    }
}

#[test]
fn a_pod_comes_up_images_first_then_sandbox_then_containers_in_order() {
    let mut c = Case::new(RestartPolicy::Always, &["a", "b"], vec![]);
    c.expect(&[Step::EnsureImages, Step::MakeSandbox], Phase::Preparing, "");
    c.fact(Fact::ImagesReady);
    c.expect(&[Step::MakeSandbox], Phase::Preparing, "");
    c.fact(Fact::SandboxReady);
    c.expect(&[Step::StartContainer(name("a")), Step::StartContainer(name("b"))], Phase::Starting, "");
    c.fact(started("a"));
    c.expect(&[Step::StartContainer(name("b"))], Phase::Starting, "");
    c.fact(started("b"));
    c.expect(&[], Phase::Running, "");
    assert!(status(&c.assigned, &c.observed, c.now).ready);
}

#[test]
fn the_restart_policy_decides_what_an_exit_means() {
    use RestartPolicy::{Always, Never, OnFailure};
    for (policy, code, restarts, end) in [
        (Always, 0, true, None),
        (Always, 3, true, None),
        (OnFailure, 0, false, Some(Phase::Exited)),
        (OnFailure, 3, true, None),
        (Never, 0, false, Some(Phase::Exited)),
        (Never, 3, false, Some(Phase::Failed)),
    ] {
        let mut c = Case::new(policy, &["a"], up(&["a"]));
        c.fact(exited("a", code));
        let plan = c.plan();
        if restarts {
            assert_eq!(
                (plan.steps, plan.wake_at),
                (vec![], Some(c.now + 1_000)),
                "{policy:?} {code}: the first restart waits a second"
            );
            let s = status(&c.assigned, &c.observed, c.now);
            assert_eq!((s.phase, s.ready, s.containers[0].state), (Phase::Running, false, ContainerState::Waiting));
            assert_eq!(s.containers[0].reason, if code == 0 { "Completed" } else { "Error" });
            c.now += 1_000;
            assert_eq!(c.plan().steps, [Step::StartContainer(name("a"))]);
            c.fact(started("a"));
            assert_eq!(status(&c.assigned, &c.observed, c.now).containers[0].restarts, 1);
        } else {
            let phase = end.unwrap();
            let Some(Step::EndAttempt(ended)) = plan.steps.first().cloned() else {
                panic!("{policy:?} {code}: {plan:?}")
            };
            assert_eq!(ended.phase, phase);
            c.fact(Fact::AttemptEnded(ended));
            assert_eq!(c.plan().steps, [Step::RemoveSandbox]);
            c.fact(Fact::SandboxRemoved);
            assert_eq!(c.plan(), PodPlan::default());
            assert_eq!(status(&c.assigned, &c.observed, c.now).phase, phase);
        }
    }
}

#[test]
fn waits_double_and_a_long_run_forgives() {
    let mut c = Case::new(RestartPolicy::Always, &["a"], up(&["a"]));
    for wait in [1_000, 2_000, 4_000, 8_000] {
        c.fact(exited("a", 1));
        assert_eq!(c.plan().wake_at, Some(c.now + wait));
        c.now += wait;
        c.fact(started("a"));
    }
    c.now += strata_reconciler::RUN_RESETS_BACKOFF_MS;
    c.fact(exited("a", 1));
    assert_eq!(c.plan().wake_at, Some(c.now + 1_000));
}

#[test]
fn a_command_that_does_not_exist_is_a_container_failure() {
    let mut c =
        Case::new(RestartPolicy::Always, &["a"], vec![Fact::ImagesReady, Fact::SandboxReady, start_failed("a")]);
    c.expect(&[], Phase::Starting, "StartError");
    assert_eq!(c.plan().wake_at, Some(c.now + 1_000));
    c.now += 1_000;
    assert_eq!(c.plan().steps, [Step::EnsureImages, Step::StartContainer(name("a"))], "images are looked at again");
    let s = status(&c.assigned, &c.observed, c.now);
    assert_eq!(s.containers[0].last_exit.as_ref().unwrap().code, 127);

    let c = Case::new(RestartPolicy::Never, &["a"], vec![Fact::ImagesReady, Fact::SandboxReady, start_failed("a")]);
    assert!(matches!(c.plan().steps[..], [Step::EndAttempt(e)] if e.phase == Phase::Failed));
}

#[test]
fn a_missing_image_holds_the_pod_back_and_says_why() {
    let mut c =
        Case::new(RestartPolicy::Never, &["a"], vec![Fact::ImagesFailed("ImageNotFound".into(), "no a".into())]);
    c.expect(&[], Phase::Preparing, "ImageNotFound");
    assert_eq!(status(&c.assigned, &c.observed, c.now).containers[0].reason, "ImageNotFound");
    c.now += 1_000;
    c.expect(&[Step::EnsureImages, Step::MakeSandbox], Phase::Preparing, "ImageNotFound");
    c.fact(Fact::ImagesFailed("ImageNotFound".into(), "no a".into()));
    assert_eq!(c.plan().wake_at, Some(c.now + 2_000));
}

#[test]
fn stopping_signals_waits_kills_and_keeps_the_pod() {
    let mut c = Case::new(RestartPolicy::Always, &["a", "b"], up(&["a", "b"]));
    c.assigned.desired = Desired::Stopped;
    c.expect(&[Step::Signal(name("a")), Step::Signal(name("b"))], Phase::Stopping, "");
    c.fact(Fact::Signalled(name("a")));
    c.fact(Fact::Signalled(name("b")));
    assert_eq!(c.plan().wake_at, Some(c.now + 10_000));
    c.fact(exited("b", 0));
    c.now += 10_000;
    c.expect(&[Step::Kill(name("a"))], Phase::Stopping, "");
    c.fact(Fact::Killed(name("a")));
    assert_eq!(c.plan().wake_at, Some(c.now + KILL_PATIENCE_MS));
    c.now += KILL_PATIENCE_MS;
    assert_eq!(c.plan().steps, [Step::RemoveSandbox], "a kill that does not kill takes the sandbox");
    c.fact(exited("a", 137));
    c.expect(&[Step::RemoveSandbox], Phase::Stopping, "Error");
    c.fact(Fact::SandboxRemoved);
    let Some(Step::EndAttempt(ended)) = c.plan().steps.first().cloned() else { panic!() };
    assert_eq!((ended.phase, ended.stopped), (Phase::Exited, true));
    c.fact(Fact::AttemptEnded(ended));
    assert_eq!(c.plan(), PodPlan::default(), "stopped is a place to stay");

    c.assigned.desired = Desired::Run;
    assert_eq!(c.plan().steps, [Step::BeginAttempt]);
    c.fact(Fact::AttemptBegun);
    assert_eq!(c.plan().steps, [Step::MakeSandbox], "images were there");
    assert_eq!(status(&c.assigned, &c.observed, c.now).attempt, 1);
}

#[test]
fn a_change_of_mind_while_stopping_waits_for_the_end() {
    let mut c = Case::new(RestartPolicy::Always, &["a"], up(&["a"]));
    c.assigned.desired = Desired::Stopped;
    c.fact(Fact::Signalled(name("a")));
    c.assigned.desired = Desired::Run;
    c.expect(&[], Phase::Stopping, "");
    c.fact(exited("a", 0));
    assert_eq!(c.plan().steps, [Step::RemoveSandbox]);
}

#[test]
fn removing_leaves_nothing_whatever_was_there() {
    for facts in [vec![], vec![Fact::ImagesReady], up(&[]), up(&["a"]), {
        let mut f = up(&["a"]);
        f.push(Fact::SandboxGone);
        f
    }] {
        let mut c = Case::new(RestartPolicy::Always, &["a"], facts);
        c.assigned.desired = Desired::Removed;
        let mut seen = vec![];
        while let Some(step) = c.plan().steps.first().cloned() {
            seen.push(step.clone());
            assert!(seen.len() < 10, "{seen:?}");
            match step {
                Step::Signal(n) => {
                    c.fact(Fact::Signalled(n.clone()));
                    c.fact(exited(n.as_str(), 143));
                }
                Step::RemoveSandbox => c.fact(Fact::SandboxRemoved),
                Step::EndAttempt(e) => c.fact(Fact::AttemptEnded(e)),
                Step::RemovePod => c.fact(Fact::PodRemoved),
                other => panic!("{other:?} in {seen:?}"),
            }
        }
        assert!(c.observed.gone);
        assert_eq!(seen.last(), Some(&Step::RemovePod));
    }
}

#[test]
fn no_grace_is_a_kill_at_once() {
    let mut c = Case::new(RestartPolicy::Always, &["a"], up(&["a"]));
    c.assigned.grace_ms = 0;
    c.assigned.desired = Desired::Removed;
    assert_eq!(c.plan().steps, [Step::Kill(name("a"))]);
}

#[test]
fn a_dead_sandbox_is_a_new_attempt_that_keeps_what_is_done() {
    let mut c = Case::new(RestartPolicy::OnFailure, &["job", "srv"], up(&["job", "srv"]));
    c.fact(exited("job", 0));
    c.fact(Fact::SandboxGone);
    c.expect(&[Step::RemoveSandbox], Phase::Running, "SandboxDied");
    c.fact(Fact::SandboxRemoved);
    assert_eq!(c.plan().steps, [Step::BeginAttempt]);
    c.fact(Fact::AttemptBegun);
    assert_eq!(c.plan().wake_at, Some(c.now + 1_000), "a sandbox that dies is not remade in a rush");
    c.now += 1_000;
    assert_eq!(c.plan().steps, [Step::MakeSandbox]);
    c.fact(Fact::SandboxReady);
    assert_eq!(c.plan().steps, [Step::StartContainer(name("srv"))], "the finished job does not run again");
    c.fact(started("srv"));
    let s = status(&c.assigned, &c.observed, c.now);
    assert_eq!((s.attempt, s.phase, s.containers[1].restarts), (1, Phase::Running, 0));
}

#[test]
fn a_pod_that_never_restarts_fails_with_its_sandbox() {
    let mut c = Case::new(RestartPolicy::Never, &["a"], up(&["a"]));
    c.fact(Fact::SandboxGone);
    assert!(matches!(c.plan().steps[..], [Step::EndAttempt(e)] if e.phase == Phase::Failed));
    assert_eq!(status(&c.assigned, &c.observed, c.now).containers[0].reason, "SandboxDied");
}

#[test]
fn a_pod_that_nobody_wants_goes() {
    let mut c = Case::new(RestartPolicy::Always, &["a"], up(&["a"]));
    c.assigned = Assigned::unwanted();
    c.expect(&[Step::Signal(name("a"))], Phase::Stopping, "");
}

#[test]
fn a_running_container_found_at_the_start_keeps_its_count() {
    let mut c = Case::new(RestartPolicy::Always, &["a"], up(&["a"]));
    c.fact(Fact::FoundRunning { container: name("a"), pid: 7, started_unix_ms: 0 });
    c.expect(&[], Phase::Running, "");
    assert_eq!((c.observed.containers[0].starts, c.observed.containers[0].restarts), (1, 0));
}

#[test]
fn an_end_that_is_told_twice_ends_only_its_own_run() {
    let mut c = Case::new(RestartPolicy::Always, &["a"], up(&["a"]));
    let end = |finished_unix_ms| ExitFact { finished_unix_ms, ..exit(3) };
    // An agent finds it in the shim's list, starts the next run, and only then reads the same end as an event.
    c.fact(Fact::FoundExited { container: name("a"), exit: end(5_000) });
    c.fact(started("a"));
    c.fact(Fact::Exited { container: name("a"), exit: end(5_000) });
    c.expect(&[], Phase::Running, "");
    assert!(c.observed.containers[0].is_running());
    c.fact(Fact::Exited { container: name("a"), exit: end(9_000) });
    assert!(!c.observed.containers[0].is_running());
}
