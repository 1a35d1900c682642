//! Workloads.

use super::{BadObject, timestamp_ms};
use crate::types as wire;
use strata_model::{Mode, ObjectName, PodTemplate, RevisionName, Uid, UpdatePolicy, Workload, limits};

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
        let template = spec.template.as_ref().ok_or_else(|| BadObject::new("spec.template", "is missing"))?;
        let template = PodTemplate::try_from(template).map_err(|e| e.below("spec.template"))?;
        let replicas = spec.replicas.unwrap_or(1);
        if replicas > limits::REPLICAS_MAX {
            return Err(BadObject::new("spec.replicas", format!("at most {}", limits::REPLICAS_MAX)));
        }
        let update = match &spec.update {
            Some(u) if u.max_surge > 0 || u.max_unavailable > 0 => {
                UpdatePolicy { max_surge: u.max_surge, max_unavailable: u.max_unavailable }
            }
            _ => UpdatePolicy::default(),
        };
        Ok(Self {
            uid: Uid::from_trusted(meta.uid.clone()),
            name: ObjectName::new(meta.namespace.clone(), meta.name.clone()),
            generation: meta.generation,
            mode: match spec.mode() {
                wire::workload_spec::Mode::Replicated => Mode::Replicated(replicas),
                wire::workload_spec::Mode::Global => Mode::Global,
                wire::workload_spec::Mode::Job | wire::workload_spec::Mode::Cron => {
                    return Err(BadObject::new("spec.mode", "jobs are not built yet: Replicated or Global"));
                }
            },
            template,
            update,
            revision: RevisionName::from_trusted(status.revision),
            next_ordinal: status.next_ordinal,
            deleting: meta.deleted.is_some(),
            created: timestamp_ms(meta.created.as_ref()),
        })
    }
}
