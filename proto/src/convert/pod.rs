//! Pods and their status.

use super::{BadObject, timestamp_ms, timestamp_of_ms};
use crate::types as wire;
use strata_model::{
    ContainerName, ContainerState, ContainerStatus, Desired, Exit, NodeName, ObjectName, Phase, Pod, PodStatus,
    REASON_STOPPED, RevisionName, Uid,
};
use wire::{container_status::State, pod_spec, pod_status};

impl From<pod_status::Phase> for Phase {
    fn from(p: pod_status::Phase) -> Self {
        match p {
            pod_status::Phase::Pending => Self::Pending,
            pod_status::Phase::Assigned => Self::Assigned,
            pod_status::Phase::Preparing => Self::Preparing,
            pod_status::Phase::Starting => Self::Starting,
            pod_status::Phase::Running => Self::Running,
            pod_status::Phase::Stopping => Self::Stopping,
            pod_status::Phase::Exited => Self::Exited,
            pod_status::Phase::Failed => Self::Failed,
            pod_status::Phase::Lost => Self::Lost,
        }
    }
}

impl From<Phase> for pod_status::Phase {
    fn from(p: Phase) -> Self {
        match p {
            Phase::Pending => Self::Pending,
            Phase::Assigned => Self::Assigned,
            Phase::Preparing => Self::Preparing,
            Phase::Starting => Self::Starting,
            Phase::Running => Self::Running,
            Phase::Stopping => Self::Stopping,
            Phase::Exited => Self::Exited,
            Phase::Failed => Self::Failed,
            Phase::Lost => Self::Lost,
        }
    }
}

impl From<pod_spec::Desired> for Desired {
    fn from(d: pod_spec::Desired) -> Self {
        match d {
            pod_spec::Desired::Run => Self::Run,
            pod_spec::Desired::Stopped => Self::Stopped,
            pod_spec::Desired::Removed => Self::Removed,
        }
    }
}

impl From<Desired> for pod_spec::Desired {
    fn from(d: Desired) -> Self {
        match d {
            Desired::Run => Self::Run,
            Desired::Stopped => Self::Stopped,
            Desired::Removed => Self::Removed,
        }
    }
}

/// A pod from its envelope.
impl TryFrom<&wire::Object> for Pod {
    type Error = BadObject;

    fn try_from(object: &wire::Object) -> Result<Self, BadObject> {
        let meta = object.meta.as_ref().ok_or_else(|| BadObject::new("meta", "is missing"))?;
        let Some(wire::object::Kind::Pod(pod)) = &object.kind else {
            return Err(BadObject::new("kind", "a Pod is expected"));
        };
        meta.check(true)?;
        let spec = pod.spec.as_ref().ok_or_else(|| BadObject::new("spec", "is missing"))?;
        let status = pod.status.as_ref();
        Ok(Self {
            uid: Uid::from_trusted(meta.uid.clone()),
            name: ObjectName::new(meta.namespace.clone(), meta.name.clone()),
            workload: spec.workload.clone(),
            ordinal: spec.ordinal,
            template: RevisionName::from_trusted(spec.template_revision.clone()),
            node: NodeName::from_trusted(spec.node.clone()),
            address_index: spec.address_index,
            desired: if meta.deleted.is_some() { Desired::Removed } else { spec.desired().into() },
            phase: status.map_or(Phase::Pending, |s| {
                // A stop on request is no end: the node keeps the pod, and begins a new attempt once it is to run again.
                let starts_again = s.reason == REASON_STOPPED && spec.desired() == pod_spec::Desired::Run;
                if starts_again { Phase::Assigned } else { s.phase().into() }
            }),
            ready: status.is_some_and(|s| s.ready),
            ready_since: timestamp_ms(status.and_then(|s| s.ready_since.as_ref())),
            restarts: status.map_or(0, |s| s.containers.iter().map(|c| c.restarts).sum()),
            reason: status.map(|s| s.reason.clone()).unwrap_or_default(),
            message: status.map(|s| s.message.clone()).unwrap_or_default(),
            created: timestamp_ms(meta.created.as_ref()),
        })
    }
}

impl From<&ContainerStatus> for wire::ContainerStatus {
    fn from(c: &ContainerStatus) -> Self {
        let state = match c.state {
            ContainerState::Waiting => State::Waiting,
            ContainerState::Running => State::Running,
            ContainerState::Exited => State::Exited,
        };
        Self {
            name: c.name.to_string(),
            state: state.into(),
            ready: c.ready,
            restarts: c.restarts,
            exit_code: c.last_exit.as_ref().map_or(0, |e| e.code),
            reason: c.reason.clone(),
            last_exit: c.last_exit.as_ref().map(|e| wire::LastExit {
                exit_code: e.code,
                reason: e.reason.clone(),
                finished: (e.finished_unix_ms > 0).then(|| timestamp_of_ms(e.finished_unix_ms)),
            }),
            image: String::new(),
            image_digest: String::new(),
            pid: c.pid,
            message: c.message.clone(),
            started: (c.started_unix_ms > 0).then(|| timestamp_of_ms(c.started_unix_ms)),
        }
    }
}

impl From<&wire::ContainerStatus> for ContainerStatus {
    fn from(c: &wire::ContainerStatus) -> Self {
        Self {
            name: ContainerName::from_trusted(c.name.clone()),
            state: match c.state() {
                State::Waiting => ContainerState::Waiting,
                State::Running => ContainerState::Running,
                State::Exited => ContainerState::Exited,
            },
            ready: c.ready,
            restarts: c.restarts,
            reason: c.reason.clone(),
            message: c.message.clone(),
            last_exit: c.last_exit.as_ref().map(|e| Exit {
                code: e.exit_code,
                reason: e.reason.clone(),
                message: String::new(),
                finished_unix_ms: timestamp_ms(e.finished.as_ref()),
            }),
            pid: c.pid,
            started_unix_ms: timestamp_ms(c.started.as_ref()),
        }
    }
}

/// Node and addresses are the controller's and the agent's to add.
impl From<&PodStatus> for wire::PodStatus {
    fn from(s: &PodStatus) -> Self {
        Self {
            phase: pod_status::Phase::from(s.phase).into(),
            ready: s.ready,
            reason: s.reason.clone(),
            message: s.message.clone(),
            attempt: s.attempt,
            containers: s.containers.iter().map(wire::ContainerStatus::from).collect(),
            ..Self::default()
        }
    }
}

impl From<&wire::PodStatus> for PodStatus {
    fn from(s: &wire::PodStatus) -> Self {
        Self {
            phase: s.phase().into(),
            ready: s.ready,
            reason: s.reason.clone(),
            message: s.message.clone(),
            attempt: s.attempt,
            containers: s.containers.iter().map(ContainerStatus::from).collect(),
        }
    }
}
