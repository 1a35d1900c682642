//! List and Watch: streams of what is there and of what changes.

use super::{ApiState, Refusal, limits, services::Endpoints, volumes};
use crate::secrets::redact;
use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use std::{collections::HashMap, pin::Pin, sync::Arc};
use strata_proto::{
    cluster::{ListRequest, ListResponse, WatchRequest, WatchResponse},
    document::is_namespaced,
    types::{Kind, Object, object, pod_spec::Desired},
};
use strata_store::{Key, Snapshot, Store, WatchEnd};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tonic::{Code, Status};

pub(super) type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) fn list(state: &ApiState, request: &ListRequest) -> Result<BoxStream<ListResponse>, Refusal> {
    let permit = stream_permit(state)?;
    let kind = Kind::try_from(request.kind).ok().filter(|k| *k != Kind::Unspecified);
    let kind = kind.ok_or_else(|| Refusal::invalid("kind: is missing, or this controller does not know it"))?;
    let namespace = Some(request.namespace.as_str()).filter(|n| !n.is_empty() && is_namespaced(kind));
    let snapshot = state.store.snapshot();
    let revision = snapshot.revision();
    // Only pointers are gathered here; the objects are copied portion by portion, as the client takes them.
    let objects: Vec<Arc<Object>> = snapshot
        .list(kind, namespace)
        .filter(|o| has_labels(o, &request.labels) && (request.ended || !has_left(o)))
        .collect();
    let shown = Shown::new(&snapshot, kind, namespace.unwrap_or_default());
    let start = (objects.into_iter().peekable(), false, permit, shown);
    let portions = stream::unfold(start, move |(mut rest, sent, permit, mut shown)| async move {
        if sent && rest.peek().is_none() {
            return None;
        }
        let (mut objects, mut bytes) = (Vec::new(), 0);
        while objects.len() < limits::LIST_PORTION_OBJECTS && bytes < limits::LIST_PORTION_BYTES {
            let Some(object) = rest.next() else { break };
            bytes += object.encoded_len();
            objects.push(shown.of(&object));
        }
        Some((Ok(ListResponse { revision, objects }), (rest, true, permit, shown)))
    });
    Ok(Box::pin(portions))
}

/// How answers show objects: without what is secret, with what is computed when asked.
pub(super) struct Shown {
    volume_users: HashMap<Key, Vec<String>>,
    endpoints: Endpoints,
    snapshot: Snapshot,
}

impl Shown {
    /// Of objects of this kind; `namespace` "" = of all.
    pub fn new(snapshot: &Snapshot, kind: Kind, namespace: &str) -> Self {
        let volume_users = if kind == Kind::Volume { volumes::users(snapshot, namespace) } else { HashMap::new() };
        Self { volume_users, endpoints: Endpoints::default(), snapshot: snapshot.clone() }
    }

    /// One of them.
    pub fn of(&mut self, object: &Object) -> Object {
        let key = Key::of(object);
        let mut object = object.clone();
        redact(&mut object);
        self.endpoints.fill(&self.snapshot, &mut object);
        if let Some(object::Kind::Volume(volume)) = &mut object.kind {
            volume.status.get_or_insert_default().pods = self.volume_users.get(&key).cloned().unwrap_or_default();
        }
        object
    }
}

fn stream_permit(state: &ApiState) -> Result<OwnedSemaphorePermit, Refusal> {
    state.streams.clone().try_acquire_owned().map_err(|_| Refusal::overloaded("lists and watches"))
}

fn has_labels(object: &Object, wanted: &HashMap<String, String>) -> bool {
    let Some(meta) = &object.meta else { return wanted.is_empty() };
    wanted.iter().all(|(k, v)| meta.labels.get(k) == Some(v))
}

/// Whether it is a pod that was replaced or deleted and has ended: still known, but no longer shown. A workload replaces each of its pods that ends.
fn has_left(object: &Object) -> bool {
    let Some(object::Kind::Pod(pod)) = &object.kind else { return false };
    let ended = pod.status.as_ref().is_some_and(crate::objects::is_ended);
    let removed = pod.spec.as_ref().is_some_and(|s| s.desired() == Desired::Removed || !s.workload.is_empty());
    ended && (removed || object.meta.as_ref().is_some_and(|m| m.deleted.is_some()))
}

/// Changes in order, with bookmarks between them; the first bookmark comes at once and says that the watch stands.
pub(super) fn watch(state: &ApiState, request: &WatchRequest) -> Result<BoxStream<WatchResponse>, Refusal> {
    let permit = stream_permit(state)?;
    let kind = Kind::try_from(request.kind).map_err(|_| Refusal::invalid("kind: this controller does not know it"))?;
    let namespace = request.namespace.clone();
    let from = if request.from_revision == 0 { state.store.snapshot().revision() } else { request.from_revision };
    let compacted = |e: strata_store::Compacted| Refusal::new(Code::OutOfRange, "Compacted", e.to_string());
    let events = state.store.watch(from).map_err(compacted)?;
    let mut bookmarks = interval_at(Instant::now() + limits::BOOKMARK_INTERVAL, limits::BOOKMARK_INTERVAL);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let store = state.store.clone();
    let start = Watching { events, bookmarks, kind, namespace, store, revision: from, _permit: permit };
    let responses = stream::unfold(Some(start), |watching| async move {
        let mut watching = watching?;
        match watching.next().await? {
            Ok(response) => Some((Ok(response), Some(watching))),
            Err(status) => Some((Err(status), None)),
        }
    });
    let first = WatchResponse { revision: from, bookmark: true, ..WatchResponse::default() };
    Ok(Box::pin(stream::iter([Ok(first)]).chain(responses)))
}

struct Watching {
    events: strata_store::WatchStream,
    bookmarks: tokio::time::Interval,
    kind: Kind,
    namespace: String,
    store: Store,
    /// Reached.
    revision: u64,
    _permit: OwnedSemaphorePermit,
}

impl Watching {
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        loop {
            let event = tokio::select! {
                biased;
                _ = self.bookmarks.tick() => {
                    let bookmark = WatchResponse { revision: self.revision, bookmark: true, ..WatchResponse::default() };
                    return Some(Ok(bookmark));
                }
                event = self.events.next() => event?,
            };
            let event = match event {
                Ok(event) => event,
                Err(end @ WatchEnd::Lagged) => {
                    return Some(Err(Refusal::new(Code::OutOfRange, "Lagged", end.to_string()).into()));
                }
            };
            self.revision = event.revision;
            let kind_fits = self.kind == Kind::Unspecified || self.kind == event.key.kind;
            let namespace_fits =
                self.namespace.is_empty() || !is_namespaced(event.key.kind) || self.namespace == event.key.namespace;
            if kind_fits && namespace_fits {
                let mut object = Object::clone(&event.object);
                redact(&mut object);
                Endpoints::default().fill(&self.store.snapshot(), &mut object);
                return Some(Ok(WatchResponse {
                    revision: event.revision,
                    object: Some(object),
                    deleted: event.deleted,
                    bookmark: false,
                }));
            }
        }
    }
}
