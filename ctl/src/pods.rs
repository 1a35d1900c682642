//! From what people write where a pod is wanted to one pod.

use crate::{
    exit::{Exit, Failure},
    kind::{parse_kind, word_of},
    session::Session,
};
use strata_client::Selection;
use strata_proto::types::{Kind, Object, Pod, object, pod_status::Phase};

/// The pod that `web-3`, `pod/web-3` or `workload/web` (any running one) means: its name.
pub async fn resolve(session: &Session, text: &str) -> Result<String, Failure> {
    let Some((kind, name)) = text.split_once('/') else { return Ok(text.to_owned()) };
    match parse_kind(kind).map_err(Failure::usage)? {
        Kind::Pod => Ok(name.to_owned()),
        Kind::Workload => {
            // A workload that is not there and one without pods are different answers.
            session.client.get(Kind::Workload, &session.namespace, name).await?;
            let selection = Selection { namespace: session.namespace.clone(), ..Default::default() };
            let listing = session.client.list(Kind::Pod, &selection).await?;
            choose(&listing.objects, name).ok_or_else(|| {
                let message = format!(
                    "workload {}/{name} has no running pod: see `ctl describe workload {name}`",
                    session.namespace
                );
                Failure::new(Exit::NotFound, message)
            })
        }
        kind => Err(Failure::usage(format!("{text:?}: a pod or a workload is wanted, not a {}", word_of(kind)))),
    }
}

/// The best of a workload's pods: running, ready before not ready, the lowest ordinal.
fn choose(pods: &[Object], workload: &str) -> Option<String> {
    let candidates = pods.iter().filter_map(|object| match (&object.kind, &object.meta) {
        (Some(object::Kind::Pod(Pod { spec: Some(spec), status: Some(status) })), Some(meta)) => {
            let fits = spec.workload == workload && status.phase() == Phase::Running;
            fits.then_some(((!status.ready, spec.ordinal), meta.name.clone()))
        }
        _ => None,
    });
    candidates.min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_proto::types::{Meta, PodSpec, PodStatus};

    #[test]
    fn the_first_running_and_ready_pod_is_chosen() {
        let pod = |ordinal: u64, workload: &str, phase: Phase, ready: bool| Object {
            meta: Some(Meta { name: format!("{workload}-{ordinal}"), ..Default::default() }),
            kind: Some(object::Kind::Pod(Pod {
                spec: Some(PodSpec { workload: workload.into(), ordinal, ..Default::default() }),
                status: Some(PodStatus { phase: phase.into(), ready, ..Default::default() }),
            })),
        };
        let pods = [
            pod(1, "web", Phase::Pending, false),
            pod(2, "web", Phase::Running, false),
            pod(10, "web", Phase::Running, true),
            pod(9, "web", Phase::Running, true),
            pod(0, "api", Phase::Running, true),
        ];
        assert_eq!(choose(&pods, "web").as_deref(), Some("web-9"));
        assert_eq!(choose(&pods[..2], "web").as_deref(), Some("web-2"));
        assert_eq!(choose(&pods[..1], "web"), None);
    }
}
