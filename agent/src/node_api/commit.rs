//! A container's writable layer becomes one more layer of its image.

mod changes;

use super::{
    NodeApi,
    files::troubled,
    images::{name, status},
};
use crate::node::spec_of_stored;
use changes::Changes;
use serde_json::{Map, Value, json};
use strata_image::ImageError;
use strata_layer::SealOptions;
use strata_model::{ContainerName, Digest};
use strata_proto::{
    node::{CommitRequest, CommitResponse, ImportedImage},
    timestamp_now,
};
use tonic::Status;

impl NodeApi {
    pub(super) async fn commit_container(&self, request: CommitRequest) -> Result<CommitResponse, Status> {
        let permit = self.begin()?;
        self.known(&request.pod_uid, &request.container)?;
        let name = name(&request.name)?;
        let changes = Changes::parse(&request.changes).map_err(|e| Status::invalid_argument(format!("change {e}")))?;
        let spec = self.spec(&request.pod_uid)?;
        let container = ContainerName::from_trusted(request.container.clone());
        let node = self.node.clone();
        let created = rfc3339(&timestamp_now());
        let made = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let store = node.image_store();
            let mut lease = store.lease();
            let base = node.image_of(&spec, &container).map_err(|t| troubled(&t))?;
            let writable = node.writable_dir(&spec, &container);
            if !writable.join("u").is_dir() {
                return Err(Status::failed_precondition(format!(
                    "container {container} has not been started yet: there is nothing to commit"
                )));
            }
            lease.hold(&base.digest);
            base.layers.iter().for_each(|l| lease.hold(&l.diff_id));
            // Thawed as soon as its files are read, and when anything fails.
            let frozen =
                if request.pause { node.freeze(&spec.uid, &container).map_err(|t| troubled(&t))? } else { None };
            let sealed = store.layers().seal(&writable, SealOptions::default());
            drop(frozen);
            let sealed =
                sealed.map_err(|e| Status::internal(format!("sealing the writable layer of {container}: {e}")))?;
            let missing = || ImageError::Missing(base.digest.clone());
            let config =
                store.read_blob(&base.config_digest).and_then(|c| c.ok_or_else(missing)).map_err(|e| status(&e))?;
            let new = New { layer: &sealed.digest, created: &created, request: &request, changes: &changes };
            let config = config_of(&config, &new).map_err(Status::failed_precondition)?;
            let image = store.make(&config, &mut lease).map_err(|e| status(&e))?;
            Ok(ImportedImage { name: name.to_string(), image: Some(spec_of_stored(&image)) })
        });
        let made = made.await.map_err(|_| Status::cancelled("the agent stops"))?;
        self.node.inventory_changed();
        Ok(CommitResponse { image: Some(made?) })
    }
}

/// What is new in an image's config.
struct New<'a> {
    layer: &'a Digest,
    created: &'a str,
    request: &'a CommitRequest,
    changes: &'a Changes,
}

/// The base image's config with a layer, a step and changes more. What is not known here stays as it was.
fn config_of(base: &[u8], new: &New<'_>) -> Result<Vec<u8>, String> {
    let mut config: Map<String, Value> =
        serde_json::from_slice(base).map_err(|e| format!("the image's config cannot be read: {e}"))?;
    let list = |value: Option<&mut Value>, what: &str| match value {
        Some(Value::Array(list)) => Ok(std::mem::take(list)),
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(_) => Err(format!("the image's config has no list as {what}")),
    };
    let mut diff_ids = list(config.get_mut("rootfs").and_then(|r| r.get_mut("diff_ids")), "rootfs.diff_ids")?;
    diff_ids.push(json!(new.layer.to_string()));
    config.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
    let mut history = list(config.get_mut("history"), "history")?;
    let mut step = json!({"created": new.created, "created_by": format!("ctl commit {}", new.request.container)});
    for (key, text) in [("author", &new.request.author), ("comment", &new.request.message)] {
        if !text.is_empty() {
            step[key] = json!(text);
        }
    }
    history.push(step);
    config.insert("history".into(), Value::Array(history));
    config.insert("created".into(), json!(new.created));
    if !new.request.author.is_empty() {
        config.insert("author".into(), json!(new.request.author));
    }
    // Of the container that docker made the image in: says nothing about this one.
    for gone in ["container", "container_config", "id", "parent"] {
        config.remove(gone);
    }
    let run = config.entry("config").or_insert_with(|| json!({}));
    if run.is_null() {
        *run = json!({});
    }
    new.changes.apply(run.as_object_mut().ok_or("the image's config has no object as config")?);
    serde_json::to_vec(&config).map_err(|e| format!("the config cannot be written: {e}"))
}

fn rfc3339(time: &pbjson_types::Timestamp) -> String {
    serde_json::to_value(time).ok().and_then(|v| v.as_str().map(|t| t.replace("+00:00", "Z"))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_commit_adds_a_layer_a_step_and_the_changes_and_keeps_the_rest() {
        let base = br#"{"architecture":"amd64","os":"linux","x-own":1,"container":"abc","config":{"Cmd":["a"],"Env":["A=1"],"Healthcheck":{"Test":["x"]}},"rootfs":{"type":"layers","diff_ids":["sha256:00"]},"history":[{"created_by":"one"}]}"#;
        let layer = Digest::of(b"layer");
        let changes = Changes::parse(&["CMD [\"b\"]".into(), "ENV A=2 B='x y'".into()]).unwrap();
        let request = CommitRequest { container: "c".into(), message: "why".into(), ..Default::default() };
        let new = New { layer: &layer, created: "2026-01-01T00:00:00Z", request: &request, changes: &changes };
        let config: Value = serde_json::from_slice(&config_of(base, &new).unwrap()).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!(["sha256:00", layer.to_string()]));
        assert_eq!(config["history"][1]["comment"], "why");
        assert_eq!(config["config"], json!({"Cmd": ["b"], "Env": ["A=2", "B=x y"], "Healthcheck": {"Test": ["x"]}}));
        assert_eq!((&config["x-own"], config.get("container")), (&json!(1), None));
        assert!(config_of(br#"{"rootfs":{"diff_ids":1}}"#, &new).is_err());
    }

    #[test]
    fn times_are_written_as_configs_have_them() {
        let time = rfc3339(&strata_proto::timestamp_of_ms(1_700_000_000_000));
        assert_eq!(time, "2023-11-14T22:13:20Z");
    }
}
