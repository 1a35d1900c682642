//! Undo: the template of an earlier revision becomes the workload's again, as a change of its spec like any other.

use super::{ApiState, Refusal, apply};
use crate::objects::{template_key, template_spec, workload_status};
use strata_proto::{
    cluster::{ApplyRequest, ApplyResponse, UndoRequest},
    types::{Kind, Object, PodTemplate, RevisionRecord, object},
};
use strata_store::Key;
use tonic::Code;

/// How often it is tried when others change the workload at the same time.
const TRIES_MAX: usize = 8;

pub(super) async fn undo(state: &ApiState, request: UndoRequest, trace: &str) -> Result<ApplyResponse, Refusal> {
    let namespace = if request.namespace.is_empty() { super::namespaces::DEFAULT } else { &request.namespace };
    let key = Key::new(Kind::Workload, namespace, request.workload.clone());
    for tries in 1.. {
        let snapshot = state.store.snapshot();
        let present = snapshot.get(&key).ok_or_else(|| Refusal::not_found(&key))?;
        let record = choose(&present, request.number)?;
        let found = snapshot.get(&template_key(&record.revision));
        let template = found.as_deref().and_then(template_spec).and_then(|t| t.pod.clone());
        let template = template.ok_or_else(|| {
            let message = format!("the template of revision {} of {key} is not kept any more", record.number);
            Refusal::precondition("RevisionGone", message)
        })?;
        let object = with_template(&present, template)?;
        let apply = ApplyRequest { object: Some(object), ..ApplyRequest::default() };
        match apply::apply(state, apply, trace).await {
            Err(refusal) if refusal.code == Code::Aborted && tries < TRIES_MAX => {}
            answer => return answer,
        }
    }
    Err(Refusal::conflict(format!("{key} was changed by others {TRIES_MAX} times meanwhile: try again")))
}

/// The record of this number; 0: the one before the newest.
fn choose(workload: &Object, number: u64) -> Result<RevisionRecord, Refusal> {
    let status = workload_status(workload);
    let history = &status.history;
    let known: Vec<String> = history.iter().map(|r| r.number.to_string()).collect();
    let none = || {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let which =
            if number == 0 { "no revision before the present one".to_owned() } else { format!("no revision {number}") };
        let message = format!("{} has {which} (there are: {known})", Key::of(workload));
        Refusal::new(Code::NotFound, "RevisionNotFound", message)
    };
    let found = match number {
        // After a failed rollout that was taken back the newest is not what runs.
        0 => history.iter().rev().find(|r| r.revision != status.revision && r.revision != newest(history)),
        number => history.iter().find(|r| r.number == number),
    };
    found.cloned().ok_or_else(none)
}

fn newest(history: &[RevisionRecord]) -> &str {
    history.last().map_or("", |r| r.revision.as_str())
}

/// The workload with this template, under the condition that nobody changed it meanwhile.
fn with_template(present: &Object, mut template: PodTemplate) -> Result<Object, Refusal> {
    let mut object = present.clone();
    let Some(object::Kind::Workload(workload)) = &mut object.kind else {
        return Err(Refusal::invalid("kind: only workloads have revisions"));
    };
    let spec = workload.spec.get_or_insert_default();
    // As people write it: what the controller found out or added is found out again.
    for container in &mut template.containers {
        container.image_digest.clear();
    }
    template.volumes.retain(|v| spec.volume_templates.iter().all(|t| t.name != v.name));
    spec.template = Some(template);
    workload.status = None;
    Ok(object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_proto::types::{Meta, Workload, WorkloadStatus};

    fn workload(revision: &str, history: &[(u64, &str)]) -> Object {
        let record = |(number, revision): &(u64, &str)| RevisionRecord {
            number: *number,
            revision: (*revision).to_owned(),
            ..RevisionRecord::default()
        };
        let status = WorkloadStatus {
            revision: revision.to_owned(),
            history: history.iter().map(record).collect(),
            ..WorkloadStatus::default()
        };
        let meta = Meta { name: "web".into(), namespace: "default".into(), ..Meta::default() };
        Object { meta: Some(meta), kind: Some(object::Kind::Workload(Workload { spec: None, status: Some(status) })) }
    }

    #[test]
    fn the_one_before_is_meant_unless_a_number_is_said() {
        let chosen = |revision: &str, history: &[(u64, &str)], number| {
            choose(&workload(revision, history), number).map(|r| r.number).ok()
        };
        let history = [(1, "a"), (2, "b"), (4, "c")];
        assert_eq!(chosen("c", &history, 0), Some(2));
        assert_eq!(chosen("c", &history, 1), Some(1));
        assert_eq!(chosen("c", &history, 3), None);
        assert_eq!(chosen("b", &history, 0), Some(1), "the newest has failed and 2 is back: before that was 1");
        assert_eq!(chosen("a", &[(1, "a")], 0), None);
        assert_eq!(chosen("", &[], 0), None);
    }
}
