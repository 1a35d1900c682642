//! Waiting until applied objects are ready.

use crate::{
    condition,
    exit::{Exit, Failure},
    kind::{namespace_for, word_of},
    observe::{key_of, until},
    output::name_line,
    progress::Progress,
    session::Session,
};
use std::time::Duration;
use strata_proto::types::{Kind, Object, object};
use tokio::time::Instant;

/// How the wait for one object ends before its deadline.
enum End {
    Ready,
    Gone,
    Failed(String),
}

/// Waits until every object is ready at the generation it was applied with. Reasons are said as they change.
pub async fn wait_ready(session: &Session, applied: &[Object], timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    for object in applied.iter().filter(|object| matches!(object.kind_of(), Kind::Workload | Kind::Pod | Kind::Node)) {
        wait_one(session, object, deadline, timeout).await?;
    }
    Ok(())
}

/// Waits until the rollout of a workload is complete; answers the workload as it is then.
pub async fn wait_complete(session: &Session, workload: &Object, timeout: Duration) -> Result<Object, Failure> {
    wait_one(session, workload, Instant::now() + timeout, timeout).await?;
    let (namespace, name) = key_of(workload);
    Ok(session.client.get(Kind::Workload, &namespace, &name).await?)
}

async fn wait_one(session: &Session, applied: &Object, deadline: Instant, timeout: Duration) -> Result<(), Failure> {
    let kind = applied.kind_of();
    let key = key_of(applied);
    let generation = applied.meta.as_ref().map_or(0, |meta| meta.generation);
    let name = name_line(applied);
    let mut progress = Progress::counting(&name);
    let mut last_reason = String::new();
    let found = until(session, kind, namespace_for(kind, &key.0), deadline, |world| {
        let Some(now) = world.get(&key) else { return Some(End::Gone) };
        if now.meta.as_ref().map_or(0, |meta| meta.generation) >= generation && condition::is_ready(now) {
            return Some(End::Ready);
        }
        last_reason = condition::reason_of(now);
        if condition::has_failed(now) {
            return Some(End::Failed(last_reason.clone()));
        }
        show(&progress, now);
        if !last_reason.is_empty() {
            progress.say(&format!("{name}: waiting: {last_reason}"));
        }
        None
    });
    let found = found.await?;
    drop(progress);
    match found {
        Some(End::Ready) => Ok(()),
        Some(End::Gone) => Err(Failure::new(Exit::NotFound, format!("{name} was deleted while it was waited for"))),
        Some(End::Failed(reason)) => Err(Failure::failed(format!(
            "{name} failed: {}; see `ctl describe {} {}`",
            or_no_reason(&reason),
            word_of(kind),
            key.1
        ))),
        None => {
            let message = format!(
                "{name} was not ready within {} s: {}; see `ctl describe {} {}`",
                timeout.as_secs(),
                or_no_reason(&last_reason),
                word_of(kind),
                key.1
            );
            Err(Failure::new(Exit::TimedOut, message))
        }
    }
}

fn or_no_reason(reason: &str) -> &str {
    if reason.is_empty() { "it gives no reason" } else { reason }
}

fn show(progress: &Progress, object: &Object) {
    match &object.kind {
        Some(object::Kind::Workload(workload)) => {
            let status = workload.status.clone().unwrap_or_default();
            progress.set(status.ready.min(status.updated).into(), status.desired.into());
            progress.note(&status.reason);
        }
        Some(object::Kind::Pod(pod)) => {
            let status = pod.status.clone().unwrap_or_default();
            let ready = status.containers.iter().filter(|container| container.ready).count();
            progress.set(ready as u64, status.containers.len().max(1) as u64);
            progress.note(status.phase().as_str_name());
        }
        _ => {}
    }
}
