//! Signals to a container's first process, and restarts of containers in place.

use super::NodeApi;
use std::time::Duration;
use strata_model::{ContainerName, Desired, Uid, signal::RTMAX};
use strata_proto::{
    node::{RestartRequest, RestartResponse, SignalRequest, SignalResponse},
    types::{ContainerStatus, PodStatus, container_status::State, pod_status::Phase},
};
use tonic::Status;

/// How long a restart may take beyond its grace: kill, start, and a node that is busy.
const RESTART_PATIENCE: Duration = Duration::from_secs(60);
/// The longest grace of a restart, seconds.
const GRACE_MAX_S: u32 = 3600;

impl NodeApi {
    pub(super) async fn signal_containers(&self, request: SignalRequest) -> Result<SignalResponse, Status> {
        let (uid, containers) = self.containers(&request.pod_uid, &request.container)?;
        let number = i32::try_from(request.signal).ok().filter(|n| (1..=RTMAX).contains(n));
        let number = number.ok_or_else(|| {
            Status::invalid_argument(format!("{} is no signal: they are numbered 1 to {RTMAX}", request.signal))
        })?;
        let running: Vec<&ContainerStatus> = containers.iter().filter(|c| c.state() == State::Running).collect();
        let none = || Status::failed_precondition(format!("no container of pod {uid} runs: there is nobody to signal"));
        if running.is_empty() {
            return Err(none());
        }
        let shim = self.node.shim(&uid).ok_or_else(none)?;
        for container in running {
            let sent = shim.signal(&container.name, number).await;
            sent.map_err(|e| {
                Status::failed_precondition(format!("sending signal {number} to container {}: {e}", container.name))
            })?;
        }
        Ok(SignalResponse {})
    }

    /// Returns when every container has been started again.
    pub(super) async fn restart_containers(&self, request: RestartRequest) -> Result<RestartResponse, Status> {
        let _permit = self.begin()?;
        let (uid, containers) = self.containers(&request.pod_uid, &request.container)?;
        let wanted = self.pods.assignment(uid.as_str()).map(|a| Desired::from(a.desired()));
        if wanted != Some(Desired::Run) {
            return Err(Status::failed_precondition(format!("pod {uid} is stopped, or on its way out")));
        }
        let grace_s = request.grace_s.min(GRACE_MAX_S);
        let names = containers.iter().map(|c| ContainerName::from_trusted(c.name.clone())).collect();
        let board = self.pods.board();
        let mut changes = board.changes();
        if !self.pods.ask_restart(&uid, names, u64::from(grace_s) * 1000).await {
            return Err(Status::unavailable(format!("pod {uid} takes no requests now: try again")));
        }
        let within = Duration::from_secs(grace_s.into()) + RESTART_PATIENCE;
        let all = async {
            loop {
                let status = board.get(uid.as_str()).and_then(|r| if r.gone { None } else { r.status });
                let status = status.ok_or_else(|| Status::aborted(format!("pod {uid} was removed meanwhile")))?;
                if let Some(end) = outcome(&status, &containers) {
                    return end.map(|()| RestartResponse {});
                }
                if changes.changed().await.is_err() {
                    return Err(Status::cancelled("the agent stops"));
                }
            }
        };
        tokio::time::timeout(within, all).await.unwrap_or_else(|_| {
            let seconds = within.as_secs();
            Err(Status::deadline_exceeded(format!(
                "the containers of pod {uid} did not start again within {seconds} s"
            )))
        })
    }

    /// The container of this name, "" for all, of a pod that has a sandbox.
    fn containers(&self, uid: &str, container: &str) -> Result<(Uid, Vec<ContainerStatus>), Status> {
        let status = self.pods.board().get(uid).and_then(|r| r.status);
        let mut status = status.ok_or_else(|| Status::not_found(format!("pod {uid} is not on this node")))?;
        if !matches!(status.phase(), Phase::Starting | Phase::Running | Phase::Stopping) {
            let phase = strata_model::Phase::from(status.phase()).word();
            return Err(Status::failed_precondition(format!("pod {uid} is {phase}: nothing runs in it")));
        }
        if !container.is_empty() {
            status.containers.retain(|c| c.name == container);
        }
        if status.containers.is_empty() {
            return Err(Status::not_found(format!("pod {uid} has no container {container:?}")));
        }
        Ok((Uid::from_trusted(uid), status.containers))
    }
}

/// Whether all of these have been started again since `before`; an error if one could not be.
fn outcome(now: &PodStatus, before: &[ContainerStatus]) -> Option<Result<(), Status>> {
    if strata_model::Phase::from(now.phase()).is_ended() || now.phase() == Phase::Stopping {
        return Some(Err(Status::aborted("the pod was stopped meanwhile")));
    }
    for old in before {
        let new = now.containers.iter().find(|c| c.name == old.name)?;
        // The first start of a container that had not begun is no restart.
        let again = new.restarts > old.restarts || (old.started.is_none() && new.started.is_some());
        if !again {
            return None;
        }
        if new.reason == "StartError" {
            return Some(Err(Status::failed_precondition(format!("container {}: {}", new.name, new.message))));
        }
    }
    Some(Ok(()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn container(restarts: u32, reason: &str) -> ContainerStatus {
        let started = Some(strata_proto::timestamp_of_ms(1));
        ContainerStatus { name: "c".into(), restarts, reason: reason.into(), started, ..Default::default() }
    }

    #[test]
    fn a_restart_is_over_when_each_has_started_again_or_cannot() {
        let status = |phase: Phase, c: ContainerStatus| PodStatus {
            phase: phase.into(),
            containers: vec![c],
            ..Default::default()
        };
        let before = [container(2, "")];
        assert!(outcome(&status(Phase::Running, container(2, "")), &before).is_none());
        assert!(outcome(&status(Phase::Running, container(3, "")), &before).unwrap().is_ok());
        assert!(outcome(&status(Phase::Running, container(3, "StartError")), &before).unwrap().is_err());
        assert!(outcome(&status(Phase::Stopping, container(2, "")), &before).unwrap().is_err());
    }
}
