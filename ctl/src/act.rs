//! What stop, start, restart and kill have in common: finding what is meant, and waiting until it is so.

use crate::{
    condition,
    exit::{Exit, Failure},
    kind::{parse_kind, word_of},
    observe::until,
    output,
    progress::Progress,
    session::Session,
};
use std::time::Duration;
use strata_client::{Act, ErrorKind};
use strata_model::REASON_STOPPED;
use strata_proto::types::{Kind, Object, Pod, PodStatus, object, pod_spec::Desired, pod_status::Phase};
use tokio::time::Instant;

/// What `web-3`, `pod/web-3` or `workload/web` means. A bare name is a pod's, else a workload's.
pub async fn target(session: &Session, text: &str) -> Result<(Kind, String), Failure> {
    if let Some((kind, name)) = text.split_once('/') {
        return match parse_kind(kind).map_err(Failure::usage)? {
            kind @ (Kind::Pod | Kind::Workload) => Ok((kind, name.to_owned())),
            kind => Err(Failure::usage(format!("{text:?}: a pod or a workload is wanted, not a {}", word_of(kind)))),
        };
    }
    match session.client.get(Kind::Pod, &session.namespace, text).await {
        Ok(_) => return Ok((Kind::Pod, text.to_owned())),
        Err(error) if error.kind == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    match session.client.get(Kind::Workload, &session.namespace, text).await {
        Ok(_) => Ok((Kind::Workload, text.to_owned())),
        Err(error) if error.kind == ErrorKind::NotFound => {
            let message = format!("namespace {} has neither a pod nor a workload {text}", session.namespace);
            Err(Failure::new(Exit::NotFound, message))
        }
        Err(error) => Err(error.into()),
    }
}

/// Does it to each target and says what was done to which pods; the names of these pods.
pub async fn perform(session: &Session, targets: &[String], act: &Act, done: &str) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for text in targets {
        let (kind, name) = target(session, text).await?;
        let pods = session.client.act(kind, &session.namespace, &name, act.clone()).await?;
        let number = if kind == Kind::Workload { format!(" ({} pods)", pods.len()) } else { String::new() };
        output::print(&format!("{}/{name} {done}{number}\n", word_of(kind)))?;
        all.extend(pods);
    }
    Ok(all)
}

/// Waits until each of these pods is as wanted, or gone.
pub async fn wait(
    session: &Session,
    pods: &[String],
    wanted: &str,
    timeout: Duration,
    is_so: impl Fn(Desired, &PodStatus) -> bool,
) -> Result<(), Failure> {
    let mut progress = Progress::counting(wanted);
    let mut left: Vec<String> = pods.to_vec();
    let total = pods.len() as u64;
    let mut why = String::new();
    let found = until(session, Kind::Pod, &session.namespace, Instant::now() + timeout, |world| {
        left.retain(|name| match world.get(&(session.namespace.clone(), name.clone())) {
            Some(Object { kind: Some(object::Kind::Pod(Pod { spec, status })), .. }) => {
                let desired = spec.as_ref().map_or(Desired::Run, |s| s.desired());
                !is_so(desired, &status.clone().unwrap_or_default())
            }
            _ => false,
        });
        progress.set(total - left.len() as u64, total);
        let first = left.first().and_then(|name| world.get(&(session.namespace.clone(), name.clone())));
        why = first.map(condition::reason_of).unwrap_or_default();
        if let Some(name) = left.first().filter(|_| !why.is_empty()) {
            progress.say(&format!("pod/{name}: {why}"));
        }
        left.is_empty().then_some(())
    })
    .await?;
    drop(progress);
    found.ok_or_else(|| {
        let seconds = timeout.as_secs();
        let message = format!("not {wanted} within {seconds} s: {} {why}", left.join(", "));
        Failure::new(Exit::TimedOut, message.trim_end().to_owned())
    })
}

/// Whether a pod that is to be stopped is.
pub fn is_stopped(_: Desired, status: &PodStatus) -> bool {
    matches!(status.phase(), Phase::Exited | Phase::Failed | Phase::Lost)
}

/// Whether a pod that is to run does, or has ended since by itself.
pub fn is_running(_: Desired, status: &PodStatus) -> bool {
    let ended = matches!(status.phase(), Phase::Exited | Phase::Failed | Phase::Lost);
    status.phase() == Phase::Running || (ended && status.reason != REASON_STOPPED)
}
