//! What nobody needs any more: templates that no workload and no pod names, the oldest events, join tokens that have expired.

use crate::{
    control::Control,
    edit::commit_or_retry,
    objects::{meta, pod_spec, workload_status},
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use strata_model::limits::EVENTS_KEPT;
use strata_proto::{
    timestamp_ms, timestamp_now,
    types::{Kind, Object, object},
};
use strata_store::{Change, Condition, Key, Snapshot, StoreError};
use tracing::debug;

/// How often it looks.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// Objects removed with one commit.
pub const REMOVED_PER_COMMIT: usize = 500;

/// Runs the loop for ever.
///
/// # Errors
/// What the store says, other than a conflict.
pub async fn run(control: Arc<Control>) -> Result<(), StoreError> {
    loop {
        tokio::time::sleep(INTERVAL).await;
        sweep(&control, EVENTS_KEPT).await?;
    }
}

/// Removes unused templates, and the oldest events beyond `events_kept`. The deletion of a template is conditional on its revision, and whoever
/// begins to use one puts it again: so none is removed that is just coming into use.
///
/// # Errors
/// What the store says, other than a conflict.
pub async fn sweep(control: &Control, events_kept: usize) -> Result<(), StoreError> {
    let snapshot = control.store.snapshot();
    let mut useless = unused_templates(&snapshot);
    useless.extend(old_events(&snapshot, events_kept));
    useless.extend(expired_tokens(&snapshot, timestamp_ms(Some(&timestamp_now()))));
    if !useless.is_empty() {
        debug!(objects = useless.len(), "cleaning up");
    }
    for part in useless.chunks(REMOVED_PER_COMMIT) {
        let delete = |o: &Arc<Object>| Change::delete(Key::of(o), Condition::Revision(meta(o).revision));
        // After a conflict the next round looks again.
        commit_or_retry(&control.store, part.iter().map(delete).collect()).await?;
    }
    Ok(())
}

fn unused_templates(snapshot: &Snapshot) -> Vec<Arc<Object>> {
    let mut used: HashSet<String> = HashSet::new();
    for workload in snapshot.list(Kind::Workload, None) {
        let status = workload_status(&workload);
        used.insert(status.revision.clone());
        used.extend(status.history.iter().map(|r| r.revision.clone()));
    }
    used.extend(snapshot.list(Kind::Pod, None).map(|o| pod_spec(&o).template_revision.clone()));
    snapshot.list(Kind::Template, None).filter(|o| !used.contains(&meta(o).name)).collect()
}

/// Join tokens that nobody can use any more.
fn expired_tokens(snapshot: &Snapshot, now_ms: u64) -> Vec<Arc<Object>> {
    let is_over = |o: &Arc<Object>| match &o.kind {
        Some(object::Kind::Token(token)) => {
            timestamp_ms(token.spec.as_ref().and_then(|s| s.expires.as_ref())) <= now_ms
        }
        _ => false,
    };
    snapshot.list(Kind::Token, None).filter(is_over).collect()
}

fn old_events(snapshot: &Snapshot, kept: usize) -> Vec<Arc<Object>> {
    let mut events: Vec<Arc<Object>> = snapshot.list(Kind::Event, None).collect();
    let excess = events.len().saturating_sub(kept);
    if excess == 0 {
        return Vec::new();
    }
    events.sort_by_cached_key(|o| match &o.kind {
        Some(object::Kind::Event(e)) => timestamp_ms(e.spec.as_ref().and_then(|s| s.last.as_ref())),
        _ => 0,
    });
    events.truncate(excess);
    events
}
