//! What is remembered of a workload's rollouts, in its status.

use crate::{
    convert::{timestamp_ms, timestamp_of_ms},
    types as wire,
};
use strata_model::{Revision, RevisionName, Rollout, RolloutState};
use wire::workload_status::Rollout as Word;

pub(super) fn rollout(status: &wire::WorkloadStatus) -> RolloutState {
    RolloutState {
        history: status
            .history
            .iter()
            .map(|r| Revision {
                number: r.number,
                name: RevisionName::from_trusted(r.revision.clone()),
                created: timestamp_ms(r.created.as_ref()),
                cause: r.cause.clone(),
                complete: r.complete,
            })
            .collect(),
        rollout: match status.rollout() {
            Word::Complete => Rollout::Complete,
            Word::Progressing => Rollout::Progressing,
            Word::Paused => Rollout::Paused,
            Word::Failed => Rollout::Failed,
            Word::Reverted => Rollout::Reverted,
        },
        progressed: timestamp_ms(status.progressed.as_ref()),
        failed_generation: status.failed_generation,
    }
}

impl wire::WorkloadStatus {
    /// Puts what is remembered of the rollouts into the status.
    pub fn set_rollout_state(&mut self, state: &RolloutState) {
        self.history = state
            .history
            .iter()
            .map(|r| wire::RevisionRecord {
                number: r.number,
                revision: r.name.to_string(),
                created: (r.created > 0).then(|| timestamp_of_ms(r.created)),
                cause: r.cause.clone(),
                complete: r.complete,
            })
            .collect();
        self.set_rollout(match state.rollout {
            Rollout::Complete => Word::Complete,
            Rollout::Progressing => Word::Progressing,
            Rollout::Paused => Word::Paused,
            Rollout::Failed => Word::Failed,
            Rollout::Reverted => Word::Reverted,
        });
        self.progressed = (state.progressed > 0).then(|| timestamp_of_ms(state.progressed));
        self.failed_generation = state.failed_generation;
    }
}
