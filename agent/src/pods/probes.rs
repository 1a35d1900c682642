//! Making the probes that a plan says are due, beside its steps, and telling of what they change.

use super::life::Life;
use crate::world::World;
use std::time::Duration;
use strata_proto::types::event_spec::Severity;
use strata_reconciler::{Answer, DueProbe, Fact, Observed};
use tokio::task::JoinError;

/// What a probe found.
pub(super) type Probed = (DueProbe, Answer);

impl<W: World> Life<W> {
    /// Begins a probe; its answer comes by [`Life::take_probed`]. At most one of each kind is under way for a container.
    pub(super) async fn begin_probe(&mut self, due: DueProbe) {
        let Some(probe) = self.assigned.probes_of(&due.container).get(due.kind).cloned() else { return };
        self.note(Fact::ProbeBegun { container: due.container.clone(), kind: due.kind }).await;
        let (shared, spec) = (self.shared.clone(), self.spec.clone());
        self.probes.spawn(async move {
            // Closing is never asked of this semaphore: without a permit the probe is only not counted.
            let _permit = shared.probes.acquire().await.ok();
            let wait = Duration::from_secs(probe.timeout_s.into());
            let answer = shared.world.probe(&spec, &due.container, &probe.check, wait).await;
            (due, answer)
        });
    }

    pub(super) async fn drain_probes(&mut self) {
        while let Some(probed) = self.probes.try_join_next() {
            self.take_probed(probed).await;
        }
    }

    pub(super) async fn take_probed(&mut self, probed: Result<Probed, JoinError>) {
        match probed {
            Ok((DueProbe { container, kind, pid }, answer)) => {
                self.note(Fact::Probed { container, kind, pid, answer }).await;
            }
            // Only a bug ends one early; without an answer that probe is not asked again in this run.
            Err(e) => tracing::error!(pod = %self.uid, "a probe broke: {e}"),
        }
    }

    /// Events for what has changed since `before`.
    pub(super) fn tell_health(&self, before: &Health) {
        let now = Health::of(&self.observed);
        for (was, is) in before.0.iter().zip(&now.0) {
            if let (None, Some((reason, message))) = (&was.condemned, &is.condemned) {
                let message = format!("container {}: {message}; it is stopped", is.name);
                self.event(Severity::Warning, reason.clone(), message);
            }
            if was.serving && !is.serving && is.running {
                let message = format!("container {} is not ready any more: its readiness probe fails", is.name);
                self.event(Severity::Warning, strata_reconciler::UNREADY.to_owned(), message);
            }
        }
    }
}

/// What of a pod's probes is worth an event.
#[derive(Debug)]
pub(super) struct Health(Vec<One>);

#[derive(Debug)]
struct One {
    name: String,
    running: bool,
    serving: bool,
    condemned: Option<(String, String)>,
}

impl Health {
    pub fn of(observed: &Observed) -> Self {
        let one = |c: &strata_reconciler::ObservedContainer| One {
            name: c.name.to_string(),
            running: c.is_running(),
            serving: c.probing.serving,
            condemned: c.probing.condemned.as_ref().map(|c| (c.reason.clone(), c.message.clone())),
        };
        Self(observed.containers.iter().map(one).collect())
    }
}
