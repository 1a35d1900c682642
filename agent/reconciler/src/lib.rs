//! What to do next on a node, decided purely: assigned pods and what is observed of them give steps, a status and when to look again.
//!
//! Not here: I/O, clocks (`now` is an argument: milliseconds on a clock that runs through sleep and agent restarts, as CLOCK_BOOTTIME),
//! randomness, async, and how a step is done. Garbage collection of images is not planned here yet.
//!
//! A plan also names the probes that are due; the shell makes them beside its steps, and their answers are facts.
//!
//! In: [`Assigned`] (from the ledger) and [`Observed`] (made of [`Fact`]s: results of steps, and events). Out: [`PodPlan`].
//! The shell performs the *first* step of a plan, records what came of it as a fact, and plans again.
//!
//! Invariants (checked by `tests/properties.rs`):
//! - a container is started only when it does not run and its sandbox is there: never two runs at once;
//! - `(attempt, phase)` of the status never goes back; an ended attempt stays ended;
//! - once the world answers and nobody changes his mind, the plan becomes empty.
#![no_std]
extern crate alloc;

mod backoff;
mod fact;
mod observed;
mod plan;
mod probe;
mod status;

pub use backoff::{BACKOFF_FIRST_MS, BACKOFF_MAX_MS, RUN_RESETS_BACKOFF_MS, delay_ms};
pub use fact::Fact;
pub use observed::{Ended, ExitFact, Failure, Images, Observed, ObservedContainer, Run, Sandbox};
pub use plan::{KILL_PATIENCE_MS, PodPlan, Step, plan};
pub use probe::{Answer, Condemned, DueProbe, LIVENESS_FAILED, Probing, STARTUP_FAILED, UNREADY};
pub use status::status;

use alloc::{collections::BTreeMap, vec::Vec};
use strata_model::{ContainerName, Desired, Millis, PodTemplate, Probes, RestartPolicy};

/// What the controller wants of one pod, as far as planning needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Run, stopped or removed.
    pub desired: Desired,
    /// In the template's order.
    pub containers: Vec<ContainerName>,
    /// When an ended container starts again.
    pub restart_policy: RestartPolicy,
    /// Between stop signal and kill.
    pub grace_ms: Millis,
    /// Of the containers that have some.
    pub probes: BTreeMap<ContainerName, Probes>,
}

/// A container without probes.
static NO_PROBES: Probes = Probes { startup: None, readiness: None, liveness: None };

impl Assigned {
    /// Takes from a template what planning needs.
    #[must_use]
    pub fn new(desired: Desired, template: &PodTemplate) -> Self {
        Self {
            desired,
            containers: template.containers.iter().map(|c| c.name.clone()).collect(),
            restart_policy: template.restart_policy,
            grace_ms: Millis::from(template.termination_grace_s) * 1000,
            probes: template
                .containers
                .iter()
                .filter(|c| c.probes != Probes::default())
                .map(|c| (c.name.clone(), c.probes.clone()))
                .collect(),
        }
    }

    /// The probes of a container.
    #[must_use]
    pub fn probes_of(&self, container: &ContainerName) -> &Probes {
        self.probes.get(container).unwrap_or(&NO_PROBES)
    }

    /// A pod that nobody wants: found on the node, in no assignment.
    #[must_use]
    pub fn unwanted() -> Self {
        Self {
            desired: Desired::Removed,
            containers: Vec::new(),
            restart_policy: RestartPolicy::Never,
            grace_ms: Millis::from(strata_model::limits::TERMINATION_GRACE_DEFAULT_S) * 1000,
            probes: BTreeMap::new(),
        }
    }
}
