//! The life of one pod: observe, plan, perform one step, wait.

use super::{
    Ask, Shared,
    probes::{Health, Probed},
    step::name_of,
};
use crate::{
    ledger::{LedgerError, Record},
    world::{Events, PodSpec, SandboxEvent, Trouble, World},
};
use std::sync::Arc;
use strata_model::{ContainerName, Millis, PodTemplate, Uid};
use strata_proto::{
    dispatch::{Assignment, PodReport},
    types,
};
use strata_reconciler::{Assigned, ExitFact, Fact, Observed, Sandbox, Step, plan, status};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    task::JoinSet,
};
use tracing::{Instrument as _, Span};

/// How often an agent tries to reach the shim of a pod that its record says is alive, before it takes the sandbox down.
pub const ADOPT_TRIES: u32 = 3;
/// The wait between two tries of a step that failed without a back-off of its own, milliseconds.
const RETRY_MS: Millis = 2_000;

/// One pod's task.
pub(super) struct Life<W: World> {
    pub(super) shared: Arc<Shared<W>>,
    pub(super) uid: Uid,
    pub(super) hears: watch::Receiver<Assignment>,
    /// What people ask of it now.
    asked: mpsc::Receiver<Ask>,
    pub(super) assigned: Assigned,
    pub(super) observed: Observed,
    pub(super) spec: PodSpec,
    pub(super) events: Option<Events>,
    /// Of the sandbox, while there is one.
    pub(super) slot: Option<OwnedSemaphorePermit>,
    /// Probes that are under way.
    pub(super) probes: JoinSet<Probed>,
    record: Option<Record>,
    /// Told once the first status is on the board.
    begun: Option<oneshot::Sender<()>>,
    /// What keeps the task from going on, beyond what the plan knows.
    trouble: Option<Trouble>,
}

impl<W: World> Life<W> {
    pub(super) fn new(
        shared: Arc<Shared<W>>,
        uid: Uid,
        hears: watch::Receiver<Assignment>,
        asked: mpsc::Receiver<Ask>,
        record: Option<Record>,
        begun: Option<oneshot::Sender<()>>,
    ) -> Self {
        let spec = PodSpec {
            uid: uid.clone(),
            name: strata_model::ObjectName::default(),
            dir: shared.ledger.pod_dir(&uid),
            template: Arc::new(strata_model::Template {
                revision: strata_model::RevisionName::default(),
                pod: PodTemplate::default(),
                images: Vec::new(),
                materials: Vec::new(),
            }),
            address_index: 0,
            attempt: 0,
        };
        let assigned = Assigned::unwanted();
        let observed = Observed::new(&assigned);
        Self {
            shared,
            uid,
            hears,
            asked,
            assigned,
            observed,
            spec,
            events: None,
            slot: None,
            probes: JoinSet::new(),
            record,
            begun,
            trouble: None,
        }
    }

    pub(super) async fn run(mut self) {
        while let Err(e) = self.hear() {
            self.stumble(e.reason(), e.to_string()).await;
        }
        self.begin().await;
        self.observed.look(&self.assigned, self.shared.world.now_ms());
        self.publish();
        if let Some(begun) = self.begun.take() {
            // Nobody may be waiting for it any more.
            begun.send(()).ok();
        }
        loop {
            if let Err(e) = self.hear() {
                self.stumble(e.reason(), e.to_string()).await;
                continue;
            }
            self.drain_events().await;
            self.drain_probes().await;
            while let Ok(ask) = self.asked.try_recv() {
                self.take_ask(ask).await;
            }
            self.observed.look(&self.assigned, self.shared.world.now_ms());
            self.publish();
            if self.observed.gone {
                if self.shared.forget(&self.uid, &self.hears) {
                    return;
                }
                continue;
            }
            let plan = plan(&self.assigned, &self.observed, self.shared.world.now_ms());
            for due in plan.probes {
                self.begin_probe(due).await;
            }
            match plan.steps.first() {
                Some(step) => {
                    let span = self.span(step);
                    match self.perform(step.clone()).instrument(span).await {
                        Ok(()) => self.trouble = None,
                        Err(trouble) => {
                            self.shared.meters.step_failed(name_of(step));
                            self.stumble(&trouble.reason, trouble.message).await;
                        }
                    }
                }
                None => self.wait(plan.wake_at).await,
            }
        }
    }

    /// Of one step, in the trace of the apply that led here; none if that was not traced.
    fn span(&self, step: &Step) -> Span {
        let trace = self.hears.borrow().trace_parent.clone();
        if trace.is_empty() {
            return Span::none();
        }
        let span = tracing::info_span!("step", otel.name = name_of(step), pod = %self.uid, ?step);
        strata_telemetry::continue_trace(&span, &trace);
        span
    }

    /// Takes in what was told since the last look.
    fn hear(&mut self) -> Result<(), LedgerError> {
        let told = self.hears.borrow_and_update().clone();
        let attempt = self.spec.attempt;
        self.spec = self.shared.spec(&told)?;
        self.spec.attempt = attempt;
        self.assigned = Assigned::new(told.desired().into(), &self.spec.template.pod);
        if let Some(grace_s) = told.grace_s {
            self.assigned.grace_ms = Millis::from(grace_s) * 1000;
        }
        Ok(())
    }

    /// Finds out what an earlier agent left of this pod.
    async fn begin(&mut self) {
        self.observed = Observed::new(&self.assigned);
        let Some(record) = self.record.clone() else { return };
        let now = self.shared.world.now_ms();
        if record.boot_id != self.shared.boot_id {
            tracing::info!(pod = %self.uid, "the node was rebooted since: the pod starts again in place");
            self.observed = record.observed_after_reboot(now);
            self.clear_after_reboot().await;
            if matches!(self.observed.sandbox, Sandbox::Ready { .. }) {
                self.note(Fact::SandboxGone).await;
            }
            return;
        }
        self.observed = record.observed();
        self.spec.attempt = self.observed.attempt;
        if self.observed.ended.is_none() && matches!(self.observed.sandbox, Sandbox::Ready { .. }) {
            self.adopt().await;
        }
    }

    /// The writable layers go with a reboot, as do rests of the sandbox.
    async fn clear_after_reboot(&mut self) {
        loop {
            let world = self.shared.world.clone();
            let cleared = match world.remove(&self.uid).await {
                Ok(()) => world.discard(&self.uid).await,
                error => error,
            };
            match cleared {
                Ok(()) => return,
                Err(trouble) => self.stumble(&trouble.reason, trouble.message).await,
            }
        }
    }

    async fn adopt(&mut self) {
        let mut tries = 0;
        let adopted = loop {
            match self.shared.world.adopt(&self.spec).await {
                Ok(adopted) => break adopted,
                Err(trouble) if tries < ADOPT_TRIES => {
                    tries += 1;
                    self.stumble(&trouble.reason, trouble.message).await;
                }
                Err(trouble) => {
                    tracing::warn!(pod = %self.uid, "its shim does not answer, so its sandbox goes: {trouble}");
                    break None;
                }
            }
        };
        let Some(adopted) = adopted else {
            self.note(Fact::SandboxGone).await;
            return;
        };
        self.slot = self.shared.sandboxes.clone().try_acquire_owned().ok();
        self.events = Some(adopted.events);
        let mut seen: Vec<ContainerName> = Vec::new();
        for (container, pid) in adopted.running {
            seen.push(container.clone());
            self.note(Fact::FoundRunning { container, pid, started_unix_ms: 0 }).await;
        }
        for (container, exit) in adopted.exited {
            seen.push(container.clone());
            self.note(Fact::FoundExited { container: container.clone(), exit }).await;
            self.shared.world.acknowledge(&self.uid, &container).await;
        }
        let lost: Vec<ContainerName> = self
            .observed
            .containers
            .iter()
            .filter(|c| c.is_running() && !seen.contains(&c.name))
            .map(|c| c.name.clone())
            .collect();
        for container in lost {
            let exit = ExitFact {
                code: 137,
                reason: "Error".into(),
                message: "it ended while no agent ran, and its shim does not know how".into(),
                finished_unix_ms: self.shared.world.unix_ms(),
            };
            self.note(Fact::Exited { container, exit }).await;
        }
    }

    async fn drain_events(&mut self) {
        while let Some(event) = self.events.as_mut().and_then(|e| match e.try_recv() {
            Ok(event) => Some(event),
            Err(tokio::sync::mpsc::error::TryRecvError::Empty) => None,
            Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => Some(SandboxEvent::Gone),
        }) {
            self.take_event(event).await;
        }
    }

    async fn take_event(&mut self, event: SandboxEvent) {
        match event {
            SandboxEvent::Exited { container, exit } => {
                self.note(Fact::Exited { container: container.clone(), exit }).await;
                self.shared.world.acknowledge(&self.uid, &container).await;
            }
            SandboxEvent::Gone => {
                self.events = None;
                self.slot = None;
                self.note(Fact::SandboxGone).await;
            }
        }
    }

    async fn wait(&mut self, wake_at: Option<Millis>) {
        let world = self.shared.world.clone();
        let mut ask = None;
        let event = tokio::select! {
            Some(probed) = self.probes.join_next(), if !self.probes.is_empty() => {
                self.take_probed(probed).await;
                None
            }
            changed = self.hears.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                None
            }
            event = next_event(&mut self.events) => Some(event),
            Some(asked) = self.asked.recv() => {
                ask = Some(asked);
                None
            }
            () = sleep_until(&*world, wake_at) => None,
        };
        if let Some(event) = event {
            self.take_event(event).await;
        }
        if let Some(ask) = ask {
            self.take_ask(ask).await;
        }
    }

    async fn take_ask(&mut self, ask: Ask) {
        for container in ask.containers {
            self.note(Fact::RestartAsked { container, grace_ms: ask.grace_ms }).await;
        }
        // Whoever asked may have gone.
        ask.taken.send(()).ok();
    }

    /// Says what is wrong, and waits a little.
    async fn stumble(&mut self, reason: &str, message: String) {
        tracing::warn!(pod = %self.uid, reason, "{message}");
        self.trouble = Some(Trouble::new(reason, message));
        self.publish();
        let world = self.shared.world.clone();
        world.sleep_until(world.now_ms() + RETRY_MS).await;
    }

    /// Takes in a fact and notes it on disk. A note that cannot be written is only warned of: see [`Life::note_durably`].
    pub(super) async fn note(&mut self, fact: Fact) {
        self.tell_event(&fact);
        let (before, health) = (self.observed.clone(), Health::of(&self.observed));
        self.observed.record(&self.assigned, fact, self.shared.world.now_ms());
        self.tell_health(&health);
        self.shared.meters.compare(&before, &self.observed);
        if let Err(e) = self.save(false).await {
            tracing::warn!(pod = %self.uid, "{e}");
        }
    }

    /// The same for facts that must not be forgotten: an attempt that begins or ends. Nothing has changed if it fails.
    pub(super) async fn note_durably(&mut self, fact: Fact) -> Result<(), Trouble> {
        let before = self.observed.clone();
        self.observed.record(&self.assigned, fact, self.shared.world.now_ms());
        self.save(true).await.map_err(|e| {
            self.observed = before;
            Trouble::new(e.reason(), e.to_string())
        })
    }

    async fn save(&mut self, durable: bool) -> Result<(), LedgerError> {
        if self.observed.gone {
            return Ok(());
        }
        let record = Record::new(&self.shared.boot_id, &self.observed);
        if self.record.as_ref() == Some(&record) {
            return Ok(());
        }
        let (shared, uid, copy) = (self.shared.clone(), self.uid.clone(), record.clone());
        let saved = tokio::task::spawn_blocking(move || shared.ledger.save_record(&uid, &copy, durable)).await;
        saved.map_err(|e| LedgerError::Frame(format!("the task ended: {e}")))??;
        self.record = Some(record);
        Ok(())
    }

    fn publish(&self) {
        let world = &self.shared.world;
        let mut s = status(&self.assigned, &self.observed, world.now_ms());
        if let Some(trouble) = self.trouble.as_ref().filter(|_| s.reason.is_empty()) {
            s.reason.clone_from(&trouble.reason);
            s.message.clone_from(&trouble.message);
        }
        let mut status = types::PodStatus::from(&s);
        status.node.clone_from(&self.shared.node);
        if let Some(address) = world.pod_address(self.spec.address_index) {
            status.address = address.to_string();
            status.addresses = vec![address.to_string()];
        }
        for told in &mut status.containers {
            if let Some(c) = self.spec.template.pod.containers.iter().find(|c| c.name.as_str() == told.name) {
                told.image = c.image.to_string();
                told.image_digest.clone_from(&c.image_digest);
            }
        }
        self.shared.board.put(PodReport { uid: self.uid.to_string(), status: Some(status), gone: self.observed.gone });
    }

    fn tell_event(&self, fact: &Fact) {
        use types::event_spec::Severity::{Normal, Warning};
        let (severity, reason, message) = match fact {
            Fact::Started { container, pid, .. } => {
                (Normal, "Started".to_owned(), format!("container {container} started as pid {pid}"))
            }
            Fact::StartFailed { container, exit } => {
                (Warning, exit.reason.clone(), format!("container {container}: {}", exit.message))
            }
            Fact::Exited { container, exit } | Fact::FoundExited { container, exit } => {
                let severity = if exit.code == 0 { Normal } else { Warning };
                (severity, exit.reason.clone(), format!("container {container} ended with code {}", exit.code))
            }
            Fact::ImagesFailed(reason, message) | Fact::SandboxFailed(reason, message) => {
                (Warning, reason.clone(), message.clone())
            }
            Fact::SandboxGone => {
                (Warning, "SandboxDied".to_owned(), "the pod's sandbox died, and its containers with it".to_owned())
            }
            _ => return,
        };
        self.event(severity, reason, message);
    }

    pub(super) fn event(&self, severity: types::event_spec::Severity, reason: String, message: String) {
        self.shared.board.event(types::EventSpec {
            kind: "Pod".into(),
            namespace: self.spec.name.namespace.clone(),
            name: self.spec.name.name.clone(),
            uid: self.uid.to_string(),
            severity: severity.into(),
            reason,
            message,
            source: self.shared.node.clone(),
            count: 1,
            last: Some(strata_proto::timestamp_of_ms(self.shared.world.unix_ms())),
        });
    }
}

async fn next_event(events: &mut Option<Events>) -> SandboxEvent {
    match events {
        Some(events) => events.recv().await.unwrap_or(SandboxEvent::Gone),
        None => std::future::pending().await,
    }
}

async fn sleep_until<W: World>(world: &W, at: Option<Millis>) {
    match at {
        Some(at) => world.sleep_until(at).await,
        None => std::future::pending().await,
    }
}
