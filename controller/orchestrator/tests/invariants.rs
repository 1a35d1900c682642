//! A world that follows the plans: pods come up, fail and are lost at random; rollouts keep their promises and everything converges.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use std::collections::BTreeSet;
use strata_model::{
    Desired, Labels, Mode, Node, NodeName, NodePhase, ObjectName, Phase, Pod, PodTemplate, Resources, RevisionName,
    RolloutState, Uid, UpdatePolicy, Workload,
};
use strata_orchestrator::{Action, Input, plan};

#[derive(Debug, Clone)]
enum Event {
    Up(usize),
    Fail(usize),
    Lose(usize),
    Gone(usize),
    Scale(u32),
    Release(u8),
    Silence(usize),
    Return(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0usize..20).prop_map(Event::Up),
        1 => (0usize..20).prop_map(Event::Fail),
        1 => (0usize..20).prop_map(Event::Lose),
        4 => (0usize..20).prop_map(Event::Gone),
        1 => (0u32..6).prop_map(Event::Scale),
        1 => (0u8..3).prop_map(Event::Release),
        1 => (0usize..3).prop_map(Event::Silence),
        2 => (0usize..3).prop_map(Event::Return),
    ]
}

struct World {
    workload: Workload,
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    replaced: BTreeSet<Uid>,
    now: u64,
}

impl World {
    fn new(mode: Mode, update: UpdatePolicy) -> Self {
        let node = |i: usize| Node {
            name: NodeName::from_trusted(format!("n{i}")),
            labels: Labels::new(),
            phase: NodePhase::Ready,
            unschedulable: false,
            draining: false,
            capacity: Resources::default(),
            layers: vec![],
            subnet: "10.64.0.0/20".parse().unwrap(),
        };
        let workload = Workload {
            uid: Uid::from_trusted("w"),
            name: ObjectName::new("default", "web"),
            generation: 1,
            mode,
            template: PodTemplate::default(),
            update,
            revision: RevisionName::from_trusted("r0"),
            next_ordinal: 0,
            deleting: false,
            created: 0,
            rollout: RolloutState::default(),
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
        };
        Self { workload, pods: vec![], nodes: (0..3).map(node).collect(), replaced: BTreeSet::new(), now: 0 }
    }

    fn available(&self, pod: &Pod) -> bool {
        pod.phase == Phase::Running
            && pod.desired == Desired::Run
            && !self.nodes.iter().any(|n| n.name == pod.node && n.phase == NodePhase::Unknown)
    }

    /// Plans, checks what was planned, performs it. True if anything was done.
    fn step(&mut self) -> Result<bool, TestCaseError> {
        let input = Input {
            workload: &self.workload,
            pods: &self.pods,
            replaced: &self.replaced,
            nodes: &self.nodes,
            now: self.now,
        };
        let plan = plan(input);
        prop_assert!(plan.next_ordinal >= self.workload.next_ordinal);
        let before = self.pods.iter().filter(|p| self.available(p)).count();
        let mut taken = 0;
        for action in &plan.actions {
            match action {
                Action::Create { ordinal, node, predecessor, .. } => {
                    prop_assert!(self.pods.iter().all(|p| p.ordinal != *ordinal), "ordinals are never used twice");
                    if let Some(p) = predecessor {
                        prop_assert!(self.replaced.insert(p.clone()), "a pod has one successor");
                    }
                    let place = usize::try_from(*ordinal).unwrap() % 3;
                    self.pods.push(Pod {
                        uid: Uid::from_trusted(format!("u{ordinal}")),
                        name: ObjectName::new("default", format!("web-{ordinal}")),
                        workload: "web".into(),
                        ordinal: *ordinal,
                        template: self.workload.revision.clone(),
                        node: node.clone().unwrap_or_else(|| self.nodes[place].name.clone()),
                        address_index: 2,
                        desired: Desired::Run,
                        phase: Phase::Assigned,
                        ready: false,
                        ready_since: 0,
                        restarts: 0,
                        reason: String::new(),
                        message: String::new(),
                        created: self.now,
                    });
                }
                Action::Remove { uid } => {
                    let i = self.pods.iter().position(|p| p.uid == *uid).unwrap();
                    let held = self.nodes.iter().any(|n| n.name == self.pods[i].node && n.phase == NodePhase::Unknown);
                    prop_assert!(!held || self.pods[i].phase.is_ended(), "a pod nobody knows about is left alone");
                    taken += usize::from(self.available(&self.pods[i]));
                    prop_assert!(self.pods[i].desired != Desired::Removed, "removed once");
                    self.pods[i].desired = Desired::Removed;
                }
            }
        }
        if let Mode::Replicated(n) = self.workload.mode {
            let min = (n as usize).saturating_sub(self.workload.update.max_unavailable as usize);
            prop_assert!(taken == 0 || before - taken >= min, "{before} serve, {taken} taken, {min} needed");
            let live = self.pods.iter().filter(|p| p.desired == Desired::Run && !p.phase.is_ended()).count();
            let made = plan.actions.iter().any(|a| matches!(a, Action::Create { .. }));
            prop_assert!(!made || live <= (n + self.workload.update.max_surge) as usize, "{live} live of {n}");
        }
        self.workload.next_ordinal = plan.next_ordinal;
        Ok(!plan.actions.is_empty())
    }

    fn happen(&mut self, event: &Event) {
        let n = self.pods.len().max(1);
        let silent =
            |w: &Self, i: usize| w.nodes.iter().any(|n| n.name == w.pods[i].node && n.phase == NodePhase::Unknown);
        match event {
            Event::Scale(n) if matches!(self.workload.mode, Mode::Replicated(_)) => {
                self.workload.mode = Mode::Replicated(*n)
            }
            Event::Scale(_) => {}
            Event::Release(r) => self.workload.revision = RevisionName::from_trusted(format!("r{r}")),
            Event::Silence(i) => self.nodes[*i].phase = NodePhase::Unknown,
            Event::Return(i) => self.nodes[*i].phase = NodePhase::Ready,
            Event::Up(i) | Event::Fail(i) | Event::Lose(i) | Event::Gone(i) => {
                let i = i % n;
                if i >= self.pods.len() || silent(self, i) {
                    return;
                }
                let pod = &mut self.pods[i];
                match event {
                    Event::Gone(_) if pod.desired == Desired::Removed => {
                        self.pods.remove(i);
                    }
                    _ if pod.phase.is_ended() => {}
                    Event::Up(_) => {
                        pod.phase = Phase::Running;
                        pod.ready = true;
                    }
                    Event::Fail(_) => {
                        pod.phase = Phase::Failed;
                        pod.ready = false;
                    }
                    Event::Lose(_) => {
                        pod.phase = Phase::Lost;
                        pod.ready = false;
                    }
                    _ => {}
                }
            }
        }
        self.now += 100;
    }
}

fn check(mode: Mode, update: UpdatePolicy, events: &[Event]) -> Result<(), TestCaseError> {
    let mut world = World::new(mode, update);
    world.step()?;
    for event in events {
        world.happen(event);
        world.step()?;
    }
    // In the end everything comes up and the world is as wanted.
    for i in 0..3 {
        world.happen(&Event::Return(i));
    }
    for _ in 0..60 {
        for i in 0..world.pods.len() {
            world.happen(&Event::Up(i));
        }
        for i in (0..world.pods.len()).rev() {
            world.happen(&Event::Gone(i));
        }
        world.now += 100_000;
        world.step()?;
    }
    let live: Vec<&Pod> = world.pods.iter().filter(|p| !p.phase.is_ended()).collect();
    let wanted = match world.workload.mode {
        Mode::Replicated(n) => n as usize,
        _ => 3,
    };
    prop_assert_eq!(live.len(), wanted);
    prop_assert!(live.iter().all(|p| p.template == world.workload.revision && p.phase == Phase::Running));
    prop_assert!(!world.step()?, "and nothing is left to do");
    Ok(())
}

proptest! {
    #[test]
    fn replicas_converge_within_their_bounds(
        n in 0u32..6, surge in 0u32..3, unavailable in 0u32..3, events in prop::collection::vec(event(), 0..60),
    ) {
        let max_unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        check(Mode::Replicated(n), UpdatePolicy { max_surge: surge, max_unavailable, ..UpdatePolicy::default() }, &events)?;
    }

    #[test]
    fn one_per_node_converges(
        surge in 0u32..2, unavailable in 0u32..2, events in prop::collection::vec(event(), 0..60),
    ) {
        let max_unavailable = if surge == 0 { 1 } else { unavailable };
        check(Mode::Global, UpdatePolicy { max_surge: surge, max_unavailable, ..UpdatePolicy::default() }, &events)?;
    }
}
