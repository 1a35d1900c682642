//! Stop, start, restart and signal: what people do to pods by hand.
//!
//! A stop is desired state and survives everything: `desired` of a pod, `stopped` of a workload with `desired` of its pods. Node, address and
//! writable layer stay. Restarts and signals happen now or not at all: they go to the nodes, in place.

use super::{ApiState, Refusal, StoreErrorOrTimeout, limits, node_clients::NodeApi, validate};
use crate::objects::{is_ended, meta, pod_spec, pod_spec_mut, pod_status, template_key, template_spec};
use futures::{StreamExt as _, stream};
use std::{sync::Arc, time::Duration};
use strata_model::{Phase, signal::RTMAX};
use strata_proto::{
    cluster::{ActRequest, ActResponse, act_request::Action},
    node::{RestartRequest, SignalRequest},
    types::{Kind, Object, object, pod_spec::Desired, workload_spec::Mode},
};
use strata_store::{Change, Condition, Key, Snapshot, StoreError};
use tonic::{Code, Status};

/// Pods that are stopped or started with one commit.
const PODS_PER_COMMIT: usize = 500;
/// The longest grace that may be asked for, seconds.
const GRACE_MAX_S: u32 = 3600;
/// How much longer than its grace a restart may take.
const RESTART_PATIENCE: Duration = Duration::from_secs(70);

/// Does it; the answer names the pods it was done to.
pub(super) async fn act(state: &ApiState, request: ActRequest) -> Result<ActResponse, Status> {
    let action = Action::try_from(request.action).map_err(|_| Refusal::invalid("action: is not known here"))?;
    let key = validate::key(request.kind, &request.namespace, &request.name)?;
    if !matches!(key.kind, Kind::Pod | Kind::Workload) {
        return Err(
            Refusal::invalid("kind: only pods and workloads can be stopped, started, restarted and signalled").into()
        );
    }
    if request.grace_s.is_some_and(|g| g > GRACE_MAX_S) {
        return Err(Refusal::invalid(format!("grace_s: at most {GRACE_MAX_S} seconds")).into());
    }
    let pods = match action {
        Action::Stop => set_desired(state, &key, Desired::Stopped, request.grace_s).await?,
        Action::Start => set_desired(state, &key, Desired::Run, None).await?,
        Action::Restart => restart(state, &key, &request).await?,
        Action::Signal => {
            if !(1..=RTMAX.unsigned_abs()).contains(&request.signal) {
                return Err(Refusal::invalid(format!("signal: a number from 1 to {RTMAX}")).into());
            }
            let pods = running(&state.store.snapshot(), &key)?;
            each(state, &pods, |api, uid| signal(api, uid, &request)).await?
        }
    };
    Ok(ActResponse { pods })
}

/// Stops or starts a pod, or a workload with all its pods.
async fn set_desired(
    state: &ApiState,
    key: &Key,
    desired: Desired,
    grace_s: Option<u32>,
) -> Result<Vec<String>, Refusal> {
    for _ in 0..limits::RETRIES {
        let snapshot = state.store.snapshot();
        let object = found(&snapshot, key)?;
        let (mut changes, pods) = match key.kind {
            Kind::Workload => (stopped_workload(&object, desired)?, pods_of(&snapshot, key)),
            _ => {
                let pod = pod_to_set(&snapshot, key, object, desired)?;
                (Vec::new(), vec![pod])
            }
        };
        let told: Vec<&Arc<Object>> = pods.iter().filter(|p| !is_over(p)).collect();
        let names = told.iter().map(|p| meta(p).name.clone()).collect();
        changes.extend(told.iter().filter_map(|p| desired_pod(p, desired, grace_s)));
        match commit_in_parts(state, changes).await {
            Ok(()) => return Ok(names),
            Err(StoreErrorOrTimeout::Store(StoreError::Conflict { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::conflict(format!("{key} was changed by others {} times meanwhile: try again", limits::RETRIES)))
}

/// What an apply that ends the stop of a workload does to its pods; it goes into the same commit, so it is bounded.
pub(super) fn started(snapshot: &Snapshot, before: &Object, after: &Object) -> Vec<Change> {
    let stopped =
        |o: &Object| matches!(&o.kind, Some(object::Kind::Workload(w)) if w.spec.as_ref().is_some_and(|s| s.stopped));
    if !stopped(before) || stopped(after) {
        return Vec::new();
    }
    let pods = pods_of(snapshot, &Key::of(after));
    pods.iter()
        .filter(|p| !is_over(p))
        .take(PODS_PER_COMMIT)
        .filter_map(|p| desired_pod(p, Desired::Run, None))
        .collect()
}

/// The workload first: should the rest not be made, its loop stops what runs, and a start can be repeated.
async fn commit_in_parts(state: &ApiState, changes: Vec<Change>) -> Result<(), StoreErrorOrTimeout> {
    for part in changes.chunks(PODS_PER_COMMIT) {
        state.commit(part.to_vec()).await?;
    }
    Ok(())
}

fn found(snapshot: &Snapshot, key: &Key) -> Result<Arc<Object>, Refusal> {
    let object = snapshot.get(key).ok_or_else(|| Refusal::not_found(key))?;
    if meta(&object).deleted.is_some() {
        return Err(Refusal::precondition("BeingDeleted", format!("{key} is being deleted")));
    }
    Ok(object)
}

fn stopped_workload(object: &Object, desired: Desired) -> Result<Vec<Change>, Refusal> {
    let mut object = object.clone();
    let condition = Condition::Revision(meta(&object).revision);
    let Some(object::Kind::Workload(workload)) = &mut object.kind else { return Ok(Vec::new()) };
    let spec = workload.spec.get_or_insert_default();
    if spec.mode() == Mode::Cron {
        let message = "a Cron workload has no pods of its own: set spec.cron.suspend, or act on its jobs";
        return Err(Refusal::precondition("Cron", message));
    }
    let stopped = desired == Desired::Stopped;
    if spec.stopped == stopped {
        return Ok(Vec::new());
    }
    spec.stopped = stopped;
    if let Some(meta) = &mut object.meta {
        meta.generation += 1;
    }
    Ok(vec![Change::put(object, condition)])
}

/// A pod that is to be stopped or started by itself.
fn pod_to_set(snapshot: &Snapshot, key: &Key, pod: Arc<Object>, desired: Desired) -> Result<Arc<Object>, Refusal> {
    if desired == Desired::Stopped {
        return Ok(pod);
    }
    let workload = &pod_spec(&pod).workload;
    if is_stopped(snapshot, &key.namespace, workload) {
        let message = format!(
            "{key} belongs to workload {workload}, which is stopped: start that (`ctl start workload/{workload}`)"
        );
        return Err(Refusal::precondition("WorkloadStopped", message));
    }
    if is_over(&pod) {
        let phase = Phase::from(pod_status(&pod).phase()).word();
        let message =
            format!("{key} has ended by itself ({phase}) and does not start again: delete it and apply it anew");
        return Err(Refusal::precondition("PodEnded", message));
    }
    Ok(pod)
}

fn is_stopped(snapshot: &Snapshot, namespace: &str, workload: &str) -> bool {
    let object = snapshot.get(&Key::new(Kind::Workload, namespace, workload));
    object.is_some_and(
        |o| matches!(&o.kind, Some(object::Kind::Workload(w)) if w.spec.as_ref().is_some_and(|s| s.stopped)),
    )
}

fn is_over(pod: &Object) -> bool {
    is_ended(pod_status(pod)) || meta(pod).deleted.is_some()
}

fn pods_of(snapshot: &Snapshot, key: &Key) -> Vec<Arc<Object>> {
    match key.kind {
        Kind::Workload => snapshot.pods_of_workload(&key.namespace, &key.name).collect(),
        _ => snapshot.get(key).into_iter().collect(),
    }
}

/// The change that stops or starts a pod; `None` if that is what is desired already.
pub(crate) fn desired_pod(pod: &Object, desired: Desired, grace_s: Option<u32>) -> Option<Change> {
    let condition = Condition::Revision(meta(pod).revision);
    let mut pod = pod.clone();
    let spec = pod_spec_mut(&mut pod)?;
    if spec.desired() == desired && spec.grace_s == grace_s {
        return None;
    }
    spec.set_desired(desired);
    spec.grace_s = grace_s;
    if let Some(meta) = &mut pod.meta {
        meta.generation += 1;
    }
    Some(Change::put(pod, condition))
}

/// The pods in which something runs; an error if there is none.
fn running(snapshot: &Snapshot, key: &Key) -> Result<Vec<Arc<Object>>, Refusal> {
    found(snapshot, key)?;
    let runs = |p: &Arc<Object>| {
        matches!(Phase::from(pod_status(p).phase()), Phase::Starting | Phase::Running | Phase::Stopping)
    };
    let pods: Vec<_> = pods_of(snapshot, key).into_iter().filter(runs).collect();
    if pods.is_empty() {
        return Err(Refusal::precondition("NotRunning", format!("{key}: nothing of it runs now")));
    }
    Ok(pods)
}

/// Restarts what runs in place; what was stopped is started.
async fn restart(state: &ApiState, key: &Key, request: &ActRequest) -> Result<Vec<String>, Status> {
    let snapshot = state.store.snapshot();
    let object = found(&snapshot, key)?;
    let was_stopped = match key.kind {
        Kind::Workload => is_stopped(&snapshot, &key.namespace, &key.name),
        _ => pod_spec(&object).desired() == Desired::Stopped,
    };
    if was_stopped {
        return Ok(set_desired(state, key, Desired::Run, None).await?);
    }
    let mut pods = running(&snapshot, key)?;
    pods.retain(|p| pod_spec(p).desired() == Desired::Run);
    let pods = pods;
    each(state, &pods, |api, uid| {
        let pod = pods.iter().find(|p| meta(p).uid == uid);
        let grace_s = request.grace_s.or_else(|| template_grace_s(&snapshot, pod?));
        let grace_s = grace_s.unwrap_or(strata_model::limits::TERMINATION_GRACE_DEFAULT_S);
        let container = request.container.clone();
        async move {
            let mut client = api.client.clone();
            let request = RestartRequest { pod_uid: uid, container, grace_s };
            let within = Duration::from_secs(grace_s.into()) + RESTART_PATIENCE;
            api.answer(within, client.restart(request)).await.map(drop)
        }
    })
    .await
}

fn template_grace_s(snapshot: &Snapshot, pod: &Object) -> Option<u32> {
    let template = snapshot.get(&template_key(&pod_spec(pod).template_revision))?;
    template_spec(&template)?.pod.as_ref()?.termination_grace_s
}

fn signal(api: NodeApi, uid: String, request: &ActRequest) -> impl Future<Output = Result<(), Status>> + use<> {
    let request = SignalRequest { pod_uid: uid, container: request.container.clone(), signal: request.signal };
    async move {
        let mut client = api.client.clone();
        api.answer(limits::NODE_ANSWER_TIMEOUT, client.signal(request)).await.map(drop)
    }
}

/// Makes a call to the node of each pod, some at a time; the names of the pods, or what went wrong with which.
async fn each<F: Future<Output = Result<(), Status>>>(
    state: &ApiState,
    pods: &[Arc<Object>],
    call: impl Fn(NodeApi, String) -> F,
) -> Result<Vec<String>, Status> {
    let (snapshot, call) = (&state.store.snapshot(), &call);
    let outcomes: Vec<(String, Result<(), Status>)> = stream::iter(pods.to_vec())
        .map(|pod| async move {
            let uid = meta(&pod).uid.clone();
            let done = async { call(state.nodes.of(snapshot, &pod_spec(&pod).node).await?, uid).await };
            let done = done.await;
            (meta(&pod).name.clone(), done)
        })
        .buffered(limits::NODES_AT_ONCE)
        .collect()
        .await;
    let mut failed = outcomes.iter().filter_map(|(name, result)| result.as_ref().err().map(|s| (name, s)));
    let Some((name, first)) = failed.next() else {
        return Ok(outcomes.into_iter().map(|(name, _)| name).collect());
    };
    if pods.len() == 1 {
        return Err(first.clone());
    }
    let mut message = format!("{name}: {}", first.message());
    for (name, status) in failed {
        message = format!("{message}; {name}: {}", status.message());
    }
    let code = if first.code() == Code::Ok { Code::Unknown } else { first.code() };
    Err(Status::with_metadata(code, message, first.metadata().clone()))
}
