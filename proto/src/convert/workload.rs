//! Workloads.

mod policies;
mod state;

use super::{BadObject, timestamp_ms};
use crate::types as wire;
use strata_model::{
    Millis, Mode, ObjectName, OnFailure, PodTemplate, RestartPolicy, RevisionName, Uid, UpdatePolicy, VolumeTemplate,
    Workload, limits,
};

/// Why the template was changed: what people write, as Kubernetes has it.
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// A workload from its envelope.
impl TryFrom<&wire::Object> for Workload {
    type Error = BadObject;

    fn try_from(object: &wire::Object) -> Result<Self, BadObject> {
        let meta = object.meta.as_ref().ok_or_else(|| BadObject::new("meta", "is missing"))?;
        let Some(wire::object::Kind::Workload(w)) = &object.kind else {
            return Err(BadObject::new("kind", "a Workload is expected"));
        };
        meta.check(true)?;
        let spec = w.spec.as_ref().ok_or_else(|| BadObject::new("spec", "is missing"))?;
        let status = w.status.clone().unwrap_or_default();
        let template = spec.pod_template(&meta.name).ok_or_else(|| BadObject::new("spec.template", "is missing"))?;
        let template = PodTemplate::try_from(&template).map_err(|e| e.below("spec.template"))?;
        Ok(Self {
            uid: Uid::from_trusted(meta.uid.clone()),
            name: ObjectName::new(meta.namespace.clone(), meta.name.clone()),
            generation: meta.generation,
            mode: mode(spec, &template)?,
            template,
            update: update(spec.update.as_ref())?,
            next_ordinal: status.next_ordinal,
            deleting: meta.deleted.is_some(),
            created: timestamp_ms(meta.created.as_ref()),
            rollout: state::rollout(&status),
            paused: spec.paused,
            stopped: spec.stopped,
            observed_generation: status.observed_generation,
            waits_for_images: status.observed_generation < meta.generation && !status.reason.is_empty(),
            message: match (status.reason.as_str(), status.message.as_str()) {
                ("", message) => message.to_owned(),
                (reason, message) => format!("{reason}: {message}"),
            },
            cause: meta.annotations.get(CHANGE_CAUSE).cloned().unwrap_or_default(),
            cron: policies::cron(spec)?,
            last_scheduled: timestamp_ms(status.last_scheduled.as_ref()),
            finished: status.finished.as_ref().map(|at| timestamp_ms(Some(at))),
            volume_templates: volume_templates(spec)?,
            revision: RevisionName::from_trusted(status.revision),
        })
    }
}

fn mode(spec: &wire::WorkloadSpec, template: &PodTemplate) -> Result<Mode, BadObject> {
    let replicas = spec.replicas.unwrap_or(1);
    if replicas > limits::REPLICAS_MAX {
        return Err(BadObject::new("spec.replicas", format!("at most {}", limits::REPLICAS_MAX)));
    }
    let mode = spec.mode();
    if spec.ordered && mode != wire::workload_spec::Mode::Replicated {
        return Err(BadObject::new("spec.ordered", "only a Replicated workload has slots: leave it out"));
    }
    if matches!(mode, wire::workload_spec::Mode::Job | wire::workload_spec::Mode::Cron)
        && template.restart_policy == RestartPolicy::Always
    {
        let why = "the pods of a job come to an end: OnFailure or Never (Always is what is meant when it is left out)";
        return Err(BadObject::new("spec.template.restartPolicy", why));
    }
    Ok(match mode {
        wire::workload_spec::Mode::Replicated if spec.ordered => Mode::Ordered(replicas),
        wire::workload_spec::Mode::Replicated => Mode::Replicated(replicas),
        wire::workload_spec::Mode::Global => Mode::Global,
        wire::workload_spec::Mode::Job => Mode::Job(policies::job(spec.job.as_ref())?),
        wire::workload_spec::Mode::Cron => {
            policies::job(spec.job.as_ref())?;
            Mode::Cron
        }
    })
}

fn update(update: Option<&wire::UpdatePolicy>) -> Result<UpdatePolicy, BadObject> {
    let mut policy = UpdatePolicy::default();
    let Some(update) = update else { return Ok(policy) };
    let most = limits::PROBE_SECONDS_MAX;
    for (field, value) in [("progressDeadlineS", update.progress_deadline_s), ("minReadyS", update.min_ready_s)] {
        if value > most {
            return Err(BadObject::new(format!("spec.update.{field}"), format!("at most {most} seconds")));
        }
    }
    if update.max_surge > 0 || update.max_unavailable > 0 {
        policy.max_surge = update.max_surge;
        policy.max_unavailable = update.max_unavailable;
    }
    policy.min_ready_ms = Millis::from(update.min_ready_s) * 1000;
    if update.progress_deadline_s > 0 {
        policy.progress_deadline_ms = Millis::from(update.progress_deadline_s) * 1000;
    }
    if policy.min_ready_ms >= policy.progress_deadline_ms {
        return Err(BadObject::new(
            "spec.update.minReadyS",
            "must be below progressDeadlineS, or nothing ever succeeds",
        ));
    }
    policy.on_failure = match update.on_failure() {
        wire::update_policy::OnFailure::Revert => OnFailure::Revert,
        wire::update_policy::OnFailure::Pause => OnFailure::Pause,
    };
    Ok(policy)
}

fn volume_templates(spec: &wire::WorkloadSpec) -> Result<Vec<VolumeTemplate>, BadObject> {
    if !spec.volume_templates.is_empty() && !spec.ordered {
        return Err(BadObject::new("spec.volumeTemplates", "only an ordered workload has a volume for each pod"));
    }
    let mut found: Vec<VolumeTemplate> = Vec::new();
    for (i, template) in spec.volume_templates.iter().enumerate() {
        let at = format!("spec.volumeTemplates[{i}].name");
        strata_model::check_name("name", &template.name).map_err(|e| BadObject::new(&at, e.to_string()))?;
        if found.iter().any(|f| f.name == template.name) {
            return Err(BadObject::new(at, format!("two volume templates are named {:?}", template.name)));
        }
        found.push(VolumeTemplate { name: template.name.clone(), size_bytes: template.size_bytes });
    }
    Ok(found)
}

impl wire::WorkloadSpec {
    /// The template of this workload's pods: with the volumes of its slots, under names that [`strata_model::slot_volume`] completes.
    #[must_use]
    pub fn pod_template(&self, workload: &str) -> Option<wire::PodTemplate> {
        let mut template = self.template.clone()?;
        for volume in &self.volume_templates {
            let of_slot = VolumeTemplate { name: volume.name.clone(), size_bytes: 0 }.source(workload);
            template.volumes.retain(|v| v.name != volume.name);
            let source = Some(wire::volume_source::Source::Volume(of_slot));
            template.volumes.push(wire::VolumeSource { name: volume.name.clone(), source });
        }
        Some(template)
    }
}
