//! Backup: a consistent copy of all objects, sent while everything goes on. Its form: [`strata_proto::backup`].
//!
//! Only objects: the cluster's keys (`pki/`, and the key that seals secrets) stay in the state directory. They do not change, so one copy of them, kept
//! apart from the backups, is enough for all of them; and secrets in a backup are sealed with a key that is not in it.

use super::{ApiState, Refusal, limits, view::BoxStream};
use futures::stream;
use std::sync::Arc;
use strata_proto::{
    backup::{FORMAT, Writer},
    node::DataChunk,
    store::{BackupHeader, Change},
    timestamp_now,
    types::{Kind, Object},
};
use strata_store::Key;

/// The snapshot costs nothing to keep, and chunks are made only as fast as the client takes them.
pub(super) fn backup(state: &ApiState) -> Result<BoxStream<DataChunk>, Refusal> {
    let permit =
        state.relays.clone().try_acquire_owned().map_err(|_| Refusal::overloaded("relayed streams and backups"))?;
    let snapshot = state.store.snapshot();
    let header = BackupHeader {
        format: FORMAT,
        cluster_id: state.pki.cluster_id().to_owned(),
        revision: snapshot.revision(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        taken: Some(timestamp_now()),
    };
    let (writer, first) = Writer::begin(&header);
    let objects: Vec<Arc<Object>> = snapshot.list(Kind::Unspecified, None).collect();
    tracing::info!(revision = header.revision, objects = objects.len(), "a backup is taken");
    let begun = (Some(writer), objects.into_iter(), first, permit);
    let chunks = stream::unfold(begun, |(mut writer, mut rest, mut bytes, permit)| async move {
        writer.as_ref()?;
        while bytes.len() < limits::LIST_PORTION_BYTES {
            let Some(object) = rest.next() else { break };
            bytes.extend(writer.as_mut()?.change(&change(&object)));
        }
        if rest.as_slice().is_empty() {
            bytes.extend(writer.take()?.end());
        }
        let chunk = DataChunk { data: std::mem::take(&mut bytes) };
        Some((Ok(chunk), (writer, rest, bytes, permit)))
    });
    Ok(Box::pin(chunks))
}

fn change(object: &Arc<Object>) -> Change {
    let key = Key::of(object);
    Change {
        kind: key.kind.into(),
        namespace: key.namespace,
        name: key.name,
        revision: super::apply::revision(object),
        object: Some((**object).clone()),
    }
}
