//! What an object must look like before it is applied: pure checks, with the path of what is wrong.

use super::Refusal;
use prost::Message as _;
use strata_model::{ImageName, PodTemplate, ServiceView, Workload, limits::OBJECT_BYTES_MAX};
use strata_proto::{
    BadObject,
    document::{is_namespaced, kind_word},
    types::{
        self, Kind, Meta, Object, Pod, PodSpec, container::PullPolicy, cron_policy::Concurrency, object,
        pod_spec::Desired, pod_template::RestartPolicy, port::Protocol, update_policy::OnFailure, workload_spec::Mode,
    },
};
use tonic::Code;

/// Longest last part of a workload's name: its pods' names add `-` and a number, and a part has at most 63 characters.
const WORKLOAD_NAME_PART: usize = 52;

/// The same of a cron workload: its jobs' names add `-` and eight digits.
const CRON_NAME_PART: usize = 43;

/// Checks an object that a person applies, and puts it into its normal form (namespace, image name).
pub(super) fn normalise(mut object: Object) -> Result<Object, Refusal> {
    let size = object.encoded_len();
    if size > OBJECT_BYTES_MAX {
        let message = format!("the object has {size} bytes encoded, the limit is {OBJECT_BYTES_MAX}");
        return Err(Refusal::new(Code::InvalidArgument, "TooLarge", message));
    }
    let kind = object.kind_of();
    let Some(meta) = object.meta.as_mut() else { return Err(BadObject::new("meta", "is missing").into()) };
    if is_namespaced(kind) {
        if meta.namespace.is_empty() {
            meta.namespace = super::namespaces::DEFAULT.into();
        }
    } else if !meta.namespace.is_empty() {
        let why = format!("a {} is not in a namespace: leave it out", kind_word(kind));
        return Err(BadObject::new("meta.namespace", why).into());
    }
    annotations(meta)?;
    match &mut object.kind {
        None => return Err(BadObject::new("kind", "is missing").into()),
        Some(object::Kind::Workload(w)) => {
            let spec = w.spec.as_ref().ok_or_else(|| BadObject::new("spec", "is missing"))?;
            Mode::try_from(spec.mode).map_err(|_| BadObject::new("spec.mode", "Replicated, Global, Job or Cron"))?;
            if spec.mode() == Mode::Global && spec.replicas.is_some() {
                return Err(
                    BadObject::new("spec.replicas", "a Global workload has one pod per node: leave it out").into()
                );
            }
            if let Some(template) = &spec.template {
                words(template).map_err(|e| e.below("spec.template"))?;
            }
            let last = meta.name.rsplit('.').next().unwrap_or_default();
            if last.len() > WORKLOAD_NAME_PART || meta.name.len() + 21 > 253 {
                let why = format!(
                    "at most {WORKLOAD_NAME_PART} characters (behind the last '.'): its pods are named NAME-NUMBER"
                );
                return Err(BadObject::new("meta.name", why).into());
            }
            if spec.mode() == Mode::Cron && last.len() > CRON_NAME_PART {
                let why = format!(
                    "at most {CRON_NAME_PART} characters (behind the last '.'): its jobs are named NAME-MINUTE"
                );
                return Err(BadObject::new("meta.name", why).into());
            }
            update_words(spec)?;
            let workload = Workload::try_from(&object)?;
            if let Some(policy) = &workload.cron {
                crate::loops::orchestrate::cron::check(policy).map_err(|why| BadObject::new("spec.cron", why))?;
            }
        }
        Some(object::Kind::Pod(p)) => {
            meta.check(true)?;
            pod(p)?;
        }
        Some(object::Kind::Image(_)) => {
            let name = ImageName::parse(&meta.name).map_err(|e| BadObject::new("meta.name", e.to_string()))?;
            meta.name = name.to_string();
            Meta { name: "image".into(), ..meta.clone() }.check(false)?;
        }
        Some(object::Kind::Namespace(_)) => {
            meta.check(false)?;
            if meta.name.len() > 63 || meta.name.contains('.') {
                return Err(
                    BadObject::new("meta.name", "a namespace has at most 63 characters a-z, 0-9 and '-'").into()
                );
            }
        }
        Some(object::Kind::Config(c)) => {
            meta.check(true)?;
            c.spec.get_or_insert_default().check()?;
        }
        Some(object::Kind::Secret(s)) => {
            meta.check(true)?;
            s.spec.get_or_insert_default().check()?;
        }
        Some(object::Kind::Volume(v)) => {
            meta.check(true)?;
            v.spec.get_or_insert_default();
        }
        Some(object::Kind::Service(_)) => {
            ServiceView::try_from(&object)?;
        }
        Some(object::Kind::Node(_)) => meta.check(false)?,
        Some(object::Kind::Template(_) | object::Kind::Event(_)) => {
            let why = format!("a {} is made by the controller and cannot be applied", kind_word(kind));
            return Err(BadObject::new("kind", why).into());
        }
        Some(object::Kind::Token(_)) => {
            return Err(BadObject::new("kind", "a token is made with `ctl token create`").into());
        }
    }
    Ok(object)
}

/// A pod applied by hand. What the controller sets is compared with the present pod later.
fn pod(pod: &Pod) -> Result<(), BadObject> {
    let spec = pod.spec.as_ref().ok_or_else(|| BadObject::new("spec", "is missing"))?;
    if let Some(template) = &spec.template {
        PodTemplate::try_from(template).and_then(|_| words(template)).map_err(|e| e.below("spec.template"))?;
    }
    match Desired::try_from(spec.desired) {
        Ok(Desired::Run | Desired::Stopped) => Ok(()),
        _ => Err(BadObject::new("spec.desired", "Run or Stopped; use delete to remove a pod")),
    }
}

/// The fields of a new pod that only the controller sets.
pub(super) fn new_pod(spec: &PodSpec) -> Result<(), BadObject> {
    if spec.template.is_none() {
        return Err(BadObject::new("spec.template", "is missing"));
    }
    let controllers = [
        ("templateRevision", !spec.template_revision.is_empty()),
        ("workload", !spec.workload.is_empty()),
        ("node", !spec.node.is_empty()),
        ("addressIndex", spec.address_index != 0),
        ("ordinal", spec.ordinal != 0),
        ("predecessor", !spec.predecessor.is_empty()),
    ];
    match controllers.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(BadObject::new(format!("spec.{field}"), "is set by the controller: leave it out")),
        None => Ok(()),
    }
}

/// Enumerations that the model would read as their default, and what only template revisions have.
fn words(template: &types::PodTemplate) -> Result<(), BadObject> {
    RestartPolicy::try_from(template.restart_policy)
        .map_err(|_| BadObject::new("restartPolicy", "Always, OnFailure or Never"))?;
    for (i, c) in template.containers.iter().enumerate() {
        let at = |field: &str| format!("containers[{i}].{field}");
        PullPolicy::try_from(c.pull_policy)
            .map_err(|_| BadObject::new(at("pullPolicy"), "IfNotPresent, Always or Never"))?;
        if !c.image_digest.is_empty() {
            let why = "is found out by the cluster; to pin an image write NAME@sha256:... as its image";
            return Err(BadObject::new(at("imageDigest"), why));
        }
        for (j, port) in c.ports.iter().enumerate() {
            Protocol::try_from(port.protocol)
                .map_err(|_| BadObject::new(at(&format!("ports[{j}].protocol")), "TCP, UDP or SCTP"))?;
        }
    }
    Ok(())
}

/// Enumerations of a workload that the model would read as their default.
fn update_words(spec: &types::WorkloadSpec) -> Result<(), BadObject> {
    if let Some(update) = &spec.update {
        OnFailure::try_from(update.on_failure)
            .map_err(|_| BadObject::new("spec.update.onFailure", "Revert or Pause"))?;
    }
    if let Some(cron) = &spec.cron {
        Concurrency::try_from(cron.concurrency)
            .map_err(|_| BadObject::new("spec.cron.concurrency", "Allow, Forbid or Replace"))?;
    }
    Ok(())
}

fn annotations(meta: &Meta) -> Result<(), BadObject> {
    match meta.annotations.keys().find(|k| k.is_empty() || k.len() > 317) {
        Some(key) => {
            Err(BadObject::new(format!("meta.annotations[{key}]"), "a key has 1 to 317 characters (PREFIX/NAME)"))
        }
        None => Ok(()),
    }
}

/// The key that a request names, in normal form.
pub(super) fn key(kind: i32, namespace: &str, name: &str) -> Result<strata_store::Key, Refusal> {
    let kind = Kind::try_from(kind).ok().filter(|k| *k != Kind::Unspecified);
    let kind = kind.ok_or_else(|| Refusal::invalid("kind: is missing, or this controller does not know it"))?;
    if name.is_empty() {
        return Err(Refusal::invalid("name: is missing"));
    }
    let namespace = match (is_namespaced(kind), namespace) {
        (false, _) => "",
        (true, "") => super::namespaces::DEFAULT,
        (true, namespace) => namespace,
    };
    let name = match kind {
        Kind::Image => ImageName::parse(name).map_err(|e| Refusal::invalid(e.to_string()))?.to_string(),
        _ => name.to_owned(),
    };
    Ok(strata_store::Key::new(kind, namespace, name))
}
