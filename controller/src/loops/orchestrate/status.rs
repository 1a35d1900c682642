//! What a plan leaves in a workload's status: counts of jobs, the state of the rollout; and the volumes of new slots.

use crate::{
    control::Control,
    edit::created,
    objects::{new_meta, template_key, template_spec},
    sessions::events,
};
use std::collections::HashMap;
use strata_model::{PodTemplate, Rollout, Workload, slot_volume};
use strata_orchestrator::{Action, Plan, ROLLOUT_FAILED, words};
use strata_proto::{
    timestamp_now,
    types::{self, Kind, Object, WorkloadStatus, event_spec::Severity, object, workload_status},
};
use strata_store::{Change, Key, Snapshot};

/// The workload with the template of the revision that is back, if its own has failed.
pub(super) fn as_it_runs(snapshot: &Snapshot, workload: Workload) -> Workload {
    if workload.rollout.rollout != Rollout::Reverted {
        return workload;
    }
    let found = snapshot.get(&template_key(workload.revision.as_str()));
    let template = found.as_deref().and_then(template_spec).and_then(|t| PodTemplate::try_from(t.pod.as_ref()?).ok());
    match template {
        Some(template) => Workload { template, ..workload },
        None => workload,
    }
}

/// Notes what the plan says of rollout and job. `trouble`: what keeps the pods from being well.
pub(super) fn note(
    status: &mut WorkloadStatus,
    workload: &Workload,
    plan: &Plan,
    trouble: impl FnOnce() -> (String, String),
) {
    let failed_before = has_failed(status, workload.generation);
    if let Some(advance) = &plan.rollout {
        status.set_rollout_state(&advance.state);
        if let Some(revision) = &advance.revert {
            // It is not tried again until the spec changes.
            status.revision = revision.to_string();
            status.observed_generation = workload.generation;
            status.updated = 0;
        }
        if let Some(why) = &advance.failure {
            (status.reason, status.message) = (ROLLOUT_FAILED.to_owned(), why.clone());
            return;
        }
    }
    if let Some(job) = &plan.job {
        status.succeeded = job.succeeded;
        status.failed = job.failed;
        if let Some(end) = &job.end {
            status.finished = Some(timestamp_now());
            (status.reason, status.message) = words(end);
        }
        if status.finished.is_some() {
            return;
        }
    }
    // While its images are not resolved, the image loop says why it waits; a rollout that has failed says so until it is tried again.
    let settled = status.observed_generation >= workload.generation && !status.revision.is_empty();
    if settled && !(failed_before && has_failed(status, workload.generation)) {
        (status.reason, status.message) = trouble();
    }
}

fn has_failed(status: &WorkloadStatus, generation: u64) -> bool {
    use workload_status::Rollout::{Failed, Reverted};
    matches!(status.rollout(), Failed | Reverted) && status.failed_generation == generation
}

/// Whether a change of the status has to survive a restart: the rest is counted again.
pub(super) fn is_lasting(new: &WorkloadStatus, old: &WorkloadStatus) -> bool {
    let lasting = |s: &WorkloadStatus| {
        (s.next_ordinal, s.rollout, s.history.clone(), s.failed_generation, s.finished, s.revision.clone())
    };
    lasting(new) != lasting(old)
}

/// Tells people of a rollout that failed or is complete, and of a job's end.
pub(super) async fn tell(control: &Control, object: &Object, plan: &Plan) {
    let before = crate::objects::workload_status(object);
    if let Some(advance) = &plan.rollout {
        if let Some(why) = &advance.failure {
            events::about(control, object, Severity::Warning, ROLLOUT_FAILED, why).await;
        }
        let newest = advance.state.history.last();
        let was_complete = |number| before.history.iter().any(|r| r.number == number && r.complete);
        if let Some(newest) = newest.filter(|r| r.complete && !was_complete(r.number)) {
            let message = format!("revision {} is complete", newest.number);
            events::about(control, object, Severity::Normal, "RolloutComplete", &message).await;
        }
    }
    if let Some(end) = plan.job.as_ref().and_then(|j| j.end.as_ref()) {
        let (reason, message) = words(end);
        let severity = if end.complete { Severity::Normal } else { Severity::Warning };
        events::about(control, object, severity, &format!("Job{reason}"), &message).await;
    }
}

/// The volumes of the slots that are made and were not there before. They stay when the pod or the workload goes.
pub(super) fn volumes(snapshot: &Snapshot, object: &Object, workload: &Workload, plan: &Plan) -> Vec<Change> {
    let mut changes = Vec::new();
    for action in &plan.actions {
        let Action::Create { ordinal, .. } = action else { continue };
        for template in &workload.volume_templates {
            let name = slot_volume(&template.source(&workload.name.name), *ordinal);
            let key = Key::new(Kind::Volume, workload.name.namespace.clone(), name.clone());
            if snapshot.get(&key).is_some() {
                continue;
            }
            let mut meta = new_meta(&workload.name.namespace, &name);
            meta.labels = HashMap::from([
                ("strata.dev/workload".to_owned(), label(&workload.name.name)),
                ("strata.dev/slot".to_owned(), ordinal.to_string()),
            ]);
            crate::objects::meta(object).trace_parent.clone_into(&mut meta.trace_parent);
            let spec = types::VolumeSpec { size_bytes: template.size_bytes, ..types::VolumeSpec::default() };
            let volume = types::Volume { spec: Some(spec), status: None };
            changes.push(created(Object { meta: Some(meta), kind: Some(object::Kind::Volume(volume)) }));
        }
    }
    changes
}

/// A label's value has at most 63 characters.
fn label(name: &str) -> String {
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}
