//! Conditions of objects: ready, or a field with a value. Pure.

use crate::exit::Failure;
use serde_json::Value;
use strata_proto::types::{
    Object, WorkloadStatus, node_status, object, pod_status::Phase, workload_spec::Mode, workload_status::Rollout,
};

/// The status reason of a job that has succeeded.
const JOB_COMPLETE: &str = "Complete";

/// What one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The object is gone.
    Deleted,
    /// As its kind understands it.
    Ready,
    /// A field, by the path in its JSON document, has this text.
    Field { path: Vec<Step>, value: String },
}

/// One step of a path into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Name(String),
    Index(usize),
}

impl Condition {
    /// Reads `deleted`, `ready`, `phase=Running`, `status.containers[0].restarts=2`; also as Kubernetes writes them: `delete`,
    /// `condition=Ready`, `jsonpath={.status.phase}=Running`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        match text.to_lowercase().as_str() {
            "delete" | "deleted" => return Ok(Self::Deleted),
            // Of a job: that it is complete.
            "ready" | "available" | "complete" | "condition=ready" | "condition=available" | "condition=complete" => {
                return Ok(Self::Ready);
            }
            _ => {}
        }
        let text = text.strip_prefix("jsonpath=").unwrap_or(text);
        let Some((path, value)) = text.rsplit_once('=') else {
            let message =
                format!("--for {text:?}: write ready, deleted, phase=Running or FIELD=VALUE, as in status.ready=true");
            return Err(Failure::usage(message));
        };
        let path = path.trim_matches(|c| c == '{' || c == '}' || c == '\'').trim_start_matches('.');
        let path = match path {
            "phase" => "status.phase",
            path => path,
        };
        let path = parse_path(path).ok_or_else(|| Failure::usage(format!("--for: {path:?} is no path of a field")))?;
        Ok(Self::Field { path, value: value.to_owned() })
    }

    /// Whether it holds for an object, or for `None`: one that is not there.
    pub fn holds(&self, object: Option<&Object>) -> bool {
        match (self, object) {
            (Self::Deleted, object) => object.is_none(),
            (_, None) => false,
            (Self::Ready, Some(object)) => is_ready(object),
            (Self::Field { path, value }, Some(object)) => field(object, path).is_some_and(|found| found == *value),
        }
    }
}

fn parse_path(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        if name.is_empty() {
            return None;
        }
        steps.push(Step::Name(name.to_owned()));
        while !rest.is_empty() {
            let (index, more) = rest.strip_prefix('[')?.split_once(']')?;
            steps.push(Step::Index(index.parse().ok()?));
            rest = more;
        }
    }
    Some(steps)
}

/// The text of a field: strings as they are, the rest as JSON writes it.
fn field(object: &Object, path: &[Step]) -> Option<String> {
    let document = strata_proto::document::to_json(object).ok()?;
    let mut value = &document;
    for step in path {
        value = match step {
            Step::Name(name) => value.get(name)?,
            Step::Index(index) => value.get(index)?,
        };
    }
    Some(match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// Whether an object is what it should be. Kinds that do nothing are ready by being there.
pub fn is_ready(object: &Object) -> bool {
    let generation = object.meta.as_ref().map_or(0, |meta| meta.generation);
    match &object.kind {
        Some(object::Kind::Workload(workload)) => {
            let mode = workload.spec.as_ref().map_or(Mode::Replicated, |spec| spec.mode());
            workload.status.as_ref().is_some_and(|status| match mode {
                Mode::Job => status.finished.is_some() && status.reason == JOB_COMPLETE,
                Mode::Cron => status.observed_generation >= generation,
                Mode::Replicated | Mode::Global => workload_is_ready(status, generation),
            })
        }
        Some(object::Kind::Pod(pod)) => {
            pod.status.as_ref().is_some_and(|status| status.ready || status.phase() == Phase::Exited)
        }
        Some(object::Kind::Node(node)) => {
            node.status.as_ref().is_some_and(|status| status.phase() == node_status::Phase::Ready)
        }
        Some(_) => true,
        None => false,
    }
}

/// Whether every wanted pod is there, ready and of the newest revision, no other is left, and all that speaks of this generation.
pub fn workload_is_ready(status: &WorkloadStatus, generation: u64) -> bool {
    status.observed_generation >= generation
        && !rollout_has_failed(status, generation)
        && (status.rollout() == Rollout::Complete || status.history.len() < 2)
        && status.ready == status.desired
        && status.updated == status.desired
        && status.replicas == status.desired
}

/// Whether this generation's rollout has failed, and perhaps was taken back.
pub fn rollout_has_failed(status: &WorkloadStatus, generation: u64) -> bool {
    matches!(status.rollout(), Rollout::Failed | Rollout::Reverted) && status.failed_generation >= generation
}

/// Whether an object can never become ready, or not as it is: a pod or job that failed for good, a rollout that failed.
pub fn has_failed(object: &Object) -> bool {
    let generation = object.meta.as_ref().map_or(0, |meta| meta.generation);
    match &object.kind {
        Some(object::Kind::Pod(pod)) => {
            pod.status.as_ref().is_some_and(|status| matches!(status.phase(), Phase::Failed | Phase::Lost))
        }
        Some(object::Kind::Workload(workload)) => workload.status.as_ref().is_some_and(|status| {
            rollout_has_failed(status, generation) || (status.finished.is_some() && status.reason != JOB_COMPLETE)
        }),
        _ => false,
    }
}

/// Why an object is not ready, in one line; "" when it does not say.
pub fn reason_of(object: &Object) -> String {
    let (reason, message) = match &object.kind {
        Some(object::Kind::Workload(workload)) => {
            workload.status.as_ref().map_or(("", ""), |s| (s.reason.as_str(), s.message.as_str()))
        }
        Some(object::Kind::Pod(pod)) => {
            pod.status.as_ref().map_or(("", ""), |s| (s.reason.as_str(), s.message.as_str()))
        }
        Some(object::Kind::Node(node)) => {
            node.status.as_ref().map_or(("", ""), |s| (s.reason.as_str(), s.message.as_str()))
        }
        _ => ("", ""),
    };
    match (reason, message) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_proto::types::{ContainerStatus, Meta, Pod, PodStatus, Workload};

    fn pod(phase: Phase, restarts: u32) -> Object {
        let containers = vec![ContainerStatus { restarts, ..Default::default() }];
        let status =
            PodStatus { phase: phase.into(), containers, ready: phase == Phase::Running, ..Default::default() };
        Object { meta: Some(Meta::default()), kind: Some(object::Kind::Pod(Pod { spec: None, status: Some(status) })) }
    }

    #[test]
    fn fields_are_compared_by_their_text() {
        let running = pod(Phase::Running, 2);
        for (text, holds) in [
            ("phase=Running", true),
            ("phase=Pending", false),
            ("status.phase=Running", true),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath='{.status.phase}'=Running", true),
            ("status.containers[0].restarts=2", true),
            ("status.containers[1].restarts=2", false),
            ("status.ready=true", true),
            ("status.nothing=1", false),
            ("ready", true),
            ("condition=Ready", true),
            ("deleted", false),
        ] {
            assert_eq!(Condition::parse(text).unwrap().holds(Some(&running)), holds, "{text}");
        }
        assert!(Condition::parse("delete").unwrap().holds(None));
        assert!(!Condition::parse("ready").unwrap().holds(None));
        for text in ["", "running", "=x", "a..b=1", "a[x]=1", "a[0=1"] {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_workload_is_ready_only_when_nothing_old_is_left_and_the_status_is_of_this_generation() {
        let ready = WorkloadStatus {
            replicas: 3,
            ready: 3,
            updated: 3,
            desired: 3,
            observed_generation: 2,
            ..Default::default()
        };
        let is_ready_with = |change: fn(&mut WorkloadStatus)| {
            let mut status = ready.clone();
            change(&mut status);
            let meta = Meta { generation: 2, ..Default::default() };
            let workload = Workload { spec: None, status: Some(status) };
            is_ready(&Object { meta: Some(meta), kind: Some(object::Kind::Workload(workload)) })
        };
        assert!(is_ready_with(|_| {}));
        assert!(!is_ready_with(|s| s.observed_generation = 1));
        assert!(!is_ready_with(|s| s.ready = 2));
        assert!(!is_ready_with(|s| s.updated = 2));
        assert!(!is_ready_with(|s| s.replicas = 4));
        assert!(!is_ready_with(|s| (s.rollout, s.failed_generation) = (Rollout::Reverted.into(), 2)));
        assert!(is_ready_with(|s| s.failed_generation = 1));
        assert!(
            is_ready(&pod(Phase::Exited, 0)) && !is_ready(&pod(Phase::Failed, 0)) && has_failed(&pod(Phase::Failed, 0))
        );
    }
}
