//! Events: what happened to an object, for people. The same thing happening again is counted, not repeated.

use crate::{
    control::Control,
    edit::{Keep, changed, created},
    objects::new_meta,
};
use strata_model::Digest;
use strata_proto::{
    timestamp_now,
    types::{self, EventSpec, Kind, Object, event_spec::Severity, object},
};
use strata_store::{Key, StoreError};
use tracing::debug;

/// Characters of an event's message that are kept.
pub const MESSAGE_CHARS_MAX: usize = 1_024;
/// The namespace of events about objects that have none.
pub const EVENTS_NAMESPACE: &str = "default";

/// Records that something happened. Events are for people: one that cannot be stored is dropped and logged.
pub async fn record(control: &Control, event: EventSpec, source: &str) {
    if let Err(error) = try_record(control, event, source).await {
        debug!(%error, "an event was not recorded");
    }
}

/// Records an event of the controller itself about an object.
pub async fn about(control: &Control, subject: &Object, severity: Severity, reason: &str, message: &str) {
    let meta = crate::objects::meta(subject);
    let event = EventSpec {
        kind: strata_proto::document::kind_word(subject.kind_of()).to_owned(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        severity: severity.into(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..EventSpec::default()
    };
    record(control, event, "controller").await;
}

async fn try_record(control: &Control, mut event: EventSpec, source: &str) -> Result<(), StoreError> {
    event.message = event.message.chars().take(MESSAGE_CHARS_MAX).collect();
    event.source = source.to_owned();
    event.last = Some(timestamp_now());
    let namespace = if event.namespace.is_empty() { EVENTS_NAMESPACE } else { &event.namespace };
    let key = Key::new(Kind::Event, namespace, name(&event));
    for _ in 0..crate::edit::TRIES_MAX {
        let found = control.store.snapshot().get(&key);
        let change = match &found {
            Some(found) => {
                let mut object = Object::clone(found);
                let Some(object::Kind::Event(old)) = &mut object.kind else { return Ok(()) };
                let count = old.spec.as_ref().map_or(0, |s| s.count).saturating_add(1);
                old.spec = Some(EventSpec { count, ..event.clone() });
                changed(object, Keep::Durable)
            }
            None => created(Object {
                meta: Some(new_meta(&key.namespace, &key.name)),
                kind: Some(object::Kind::Event(types::Event { spec: Some(EventSpec { count: 1, ..event.clone() }) })),
            }),
        };
        match control.store.commit(vec![change]).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The same object, reason and source have the same name: `web-3.1f0c9d5e`.
fn name(event: &EventSpec) -> String {
    let identity = [&event.kind, &event.namespace, &event.name, &event.uid, &event.reason, &event.source]
        .map(String::as_str)
        .join("\0");
    let subject: String =
        event.name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).take(200).collect();
    let subject = subject.to_ascii_lowercase();
    format!("{}.{}", subject.trim_matches(['-', '.']), &Digest::of(identity.as_bytes()).hex()[..12])
}
