//! Delete: workloads and pods are marked and their owners finish it; everything else goes at once.

use super::{ApiState, Refusal, StoreErrorOrTimeout, apply, images, limits, namespaces, validate, volumes};
use strata_proto::{
    cluster::{DeleteRequest, DeleteResponse},
    document::kind_word,
    timestamp_now,
    types::{Object, node_status::Phase, object},
};
use strata_store::{Change, Condition, StoreError};

pub(super) async fn delete(state: &ApiState, request: DeleteRequest) -> Result<DeleteResponse, Refusal> {
    let key = validate::key(request.kind, &request.namespace, &request.name)?;
    if apply::is_internal(key.kind) {
        let word = kind_word(key.kind);
        return Err(Refusal::precondition("Internal", format!("a {word} is made and removed by the controller")));
    }
    for _ in 0..limits::RETRIES {
        let snapshot = state.store.snapshot();
        let Some(object) = snapshot.get(&key) else { return Err(Refusal::not_found(&key)) };
        let revision = apply::revision(&object);
        if request.revision != 0 && request.revision != revision {
            let message = format!("{key} is at revision {revision}, not at {}: look at it again", request.revision);
            return Err(Refusal::conflict(message));
        }
        let condition = Condition::Revision(revision);
        let result = match &object.kind {
            Some(object::Kind::Workload(_) | object::Kind::Pod(_)) => {
                let mut marked = (*object).clone();
                let meta = marked.meta.get_or_insert_default();
                if meta.deleted.is_some() {
                    return Ok(DeleteResponse { object: Some(marked) });
                }
                meta.deleted = Some(timestamp_now());
                state.commit(vec![Change::put(marked, condition)]).await
            }
            Some(object::Kind::Volume(_)) if object.meta.as_ref().is_some_and(|m| m.deleted.is_some()) => {
                return Ok(DeleteResponse { object: Some((*object).clone()) });
            }
            Some(object::Kind::Volume(_)) => match volumes::delete(state, &object).await {
                Err(refusal) if refusal.reason == "Conflict" => continue,
                result => return result.map(|o| DeleteResponse { object: Some(o) }),
            },
            Some(object::Kind::Namespace(_)) => match namespaces::delete(state, &object).await {
                Err(refusal) if refusal.reason == "Conflict" => continue,
                result => return result.map(|o| DeleteResponse { object: Some(o) }),
            },
            Some(object::Kind::Image(image)) => {
                let digest = image.spec.as_ref().map(|s| s.digest.clone()).unwrap_or_default();
                let users = images::users(&snapshot, &digest, &key.name);
                if !users.is_empty() && !request.force {
                    return Err(Refusal::precondition(
                        "InUse",
                        format!("{key} is in use by {}: delete them first, or force it", users.join(", ")),
                    ));
                }
                let result = state.commit(vec![Change::delete(key.clone(), condition)]).await;
                if result.is_ok() {
                    images::remove_from_nodes(state, &digest, request.force).await;
                }
                result
            }
            Some(object::Kind::Node(node)) => {
                if node.status.as_ref().is_some_and(|s| s.phase() == Phase::Ready) {
                    let message =
                        format!("{key} is alive: stop its agent first, then wait until it is Lost or Unknown");
                    return Err(Refusal::precondition("NodeReady", message));
                }
                state.commit(vec![Change::delete(key.clone(), condition)]).await
            }
            _ => state.commit(vec![Change::delete(key.clone(), condition)]).await,
        };
        match result {
            Ok(commit) => return Ok(DeleteResponse { object: commit.objects.first().map(|o| Object::clone(o)) }),
            Err(StoreErrorOrTimeout::Store(StoreError::Conflict { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::conflict(format!("{key} was changed by others {} times meanwhile: try again", limits::RETRIES)))
}
