//! What probes do to a pod, step by step on a clock of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use strata_model::{
    Check, ContainerName, ContainerState, Desired, Phase, PodStatus, Probe, ProbeKind, Probes, RestartPolicy,
};
use strata_reconciler::{Answer, Assigned, ExitFact, Fact, Observed, PodPlan, Step, plan, status};

fn probe(initial_delay_s: u32, period_s: u32, success_threshold: u32, failure_threshold: u32) -> Probe {
    let check = Check::Tcp { port: 80 };
    Probe { check, initial_delay_s, period_s, timeout_s: 1, success_threshold, failure_threshold }
}

struct Pod {
    assigned: Assigned,
    observed: Observed,
    now: u64,
}

impl Pod {
    fn running(probes: Probes, restart_policy: RestartPolicy) -> Self {
        let name = ContainerName::from_trusted("a");
        let assigned = Assigned {
            desired: Desired::Run,
            containers: vec![name.clone()],
            restart_policy,
            grace_ms: 10_000,
            probes: BTreeMap::from([(name, probes)]),
        };
        let observed = Observed::new(&assigned);
        let mut pod = Self { assigned, observed, now: 1_000_000 };
        pod.fact(Fact::ImagesReady);
        pod.fact(Fact::SandboxReady);
        pod.start(7);
        pod
    }

    fn start(&mut self, pid: u32) {
        self.fact(Fact::Started { container: ContainerName::from_trusted("a"), pid, started_unix_ms: 1 });
    }

    fn fact(&mut self, fact: Fact) {
        self.observed.record(&self.assigned, fact, self.now);
    }

    fn plan(&self) -> PodPlan {
        plan(&self.assigned, &self.observed, self.now)
    }

    fn status(&self) -> PodStatus {
        status(&self.assigned, &self.observed, self.now)
    }

    /// Goes to the time at which this probe is due, makes it; answers how long that was, in seconds.
    #[track_caller]
    fn asked(&mut self, kind: ProbeKind, good: bool) -> u64 {
        let from = self.now;
        loop {
            let plan = self.plan();
            if let Some(due) = plan.probes.iter().find(|d| d.kind == kind).cloned() {
                self.fact(Fact::ProbeBegun { container: due.container.clone(), kind });
                assert!(!self.plan().probes.contains(&due), "it is under way");
                let answer = Answer { good, message: if good { String::new() } else { "503".into() } };
                self.fact(Fact::Probed { container: due.container, kind, pid: due.pid, answer });
                return (self.now - from) / 1000;
            }
            assert!(plan.steps.is_empty(), "{plan:?}");
            // Others that are due are made, and are good.
            if let Some(other) = plan.probes.first().cloned() {
                self.fact(Fact::ProbeBegun { container: other.container.clone(), kind: other.kind });
                let answer = Answer { good: true, message: String::new() };
                self.fact(Fact::Probed { container: other.container, kind: other.kind, pid: other.pid, answer });
                continue;
            }
            self.now = plan.wake_at.expect("the probe is never due");
        }
    }

    fn ended(&mut self, code: i32) {
        let exit = ExitFact { code, reason: "Error".into(), message: String::new(), finished_unix_ms: self.now };
        self.fact(Fact::Exited { container: ContainerName::from_trusted("a"), exit });
    }
}

#[test]
fn readiness_follows_its_probe_by_delay_period_and_thresholds() {
    let mut pod =
        Pod::running(Probes { readiness: Some(probe(5, 10, 2, 3)), ..Probes::default() }, RestartPolicy::Always);
    assert!(!pod.status().ready && pod.status().phase == Phase::Running);
    assert_eq!(pod.status().reason, "", "nobody has said no yet");
    assert_eq!(pod.asked(ProbeKind::Readiness, false), 5);
    let s = pod.status();
    assert_eq!((s.reason.as_str(), s.containers[0].reason.as_str()), ("Unready", "Unready"));
    assert!(s.message.contains("503"), "{}", s.message);
    assert_eq!(pod.asked(ProbeKind::Readiness, true), 10);
    assert!(!pod.status().ready, "one good answer of two");
    pod.asked(ProbeKind::Readiness, true);
    let s = pod.status();
    assert!(s.ready && s.containers[0].ready && s.reason.is_empty(), "{s:?}");
    for ready in [true, true, false, false] {
        pod.asked(ProbeKind::Readiness, false);
        assert_eq!(pod.status().ready, ready);
    }
    assert!(pod.plan().steps.is_empty(), "nothing is stopped for it");
}

#[test]
fn a_failed_liveness_probe_stops_the_container_and_says_so() {
    let probes = Probes { liveness: Some(probe(0, 10, 1, 2)), ..Probes::default() };
    let mut pod = Pod::running(probes.clone(), RestartPolicy::Always);
    let name = ContainerName::from_trusted("a");
    pod.asked(ProbeKind::Liveness, false);
    pod.asked(ProbeKind::Liveness, true);
    pod.asked(ProbeKind::Liveness, false);
    assert!(pod.status().ready && pod.plan().steps.is_empty(), "not twice in a row");
    pod.asked(ProbeKind::Liveness, false);
    let s = pod.status();
    assert!(!s.ready && s.reason == "LivenessFailed" && s.message.contains("503"), "{s:?}");
    assert_eq!(pod.plan().steps, [Step::Signal(name.clone())]);
    pod.fact(Fact::Signalled(name.clone()));
    assert!(pod.plan().probes.is_empty());
    assert_eq!(pod.plan().wake_at, Some(pod.now + 10_000));
    pod.now += 10_000;
    assert_eq!(pod.plan().steps, [Step::Kill(name.clone())]);
    pod.fact(Fact::Killed(name.clone()));
    pod.ended(137);
    let s = pod.status();
    let c = &s.containers[0];
    assert_eq!((c.state, c.reason.as_str()), (ContainerState::Waiting, "LivenessFailed"));
    assert_eq!(c.last_exit.as_ref().unwrap().code, 137);
    assert_eq!(pod.plan().wake_at, Some(pod.now + 1_000), "with the usual back-off");
    pod.now += 1_000;
    assert_eq!(pod.plan().steps, [Step::StartContainer(name)]);
    pod.start(8);
    let s = pod.status();
    assert!(s.ready && s.containers[0].restarts == 1 && s.containers[0].reason.is_empty(), "{s:?}");

    // One that never restarts has failed, even if it says 0.
    let mut pod = Pod::running(probes, RestartPolicy::OnFailure);
    pod.asked(ProbeKind::Liveness, false);
    pod.asked(ProbeKind::Liveness, false);
    pod.ended(0);
    assert!(pod.plan().steps.is_empty() && pod.plan().wake_at.is_some(), "an end by a probe is no success");
}

#[test]
fn the_startup_probe_holds_the_others_back() {
    let probes = Probes {
        startup: Some(probe(0, 2, 1, 3)),
        readiness: Some(probe(0, 10, 1, 1)),
        liveness: Some(probe(0, 10, 1, 1)),
    };
    let mut pod = Pod::running(probes.clone(), RestartPolicy::Always);
    pod.asked(ProbeKind::Startup, false);
    assert!(pod.plan().probes.is_empty(), "only the startup probe is asked");
    assert_eq!(pod.asked(ProbeKind::Startup, true), 2);
    let kinds: Vec<ProbeKind> = pod.plan().probes.iter().map(|d| d.kind).collect();
    assert_eq!(kinds, [ProbeKind::Readiness, ProbeKind::Liveness]);
    pod.asked(ProbeKind::Readiness, true);
    assert!(pod.status().ready);

    let mut pod = Pod::running(probes, RestartPolicy::Always);
    for _ in 0..3 {
        pod.asked(ProbeKind::Startup, false);
    }
    assert_eq!(pod.status().reason, "StartupFailed");
    assert_eq!(pod.plan().steps.len(), 1);
}

#[test]
fn an_answer_about_an_earlier_run_means_nothing() {
    let mut pod =
        Pod::running(Probes { liveness: Some(probe(0, 10, 1, 1)), ..Probes::default() }, RestartPolicy::Always);
    let due = pod.plan().probes[0].clone();
    pod.fact(Fact::ProbeBegun { container: due.container.clone(), kind: due.kind });
    pod.ended(1);
    pod.now += 1_000;
    pod.start(8);
    let answer = Answer { good: false, message: "refused".into() };
    pod.fact(Fact::Probed { container: due.container, kind: due.kind, pid: due.pid, answer });
    assert!(pod.status().ready && pod.plan().steps.is_empty());
    assert_eq!(pod.plan().probes.len(), 1, "the new run is asked for itself");
}

#[test]
fn what_was_ready_stays_ready_over_a_restart_of_the_agent() {
    let probes = Probes { startup: Some(probe(0, 2, 1, 3)), readiness: Some(probe(0, 10, 1, 1)), liveness: None };
    let mut pod = Pod::running(probes, RestartPolicy::Always);
    pod.asked(ProbeKind::Startup, true);
    pod.asked(ProbeKind::Readiness, true);
    let mut c = pod.observed.containers[0].clone();
    c.probing = strata_reconciler::Probing::restored(c.probing.started_up, c.probing.serving, None);
    pod.observed.containers[0] = c;
    let container = ContainerName::from_trusted("a");
    pod.fact(Fact::FoundRunning { container, pid: 7, started_unix_ms: 0 });
    assert!(pod.status().ready);
    assert_eq!(pod.plan().probes.len(), 1, "and is asked again at once");
    pod.asked(ProbeKind::Readiness, false);
    assert!(!pod.status().ready);
}
