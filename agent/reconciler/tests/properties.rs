//! Random lives of a pod against a model of the world: the invariants of the crate's documentation.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use strata_model::{Check, ContainerName, ContainerState, Desired, Phase, Probe, ProbeKind, Probes, RestartPolicy};
use strata_reconciler::{Answer, Assigned, ExitFact, Fact, Images, Observed, Sandbox, Step, plan, status};

#[derive(Debug, Clone)]
enum Move {
    /// Perform the next step, well or badly.
    Perform(bool),
    Wait(u64),
    Exit(usize, i32),
    SandboxDies,
    Want(Desired),
    /// The agent is killed and started again: it knows its record and what it finds.
    AgentRestarts,
    /// The agent is killed after a start and before its note of it; the process may end before the agent is back.
    StartUnnoted(Option<i32>),
    /// A probe that is due is made, with this answer.
    Probe(bool),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => prop::bool::weighted(0.8).prop_map(Move::Perform),
        3 => (0u64..20_000).prop_map(Move::Wait),
        2 => (0usize..3, prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(i, c)| Move::Exit(i, c)),
        1 => Just(Move::SandboxDies),
        1 => prop_oneof![Just(Desired::Run), Just(Desired::Stopped), Just(Desired::Removed)].prop_map(Move::Want),
        1 => Just(Move::AgentRestarts),
        1 => prop::option::of(0i32..2).prop_map(Move::StartUnnoted),
        3 => prop::bool::weighted(0.6).prop_map(Move::Probe),
    ]
}

struct World {
    assigned: Assigned,
    observed: Observed,
    now: u64,
    unix_ms: u64,
    sandbox: bool,
    running: BTreeSet<ContainerName>,
    ended_attempt: Option<(u32, Phase)>,
    last: (u32, Phase),
}

impl World {
    fn fact(&mut self, fact: Fact) {
        self.observed.record(&self.assigned, fact, self.now);
        self.tell();
    }

    /// The status is told; whoever listens remembers.
    fn tell(&mut self) {
        self.observed.look(&self.assigned, self.now);
        let s = status(&self.assigned, &self.observed, self.now);
        assert!((s.attempt, s.phase) >= self.last, "{:?} went back to {:?}", self.last, (s.attempt, s.phase));
        self.last = (s.attempt, s.phase);
        if let Some((attempt, phase)) = self.ended_attempt.filter(|(a, _)| *a == s.attempt) {
            assert_eq!((s.attempt, s.phase), (attempt, phase), "an ended attempt stays ended");
        }
        self.ended_attempt = s.phase.is_ended().then_some((s.attempt, s.phase));
    }

    fn exit(code: i32) -> ExitFact {
        ExitFact {
            code,
            reason: if code == 0 { "Completed" } else { "Error" }.into(),
            message: String::new(),
            finished_unix_ms: 0,
        }
    }

    /// Performs the first step; says whether there was one.
    fn perform(&mut self, well: bool) -> bool {
        let Some(step) = plan(&self.assigned, &self.observed, self.now).steps.first().cloned() else {
            return false;
        };
        match step {
            Step::EnsureImages if well => self.fact(Fact::ImagesReady),
            Step::EnsureImages => self.fact(Fact::ImagesFailed("ImagePull".into(), "no".into())),
            Step::MakeSandbox if well => {
                assert!(!self.sandbox, "two sandboxes");
                self.sandbox = true;
                self.fact(Fact::SandboxReady);
            }
            Step::MakeSandbox => self.fact(Fact::SandboxFailed("CreateError".into(), "no".into())),
            Step::StartContainer(c) => {
                assert!(self.sandbox, "a start without a sandbox");
                assert!(!self.running.contains(&c), "two runs of {c} at once");
                assert_eq!(self.assigned.desired, Desired::Run);
                if well {
                    self.running.insert(c.clone());
                    self.fact(Fact::Started { container: c, pid: 7, started_unix_ms: 1 });
                } else {
                    self.fact(Fact::StartFailed { container: c, exit: Self::exit(127) });
                }
            }
            Step::Signal(c) => {
                let condemned = self.observed.container(&c).unwrap().probing.condemned.is_some();
                assert!(condemned || (self.assigned.desired, self.observed.reached) != (Desired::Run, Phase::Running));
                self.fact(Fact::Signalled(c.clone()));
                if well && self.running.remove(&c) {
                    self.fact(Fact::Exited { container: c, exit: Self::exit(143) });
                }
            }
            Step::Kill(c) => {
                self.fact(Fact::Killed(c.clone()));
                if well && self.running.remove(&c) {
                    self.fact(Fact::Exited { container: c, exit: Self::exit(137) });
                }
            }
            Step::RemoveSandbox => {
                self.sandbox = false;
                self.running.clear();
                self.fact(Fact::SandboxRemoved);
            }
            Step::BeginAttempt => {
                assert!(!self.sandbox);
                self.fact(Fact::AttemptBegun);
            }
            Step::EndAttempt(e) => self.fact(Fact::AttemptEnded(e)),
            Step::RemovePod => {
                assert!(!self.sandbox && self.running.is_empty(), "removed what runs");
                self.fact(Fact::PodRemoved);
            }
        }
        true
    }

    /// Makes the first probe that is due; says whether there was one.
    fn probe(&mut self, good: bool) -> bool {
        let Some(due) = plan(&self.assigned, &self.observed, self.now).probes.first().cloned() else { return false };
        let c = self.observed.container(&due.container).unwrap();
        assert!(self.running.contains(&due.container), "asked what does not run");
        assert!(due.kind == ProbeKind::Startup || c.probing.started_up || !self.has_startup(), "startup comes first");
        self.fact(Fact::ProbeBegun { container: due.container.clone(), kind: due.kind });
        let again = plan(&self.assigned, &self.observed, self.now).probes;
        assert!(!again.contains(&due), "the same probe twice at once");
        let message = if good { String::new() } else { "503".into() };
        self.fact(Fact::Probed {
            container: due.container,
            kind: due.kind,
            pid: due.pid,
            answer: Answer { good, message },
        });
        true
    }

    fn has_startup(&self) -> bool {
        self.assigned.probes.values().any(|p| p.startup.is_some())
    }

    fn go(&mut self, m: Move) {
        match m {
            Move::Probe(good) => {
                self.probe(good);
            }
            Move::Perform(well) => {
                self.perform(well);
            }
            Move::Wait(ms) => self.now += ms,
            Move::Exit(i, code) => {
                if let Some(c) = self.running.iter().nth(i).cloned() {
                    self.running.remove(&c);
                    self.fact(Fact::Exited { container: c, exit: Self::exit(code) });
                }
            }
            Move::SandboxDies if self.sandbox => {
                self.sandbox = false;
                self.running.clear();
                self.fact(Fact::SandboxGone);
            }
            Move::SandboxDies => {}
            // A removal is final.
            Move::Want(d) => {
                if self.assigned.desired != Desired::Removed {
                    self.assigned.desired = d;
                    self.tell();
                }
            }
            Move::StartUnnoted(end) => {
                let step = plan(&self.assigned, &self.observed, self.now).steps.first().cloned();
                let Some(Step::StartContainer(c)) = step else { return };
                assert!(self.running.insert(c.clone()), "two runs of {c} at once");
                if let Some(code) = end {
                    self.running.remove(&c);
                    self.unix_ms += 1;
                    let exit = ExitFact { finished_unix_ms: self.unix_ms, ..Self::exit(code) };
                    // Told twice: the acknowledgement may be lost, too.
                    self.fact(Fact::FoundExited { container: c.clone(), exit: exit.clone() });
                    let starts = self.observed.container(&c).unwrap().starts;
                    self.fact(Fact::FoundExited { container: c.clone(), exit });
                    assert_eq!(self.observed.container(&c).unwrap().starts, starts);
                }
                self.go(Move::AgentRestarts);
            }
            Move::AgentRestarts => {
                self.observed.images = Images::Unknown;
                if matches!(self.observed.sandbox, Sandbox::Failed(_)) {
                    self.observed.sandbox = Sandbox::Absent { since: self.now };
                }
                for c in self.running.clone() {
                    self.fact(Fact::FoundRunning { container: c, pid: 7, started_unix_ms: 1 });
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn lives_keep_the_invariants_and_settle(
        policy in prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)],
        count in 1usize..4,
        grace in prop_oneof![Just(0u64), Just(10_000)],
        kinds in prop::array::uniform3(prop::bool::ANY),
        life in prop::collection::vec(moves(), 0..120),
    ) {
        let containers: Vec<ContainerName> = (0..count).map(|i| ContainerName::from_trusted(format!("c{i}"))).collect();
        let assigned = Assigned { desired: Desired::Run, containers, restart_policy: policy, grace_ms: grace, probes: BTreeMap::new() };
        let some = |wanted: bool| wanted.then_some(Probe {
            check: Check::Tcp { port: 1 }, initial_delay_s: 1, period_s: 5, timeout_s: 1, success_threshold: 1, failure_threshold: 2,
        });
        let probes = Probes { startup: some(kinds[0]), readiness: some(kinds[1]), liveness: some(kinds[2]) };
        let assigned = Assigned { probes: assigned.containers.iter().map(|c| (c.clone(), probes.clone())).collect(), ..assigned };
        let observed = Observed::new(&assigned);
        let mut w = World { assigned, observed, now: 1, unix_ms: 10, sandbox: false, running: BTreeSet::new(), ended_attempt: None, last: (0, Phase::Pending) };
        for m in life {
            w.go(m);
        }
        // The world answers from here on: it settles.
        let mut turns = 0;
        loop {
            turns += 1;
            prop_assert!(turns < 200, "does not settle: {:?}", plan(&w.assigned, &w.observed, w.now));
            // A probe is asked for ever; what else there is to do comes to an end.
            let told = status(&w.assigned, &w.observed, w.now);
            let settled = told.containers.iter().all(|c| c.ready || c.state == ContainerState::Exited);
            if w.perform(true) || w.probe(true) {
                continue;
            }
            if !(settled && told.phase == Phase::Running) {
                match plan(&w.assigned, &w.observed, w.now).wake_at {
                    Some(at) => { prop_assert!(at > w.now); w.now = at; }
                    None => break,
                }
            } else {
                break;
            }
        }
        let s = status(&w.assigned, &w.observed, w.now);
        match w.assigned.desired {
            Desired::Removed => prop_assert!(w.observed.gone && !w.sandbox),
            Desired::Stopped => prop_assert!(s.phase.is_ended() && !w.sandbox),
            Desired::Run if policy == RestartPolicy::Always => prop_assert!(s.ready && w.running.len() == count, "{s:?}"),
            Desired::Run => prop_assert!(s.phase == Phase::Running || s.phase.is_ended()),
        }
    }
}
