//! Performing one step of a plan, and noting what came of it.

use super::{STEP_TIMEOUT, life::Life};
use crate::{
    timeline,
    world::{Trouble, World},
};
use std::{collections::BTreeSet, future::Future};
use strata_model::{ContainerName, Desired, PinnedImage};
use strata_proto::dispatch::Assignment;
use strata_reconciler::{ExitFact, Fact, Step};
use tokio::{sync::watch, time::timeout};

impl<W: World> Life<W> {
    /// An error is a step that is tried again as it is: everything else is a fact.
    pub(super) async fn perform(&mut self, step: Step) -> Result<(), Trouble> {
        tracing::debug!(pod = %self.uid, ?step, "performs");
        let name = self.spec.name.name.clone();
        let _timed = timeline::Step::begin_whole(&name, name_of(&step));
        match step {
            Step::BeginAttempt => {
                self.note_durably(Fact::AttemptBegun).await?;
                self.spec.attempt = self.observed.attempt;
            }
            Step::EndAttempt(ended) => self.note_durably(Fact::AttemptEnded(ended)).await?,
            Step::EnsureImages => self.ensure_images().await,
            Step::MakeSandbox => self.make_sandbox().await,
            Step::StartContainer(name) => self.start(name).await?,
            Step::Signal(name) => {
                // Whoever cannot be signalled is killed when the grace period is over.
                let sent = bounded("sending the stop signal", self.shared.world.signal(&self.spec, &name)).await;
                warn(&self.uid, sent);
                self.note(Fact::Signalled(name)).await;
            }
            Step::Kill(name) => {
                // Whoever cannot be killed goes down with the sandbox.
                let sent = bounded("killing", self.shared.world.kill(&self.spec, &name)).await;
                warn(&self.uid, sent);
                self.note(Fact::Killed(name)).await;
            }
            Step::RemoveSandbox => {
                self.events = None;
                bounded("removing the sandbox", self.shared.world.remove(&self.uid)).await?;
                self.slot = None;
                self.note(Fact::SandboxRemoved).await;
            }
            Step::RemovePod => self.remove_pod().await?,
        }
        Ok(())
    }

    /// Gets the images, unless the pod is no longer to run. Images that are here wait for nobody's pull.
    async fn ensure_images(&mut self) {
        let shared = self.shared.clone();
        let mut seen = BTreeSet::new();
        let images: Vec<PinnedImage> =
            self.spec.template.images.iter().filter(|i| seen.insert(i.digest.clone())).cloned().collect();
        let ensure = async {
            for image in &images {
                if shared.world.has(image).await {
                    continue;
                }
                // Closing is never asked of this semaphore: without a permit the pull is only not counted.
                let _permit = shared.pulls.acquire().await.ok();
                shared.world.ensure(image).await?;
            }
            Ok(())
        };
        let got = tokio::select! {
            got = ensure => got,
            () = no_longer_to_run(&mut self.hears) => return,
        };
        match got {
            Ok(()) => self.note(Fact::ImagesReady).await,
            Err(Trouble { reason, message }) => self.note(Fact::ImagesFailed(reason, message)).await,
        }
    }

    async fn make_sandbox(&mut self) {
        self.slot = self.shared.sandboxes.clone().try_acquire_owned().ok();
        if self.slot.is_none() {
            let message = "the node runs as many pods as its settings allow (capacity.pods)";
            self.note(Fact::SandboxFailed("OutOfPods".into(), message.into())).await;
            return;
        }
        let shared = self.shared.clone();
        let _permit = shared.starts.acquire().await.ok();
        match bounded("making the sandbox", shared.world.make(&self.spec)).await {
            Ok(events) => {
                self.events = Some(events);
                self.note(Fact::SandboxReady).await;
            }
            Err(Trouble { reason, message }) => {
                self.slot = None;
                self.note(Fact::SandboxFailed(reason, message)).await;
            }
        }
    }

    async fn start(&mut self, name: ContainerName) -> Result<(), Trouble> {
        let spec = self.spec.clone();
        let shared = self.shared.clone();
        let Some(container) = spec.template.pod.containers.iter().find(|c| c.name == name) else {
            let exit = self.start_error(format!("the template has no container {name}"));
            self.note(Fact::StartFailed { container: name, exit }).await;
            return Ok(());
        };
        let _permit = shared.starts.acquire().await.ok();
        match timeout(STEP_TIMEOUT, shared.world.start(&spec, container)).await {
            Ok(Ok(started)) => {
                let started_unix_ms = shared.world.unix_ms();
                self.note(Fact::Started { container: name, pid: started.pid, started_unix_ms }).await;
            }
            Ok(Err(exit)) => self.note(Fact::StartFailed { container: name, exit }).await,
            // It may have started or not: nobody knows, so the sandbox goes and with it whatever runs.
            Err(_) => {
                bounded("removing the sandbox after a start without an answer", shared.world.remove(&self.uid)).await?;
                self.events = None;
                self.slot = None;
                self.note(Fact::SandboxGone).await;
            }
        }
        Ok(())
    }

    async fn remove_pod(&mut self) -> Result<(), Trouble> {
        let shared = self.shared.clone();
        self.events = None;
        bounded("removing the sandbox", shared.world.remove(&self.uid)).await?;
        bounded("dropping the writable layers", shared.world.discard(&self.uid)).await?;
        bounded("dropping the scratch space", shared.world.forget(&self.uid)).await?;
        let uid = self.uid.clone();
        let removed = tokio::task::spawn_blocking(move || shared.ledger.remove_pod(&uid)).await;
        removed
            .map_err(|e| Trouble::new("Ledger", e.to_string()))?
            .map_err(|e| Trouble::new(e.reason(), e.to_string()))?;
        self.slot = None;
        self.note(Fact::PodRemoved).await;
        Ok(())
    }

    fn start_error(&self, message: String) -> ExitFact {
        ExitFact { code: 128, reason: "StartError".into(), message, finished_unix_ms: self.shared.world.unix_ms() }
    }
}

/// The word for a step, in metrics, traces and timelines.
pub(super) fn name_of(step: &Step) -> &'static str {
    match step {
        Step::BeginAttempt => "begin attempt",
        Step::EndAttempt(_) => "end attempt",
        Step::EnsureImages => "images",
        Step::MakeSandbox => "sandbox",
        Step::StartContainer(_) => "container",
        Step::Signal(_) => "signal",
        Step::Kill(_) => "kill",
        Step::RemoveSandbox => "remove sandbox",
        Step::RemovePod => "remove pod",
    }
}

async fn no_longer_to_run(hears: &mut watch::Receiver<Assignment>) {
    if hears.wait_for(|a| Desired::from(a.desired()) != Desired::Run).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn bounded<T>(doing: &str, step: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    timeout(STEP_TIMEOUT, step).await.unwrap_or_else(|_| {
        Err(Trouble::new(
            "Timeout",
            format!("{doing} took more than {} s; the node may be overloaded", STEP_TIMEOUT.as_secs()),
        ))
    })
}

fn warn(uid: &strata_model::Uid, result: Result<(), Trouble>) {
    if let Err(trouble) = result {
        tracing::warn!(pod = %uid, reason = trouble.reason, "{trouble}");
    }
}
