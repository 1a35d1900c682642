//! Image objects: what the cluster knows an image name to mean, and who uses it.

use super::{ApiState, Refusal, limits, select};
use futures::{StreamExt as _, stream};
use std::collections::BTreeSet;
use strata_model::ImageName;
use strata_proto::{
    node::RemoveImageRequest,
    timestamp_now,
    types::{Image, ImageSpec, Kind, Meta, Object, object},
};
use strata_store::{Change, Condition, Key, Snapshot, Store, StoreError};

/// Makes an image known under a name (normalised here), or changes what the name means. `node` has all of it; "" = not known.
/// Returns the object; nothing is written if it says so already.
///
/// # Errors
/// A name that is not one; what the store says.
pub async fn record_image(store: &Store, name: &str, spec: ImageSpec, node: &str) -> Result<Object, Refusal> {
    let name = ImageName::parse(name).map_err(|e| Refusal::invalid(e.to_string()))?.to_string();
    let key = Key::new(Kind::Image, "", &name);
    for _ in 0..limits::RETRIES {
        let present = store.snapshot().get(&key);
        let (meta, old) = match present.as_deref() {
            Some(Object { meta, kind: Some(object::Kind::Image(image)) }) => {
                (meta.clone().unwrap_or_default(), Some(image.clone()))
            }
            _ => (new_meta(&name), None),
        };
        let (meta, image) = decide(meta, old.as_ref(), &spec, node);
        if old.as_ref() == Some(&image) {
            return Ok(Object { meta: Some(meta), kind: Some(object::Kind::Image(image)) });
        }
        let condition = if old.is_some() { Condition::Revision(meta.revision) } else { Condition::Absent };
        let object = Object { meta: Some(meta), kind: Some(object::Kind::Image(image)) };
        match store.commit(vec![Change::put(object, condition)]).await {
            Ok(commit) => return commit.objects.first().map(|o| (**o).clone()).ok_or_else(|| Refusal::not_found(&key)),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::conflict(format!("{key} was changed by others {} times meanwhile: try again", limits::RETRIES)))
}

fn new_meta(name: &str) -> Meta {
    Meta {
        name: name.to_owned(),
        uid: uuid::Uuid::now_v7().to_string(),
        created: Some(timestamp_now()),
        ..Meta::default()
    }
}

fn decide(mut meta: Meta, old: Option<&Image>, spec: &ImageSpec, node: &str) -> (Meta, Image) {
    let old_spec = old.and_then(|o| o.spec.as_ref());
    let mut status = match old_spec {
        // Another image under the old name: who had the old one says nothing.
        Some(s) if s.digest == spec.digest => old.and_then(|o| o.status.clone()).unwrap_or_default(),
        _ => strata_proto::types::ImageStatus::default(),
    };
    if !node.is_empty() && !status.nodes.iter().any(|n| n == node) {
        status.nodes.push(node.to_owned());
        status.nodes.sort();
    }
    if old_spec != Some(spec) {
        meta.generation += 1;
    }
    (meta, Image { spec: Some(spec.clone()), status: Some(status) })
}

/// Who uses an image by this name or digest: the pods, and workloads by their newest template revision.
pub(super) fn users(snapshot: &Snapshot, digest: &str, name: &str) -> Vec<String> {
    const NAMED: usize = 5;
    let uses = |revision: &str| {
        let template = snapshot.get(&Key::new(Kind::Template, "", revision));
        let Some(object::Kind::Template(template)) = template.as_ref().and_then(|t| t.kind.as_ref()) else {
            return false;
        };
        template.spec.iter().flat_map(|s| &s.images).any(|i| i.digest == digest && i.name == name)
    };
    let mut using: BTreeSet<String> = BTreeSet::new();
    let revisions: BTreeSet<String> = snapshot
        .list(Kind::Template, None)
        .filter_map(|t| t.meta.as_ref().map(|m| m.name.clone()))
        .filter(|revision| uses(revision))
        .collect();
    for object in snapshot.list(Kind::Workload, None).chain(snapshot.list(Kind::Pod, None)) {
        let revision = match &object.kind {
            Some(object::Kind::Workload(w)) => w.status.as_ref().map(|s| &s.revision),
            Some(object::Kind::Pod(p)) => p.spec.as_ref().map(|s| &s.template_revision),
            _ => None,
        };
        if revision.is_some_and(|r| revisions.contains(r)) {
            using.insert(Key::of(&object).to_string());
        }
    }
    let more = using.len().saturating_sub(NAMED);
    let mut named: Vec<String> = using.into_iter().take(NAMED).collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    named
}

/// Asks the nodes to remove an image that no name stands for any more. What a node does not do now its own garbage collection does later.
pub(super) async fn remove_from_nodes(state: &ApiState, digest: &str, force: bool) {
    let snapshot = state.store.snapshot();
    let still_named = snapshot.list(Kind::Image, None).any(
        |o| matches!(&o.kind, Some(object::Kind::Image(i)) if i.spec.as_ref().is_some_and(|s| s.digest == digest)),
    );
    if still_named || digest.is_empty() {
        return;
    }
    let snapshot = &snapshot;
    let removals =
        stream::iter(select::ready_nodes(snapshot)).for_each_concurrent(limits::NODES_AT_ONCE, |node| async move {
            let result = async {
                let mut api = state.nodes.of(snapshot, &node).await?;
                let request = RemoveImageRequest { digest: digest.to_owned(), force };
                api.client.remove_image(request).await.map_err(|s| api.name_it(s))?;
                Ok::<(), tonic::Status>(())
            };
            match result.await {
                Ok(()) => {}
                Err(status) if status.code() == tonic::Code::NotFound => {}
                Err(status) => {
                    tracing::warn!(node, digest, error = status.message(), "the node keeps a deleted image for now")
                }
            }
        });
    if tokio::time::timeout(limits::REMOVE_TIMEOUT, removals).await.is_err() {
        tracing::warn!(digest, "some nodes keep a deleted image for now: they did not answer in time");
    }
}
