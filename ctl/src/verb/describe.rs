use crate::{
    columns::{self, Look},
    condition,
    exit::Failure,
    kind::parse_targets,
    output,
    session::Session,
    table::Table,
    verb::get::{name_needed, sort},
};
use serde_json::Value;
use strata_client::Selection;
use strata_proto::{
    document::kind_word,
    types::{Kind, Object, object},
};

/// Show everything about objects, with their events.
///
/// Fields that are empty are left out; `ctl get -o yaml` has them all.
///
/// Examples:
///   ctl describe pod web-3
///   ctl describe node/node-1
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// KIND NAME… or KIND/NAME…
    #[arg(required = true, value_name = "KIND NAME")]
    pub targets: Vec<String>,
}

impl Args {
    pub fn check(&self) -> Result<(), Failure> {
        let (kind, names) = parse_targets(&self.targets)?;
        if names.is_empty() { Err(name_needed(kind)) } else { Ok(()) }
    }
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let (kind, names) = parse_targets(&args.targets)?;
    for (nth, name) in names.iter().enumerate() {
        let object = session.client.get(kind, session.namespace_of(kind), name).await?;
        let events = events_of(session, &object).await?;
        let gap = if nth > 0 { "\n" } else { "" };
        output::print(&format!("{gap}{}", text_of(&object, &events, output::now_ms())?))?;
    }
    Ok(())
}

async fn events_of(session: &Session, object: &Object) -> Result<Vec<Object>, Failure> {
    let meta = object.meta.clone().unwrap_or_default();
    // Events of objects without a namespace may be kept in any.
    let selection = Selection { namespace: meta.namespace.clone(), ..Default::default() };
    let mut events = session.client.list(Kind::Event, &selection).await?.objects;
    events.retain(|event| is_about(event, object.kind_of(), &meta.name));
    sort(&mut events);
    Ok(events)
}

/// Whether an event is about an object.
pub fn is_about(event: &Object, kind: Kind, name: &str) -> bool {
    match &event.kind {
        Some(object::Kind::Event(event)) => {
            event.spec.as_ref().is_some_and(|spec| spec.kind == kind_word(kind) && spec.name == name)
        }
        _ => false,
    }
}

fn text_of(object: &Object, events: &[Object], now_ms: u64) -> Result<String, Failure> {
    let mut document = output::document(object)?;
    prune(&mut document);
    let mut text = String::new();
    if let Some(sections) = document.as_object() {
        let reason = condition::reason_of(object);
        for (name, value) in sections {
            write_value(&mut text, 0, name, value);
            if name == "kind" && !reason.is_empty() {
                write_value(&mut text, 0, "why", &Value::String(reason.clone()));
            }
        }
    }
    if events.is_empty() {
        text.push_str("events: none\n");
        return Ok(text);
    }
    text.push_str("events:\n");
    let look = Look::default();
    let rows: Vec<_> = events.iter().map(|event| columns::row(event, look, now_ms)).collect();
    for line in Table::new(columns::headers(Kind::Event, look)).render(&rows).lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

/// Takes away what says nothing: null, "", [], {}. Numbers and booleans stay.
fn prune(value: &mut Value) {
    let says_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, field| !says_nothing(field));
        }
        _ => {}
    }
}

fn write_value(text: &mut String, depth: usize, name: &str, value: &Value) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            text.push_str(&format!("{indent}{name}:\n"));
            fields.iter().for_each(|(name, value)| write_value(text, depth + 1, name, value));
        }
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            text.push_str(&format!("{indent}{name}: {}\n", items.join(" ")));
        }
        Value::Array(items) => {
            for (nth, item) in items.iter().enumerate() {
                let label = item.get("name").and_then(Value::as_str).map_or_else(|| nth.to_string(), str::to_owned);
                write_value(text, depth, &format!("{name}[{label}]"), item);
            }
        }
        value => text.push_str(&format!("{indent}{name}: {}\n", plain(value))),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_proto::types::{ContainerStatus, Event, EventSpec, Meta, Pod, PodStatus};

    #[test]
    fn a_description_leaves_out_what_is_empty_and_ends_with_the_events() {
        let containers = vec![ContainerStatus { name: "main".into(), restarts: 2, ..Default::default() }];
        let status = PodStatus {
            reason: "BackOff".into(),
            message: "next start in 20 s".into(),
            containers,
            ..Default::default()
        };
        let pod = Object {
            meta: Some(Meta { name: "web-0".into(), namespace: "default".into(), ..Default::default() }),
            kind: Some(object::Kind::Pod(Pod { spec: None, status: Some(status) })),
        };
        let spec = EventSpec {
            kind: "Pod".into(),
            name: "web-0".into(),
            reason: "Exited".into(),
            message: "code 1".into(),
            count: 3,
            ..Default::default()
        };
        let event = Object { meta: Some(Meta::default()), kind: Some(object::Kind::Event(Event { spec: Some(spec) })) };
        assert!(is_about(&event, Kind::Pod, "web-0") && !is_about(&event, Kind::Node, "web-0"));
        insta::assert_snapshot!(text_of(&pod, &[event], 0).unwrap());
    }
}
