//! The JSON form of objects: `{kind, meta, spec, status}` with proto3-JSON field names (design section 9).
//!
//! The wire envelope has a oneof per kind; people see one flat document. Enums print as the words of the design, 64-bit integers as strings,
//! every field is present, also as 0, "" and [].

use crate::types::{self, Kind, object};
use serde::de::Error as _;
use serde_json::{Map, Value, json};

/// The word for a kind: `Workload`.
#[must_use]
pub fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "",
        Kind::Workload => "Workload",
        Kind::Pod => "Pod",
        Kind::Node => "Node",
        Kind::Image => "Image",
        Kind::Template => "Template",
        Kind::Event => "Event",
        Kind::Namespace => "Namespace",
        Kind::Token => "Token",
        Kind::Service => "Service",
        Kind::Volume => "Volume",
        Kind::Config => "Config",
        Kind::Secret => "Secret",
    }
}

/// Whether objects of this kind live in a namespace.
#[must_use]
pub fn is_namespaced(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Workload | Kind::Pod | Kind::Event | Kind::Service | Kind::Volume | Kind::Config | Kind::Secret
    )
}

impl types::Object {
    /// What kind of object the envelope holds.
    #[must_use]
    pub fn kind_of(&self) -> Kind {
        match self.kind {
            None => Kind::Unspecified,
            Some(object::Kind::Workload(_)) => Kind::Workload,
            Some(object::Kind::Pod(_)) => Kind::Pod,
            Some(object::Kind::Node(_)) => Kind::Node,
            Some(object::Kind::Image(_)) => Kind::Image,
            Some(object::Kind::Template(_)) => Kind::Template,
            Some(object::Kind::Event(_)) => Kind::Event,
            Some(object::Kind::Namespace(_)) => Kind::Namespace,
            Some(object::Kind::Token(_)) => Kind::Token,
            Some(object::Kind::Service(_)) => Kind::Service,
            Some(object::Kind::Volume(_)) => Kind::Volume,
            Some(object::Kind::Config(_)) => Kind::Config,
            Some(object::Kind::Secret(_)) => Kind::Secret,
        }
    }
}

/// The document of an object.
///
/// # Errors
/// Only if a value has no JSON form, which these types exclude.
pub fn to_json(object: &types::Object) -> Result<Value, serde_json::Error> {
    let mut object = object.clone();
    fill_absent(&mut object);
    let mut map = Map::new();
    map.insert("kind".into(), json!(kind_word(object.kind_of())));
    let mut meta = serde_json::to_value(object.meta.unwrap_or_default())?;
    if let Value::Object(fields) = &mut meta {
        fields.remove("traceParent");
    }
    map.insert("meta".into(), meta);
    let body = match &object.kind {
        None => Value::Null,
        Some(object::Kind::Workload(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Pod(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Node(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Image(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Template(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Event(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Namespace(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Token(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Service(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Volume(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Config(x)) => serde_json::to_value(x)?,
        Some(object::Kind::Secret(x)) => serde_json::to_value(x)?,
    };
    let part = |name: &str| body.get(name).cloned().unwrap_or_else(|| json!({}));
    map.insert("spec".into(), part("spec"));
    map.insert("status".into(), part("status"));
    Ok(Value::Object(map))
}

/// Reads a document back.
///
/// # Errors
/// Names the unknown kind, field or enum word.
pub fn from_json(document: Value) -> Result<types::Object, serde_json::Error> {
    let Value::Object(mut map) = document else {
        return Err(serde_json::Error::custom("an object {kind, meta, spec} is expected"));
    };
    let kind = map.remove("kind").and_then(|k| k.as_str().map(str::to_owned)).unwrap_or_default();
    let meta = map.remove("meta").map(serde_json::from_value).transpose()?;
    if let Some(unknown) = map.keys().find(|k| !matches!(k.as_str(), "spec" | "status")) {
        return Err(serde_json::Error::custom(format!("unknown field `{unknown}`, expected kind, meta, spec, status")));
    }
    let mut body = map;
    if matches!(kind.as_str(), "Template" | "Event" | "Namespace" | "Token" | "Config") {
        body.remove("status");
    }
    let body = Value::Object(body);
    let kind = match kind.as_str() {
        "Workload" => object::Kind::Workload(serde_json::from_value(body)?),
        "Pod" => object::Kind::Pod(serde_json::from_value(body)?),
        "Node" => object::Kind::Node(serde_json::from_value(body)?),
        "Image" => object::Kind::Image(serde_json::from_value(body)?),
        "Template" => object::Kind::Template(serde_json::from_value(body)?),
        "Event" => object::Kind::Event(serde_json::from_value(body)?),
        "Namespace" => object::Kind::Namespace(serde_json::from_value(body)?),
        "Token" => object::Kind::Token(serde_json::from_value(body)?),
        "Service" => object::Kind::Service(serde_json::from_value(body)?),
        "Volume" => object::Kind::Volume(serde_json::from_value(body)?),
        "Config" => object::Kind::Config(serde_json::from_value(body)?),
        "Secret" => object::Kind::Secret(serde_json::from_value(body)?),
        other => return Err(serde_json::Error::custom(format!("unknown kind `{other}`"))),
    };
    Ok(types::Object { meta, kind: Some(kind) })
}

/// Fills messages that are absent with empty ones, so that scripts find every field.
fn fill_absent(object: &mut types::Object) {
    match &mut object.kind {
        Some(object::Kind::Workload(w)) => {
            w.status.get_or_insert_default();
            w.spec.get_or_insert_default().update.get_or_insert_default();
        }
        Some(object::Kind::Pod(p)) => {
            p.spec.get_or_insert_default();
            for c in &mut p.status.get_or_insert_default().containers {
                c.last_exit.get_or_insert_default();
            }
        }
        Some(object::Kind::Node(n)) => {
            n.spec.get_or_insert_default();
            let status = n.status.get_or_insert_default();
            status.capacity.get_or_insert_default();
            status.allocated.get_or_insert_default();
        }
        Some(object::Kind::Namespace(n)) => {
            n.spec.get_or_insert_default();
        }
        Some(object::Kind::Service(s)) => {
            s.spec.get_or_insert_default();
            s.status.get_or_insert_default();
        }
        Some(object::Kind::Volume(v)) => {
            v.spec.get_or_insert_default();
            v.status.get_or_insert_default();
        }
        Some(object::Kind::Config(c)) => {
            c.spec.get_or_insert_default();
        }
        Some(object::Kind::Secret(s)) => {
            s.spec.get_or_insert_default();
            s.status.get_or_insert_default();
        }
        Some(object::Kind::Image(i)) => {
            i.status.get_or_insert_default();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pod_document_has_every_field_and_the_words_of_the_design() {
        let pod = types::Pod {
            spec: None,
            status: Some(types::PodStatus {
                phase: types::pod_status::Phase::Running.into(),
                containers: vec![types::ContainerStatus { name: "c".into(), pid: 7, ..Default::default() }],
                ..Default::default()
            }),
        };
        let meta =
            types::Meta { name: "web-0".into(), namespace: "default".into(), revision: 12, ..Default::default() };
        let object = types::Object { meta: Some(meta), kind: Some(object::Kind::Pod(pod)) };
        let doc = to_json(&object).unwrap();
        assert_eq!(doc["kind"], "Pod");
        assert_eq!(doc["meta"]["revision"], "12");
        assert_eq!(doc["status"]["phase"], "Running");
        assert_eq!(doc["status"]["ready"], false);
        let c = &doc["status"]["containers"][0];
        assert_eq!(
            (&c["pid"], &c["exitCode"], &c["lastExit"]["exitCode"], &c["state"]),
            (&json!(7), &json!(0), &json!(0), &json!("Waiting"))
        );
        assert_eq!(from_json(doc).unwrap().kind_of(), Kind::Pod);
    }
}
