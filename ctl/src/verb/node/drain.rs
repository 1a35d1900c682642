//! Emptying a node: the controller moves its pods, this says what is left and why.

use crate::{
    edit,
    exit::{Exit, Failure},
    observe::{World, until},
    output,
    progress::Progress,
    session::Session,
};
use std::{collections::BTreeMap, time::Duration};
use strata_client::{ErrorKind, Selection};
use strata_proto::types::{Kind, Object, Pod, PodStatus, WorkloadSpec, object, pod_status::Phase, workload_spec::Mode};
use tokio::time::{Instant, sleep};

/// How long all pods have to be stuck before it is given up: their replacements need a moment to be found nowhere to go.
const STUCK_FOR: Duration = Duration::from_secs(3);
/// How often the workloads are looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What goes beyond what is replaced elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Also {
    /// Pods of workloads with one pod per node.
    pub global: bool,
    /// Pods applied by hand.
    pub bare: bool,
}

/// How things stand with the pods of a node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Standing {
    /// On their way.
    moving: Vec<String>,
    /// Cannot move, with the reason.
    stuck: Vec<String>,
    /// To be removed because that was asked for: namespace, name.
    to_remove: Vec<(String, String)>,
}

pub async fn perform(session: &Session, node: &str, also: Also, timeout: Duration) -> Result<(), Failure> {
    edit::node(session, node, |spec| (spec.unschedulable, spec.draining) = (true, true)).await?;
    output::talk(&format!("node/{node} is closed for new pods; its pods are moved"));
    let deadline = Instant::now() + timeout;
    let mut progress = Progress::counting(node);
    let mut stuck_since: Option<Instant> = None;
    loop {
        let workloads = workloads(session).await?;
        // One look; changes of pods that matter come with the next.
        let now = until(session, Kind::Pod, "", deadline, |pods| Some(stand(node, pods, &workloads, also))).await?;
        let now = now.unwrap_or_default();
        for (namespace, name) in &now.to_remove {
            match session.client.delete(Kind::Pod, namespace, name, 0, false).await {
                Err(error) if error.kind != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        if now.moving.is_empty() && now.stuck.is_empty() && now.to_remove.is_empty() {
            drop(progress);
            return output::print(&format!("node/{node} drained\n"));
        }
        for line in &now.stuck {
            progress.say(line);
        }
        let only_stuck = now.moving.is_empty() && now.to_remove.is_empty();
        stuck_since = if only_stuck { stuck_since.or(Some(Instant::now())) } else { None };
        let hopeless = stuck_since.is_some_and(|since| since.elapsed() >= STUCK_FOR);
        if hopeless || Instant::now() >= deadline {
            drop(progress);
            return Err(given_up(node, &now, hopeless, timeout));
        }
        sleep(LOOK_EVERY.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

fn given_up(node: &str, now: &Standing, hopeless: bool, timeout: Duration) -> Failure {
    let left: Vec<&str> = now.stuck.iter().chain(&now.moving).map(String::as_str).collect();
    let left = left.join("\n  ");
    let (exit, what) = if hopeless {
        (Exit::Failed, "no pod that is left can move, and nothing was stopped that cannot be replaced".to_owned())
    } else {
        (Exit::TimedOut, format!("it was not empty within {} s", timeout.as_secs()))
    };
    let then = format!("the node stays closed and goes on draining: `ctl node uncordon {node}` opens it");
    Failure::new(exit, format!("node {node}: {what}:\n  {left}\n{then}"))
}

async fn workloads(session: &Session) -> Result<BTreeMap<(String, String), Object>, Failure> {
    let listing = session.client.list(Kind::Workload, &Selection::default()).await?;
    Ok(listing.objects.into_iter().map(|o| (crate::observe::key_of(&o), o)).collect())
}

/// What is left on the node. Pure.
fn stand(node: &str, pods: &World, workloads: &BTreeMap<(String, String), Object>, also: Also) -> Standing {
    let mut standing = Standing::default();
    for ((namespace, name), object) in pods {
        let Some(object::Kind::Pod(pod)) = &object.kind else { continue };
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        if spec.node != node || matches!(status.phase(), Phase::Exited | Phase::Failed | Phase::Lost) {
            continue;
        }
        let going = object.meta.as_ref().is_some_and(|m| m.deleted.is_some());
        let shown = format!("pod {namespace}/{name}");
        if going {
            standing.moving.push(format!("{shown} is stopping"));
            continue;
        }
        if spec.workload.is_empty() {
            if also.bare {
                standing.to_remove.push((namespace.clone(), name.clone()));
            } else {
                standing
                    .stuck
                    .push(format!("{shown} was applied by hand, so nothing replaces it (--force removes it)"));
            }
            continue;
        }
        let owner = workloads.get(&(namespace.clone(), spec.workload.clone())).and_then(workload_spec);
        let Some(owner) = owner else {
            standing.moving.push(format!("{shown} belongs to workload {}, which is going", spec.workload));
            continue;
        };
        match owner.mode() {
            Mode::Global if also.global => standing.to_remove.push((namespace.clone(), name.clone())),
            Mode::Global => {}
            Mode::Job | Mode::Cron => standing.moving.push(format!("{shown} is a job's: its end is waited for")),
            Mode::Replicated if owner.ordered && !owner.volume_templates.is_empty() => {
                standing.stuck.push(format!("{shown} has volumes of its own on this node"));
            }
            Mode::Replicated => match waits_for_place(pods, namespace, &spec.workload) {
                Some(why) => standing.stuck.push(format!("{shown} cannot move: {why}")),
                None => standing.moving.push(format!("{shown} is being replaced")),
            },
        }
    }
    standing
}

fn workload_spec(object: &Object) -> Option<&WorkloadSpec> {
    match &object.kind {
        Some(object::Kind::Workload(workload)) => workload.spec.as_ref(),
        _ => None,
    }
}

/// Why a new pod of the workload has no place.
fn waits_for_place(pods: &World, namespace: &str, workload: &str) -> Option<String> {
    let waiting = |pod: &Pod| -> Option<PodStatus> {
        let of_it = pod.spec.as_ref().is_some_and(|s| s.workload == workload);
        pod.status.clone().filter(|s| of_it && s.phase() == Phase::Pending && s.reason == "Unschedulable")
    };
    pods.iter().filter(|((of, _), _)| of == namespace).find_map(|((_, name), object)| match &object.kind {
        Some(object::Kind::Pod(pod)) => {
            waiting(pod).map(|s| format!("its replacement {name} fits nowhere: {}", s.message))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_proto::types::{Meta, PodSpec, Workload};

    fn pod(name: &str, node: &str, workload: &str, phase: Phase, reason: &str) -> ((String, String), Object) {
        let spec = PodSpec { node: node.into(), workload: workload.into(), ..Default::default() };
        let status =
            PodStatus { phase: phase.into(), reason: reason.into(), message: "full".into(), ..Default::default() };
        let meta = Meta { namespace: "default".into(), name: name.into(), ..Default::default() };
        let kind = Some(object::Kind::Pod(Pod { spec: Some(spec), status: Some(status) }));
        (("default".into(), name.into()), Object { meta: Some(meta), kind })
    }

    fn workload(name: &str, mode: Mode) -> ((String, String), Object) {
        let spec = WorkloadSpec { mode: mode.into(), ..Default::default() };
        let kind = Some(object::Kind::Workload(Workload { spec: Some(spec), status: None }));
        (("default".into(), name.into()), Object { meta: None, kind })
    }

    #[test]
    fn what_keeps_a_pod_where_it_is_is_said() {
        let workloads = BTreeMap::from([workload("web", Mode::Replicated), workload("every", Mode::Global)]);
        let here = [
            pod("web-0", "n1", "web", Phase::Running, ""),
            pod("every-0", "n1", "every", Phase::Running, ""),
            pod("hand", "n1", "", Phase::Running, ""),
            pod("old", "n1", "web", Phase::Exited, ""),
            pod("web-1", "n2", "web", Phase::Running, ""),
        ];
        let also = |global, bare| Also { global, bare };
        let standing = stand("n1", &here.clone().into(), &workloads, also(false, false));
        assert_eq!(standing.moving, ["pod default/web-0 is being replaced"]);
        assert_eq!(standing.stuck.len(), 1);
        let standing = stand("n1", &here.clone().into(), &workloads, also(true, true));
        assert_eq!(standing.to_remove.len(), 2);
        let mut pods: World = here.into();
        pods.extend([pod("web-2", "", "web", Phase::Pending, "Unschedulable")]);
        let standing = stand("n1", &pods, &workloads, also(false, true));
        assert!(standing.moving.is_empty() && standing.stuck[0].contains("web-2 fits nowhere: full"), "{standing:?}");
    }
}
