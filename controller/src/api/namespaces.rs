//! Namespaces: `default` is always there, others are made and removed by people.

use super::{ApiState, Refusal};
use strata_proto::{
    timestamp_now,
    types::{Kind, Meta, Namespace, NamespaceSpec, Object, object},
};
use strata_store::{Change, Condition, Key, Snapshot, Store, StoreError};

/// The namespace of objects that name none.
pub const DEFAULT: &str = "default";

/// Makes `default` if it is not there. Call it once at start.
///
/// # Errors
/// What the store says.
pub async fn ensure_default_namespace(store: &Store) -> Result<(), StoreError> {
    if store.snapshot().get(&key(DEFAULT)).is_some() {
        return Ok(());
    }
    let meta = Meta {
        name: DEFAULT.into(),
        uid: uuid::Uuid::now_v7().to_string(),
        generation: 1,
        created: Some(timestamp_now()),
        ..Meta::default()
    };
    let kind = object::Kind::Namespace(Namespace { spec: Some(NamespaceSpec::default()) });
    let change = Change::put(Object { meta: Some(meta), kind: Some(kind) }, Condition::Absent);
    match store.commit(vec![change]).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn key(name: &str) -> Key {
    Key::new(Kind::Namespace, "", name)
}

/// The condition under which something may be put into a namespace: it is there, and stays as it is until the commit.
pub(super) fn require(snapshot: &Snapshot, namespace: &str) -> Result<Change, Refusal> {
    let key = key(namespace);
    let Some(object) = snapshot.get(&key) else {
        return Err(Refusal::precondition(
            "NamespaceNotFound",
            format!(
                "there is no namespace {namespace}: make it first, with a document of `kind: Namespace` and `meta.name: {namespace}`"
            ),
        ));
    };
    let meta = object.meta.clone().unwrap_or_default();
    if meta.deleted.is_some() {
        return Err(Refusal::precondition("BeingDeleted", format!("namespace {namespace} is being deleted")));
    }
    Ok(Change::check(key, Condition::Revision(meta.revision)))
}

/// Deletes a namespace that is empty: marks it first, so that nothing new can get into it, then looks.
pub(super) async fn delete(state: &ApiState, object: &Object) -> Result<Object, Refusal> {
    let meta = object.meta.clone().unwrap_or_default();
    if meta.name == DEFAULT {
        return Err(Refusal::precondition("Protected", "the namespace default is always there"));
    }
    let mut marked = object.clone();
    marked.meta.get_or_insert_default().deleted = Some(timestamp_now());
    let commit = state.commit(vec![Change::put(marked, Condition::Revision(meta.revision))]).await?;
    let snapshot = state.store.snapshot();
    let left = [Kind::Workload, Kind::Pod, Kind::Volume].map(|kind| snapshot.list(kind, Some(&meta.name)).count());
    let revision = Condition::Revision(commit.revision);
    if left.iter().sum::<usize>() > 0 {
        state.commit(vec![Change::put(object.clone(), revision)]).await?;
        return Err(Refusal::precondition(
            "NotEmpty",
            format!(
                "namespace {} still has {} workloads, {} pods and {} volumes: delete them first (`ctl delete -n {0} ...`)",
                meta.name, left[0], left[1], left[2]
            ),
        ));
    }
    let mut changes = vec![Change::delete(key(&meta.name), revision)];
    for kind in [Kind::Config, Kind::Secret, Kind::Event] {
        changes.extend(snapshot.list(kind, Some(&meta.name)).map(|o| Change::delete(Key::of(&o), Condition::None)));
    }
    // Events are many at most; they go with their namespace as far as one commit takes them, the rest age out.
    changes.truncate(strata_store::limits::COMMIT_CHANGES_MAX);
    let commit = state.commit(changes).await?;
    commit.objects.first().map(|o| (**o).clone()).ok_or_else(|| Refusal::not_found(&key(&meta.name)))
}
