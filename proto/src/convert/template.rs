//! Pod templates.

use super::{BadObject, storage};
use crate::types as wire;
use std::collections::{BTreeMap, HashSet};
use strata_model::{
    Container, ContainerName, Digest, ImageName, Invalid, Labels, Layer, Material, PinnedImage, PodSecurity,
    PodTemplate, Port, Protocol, PullPolicy, Resources, RestartPolicy, RevisionName, Security, Template, limits,
};

fn labels(map: &std::collections::HashMap<String, String>) -> Labels {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

pub(super) fn check_labels(field: &str, map: &std::collections::HashMap<String, String>) -> Result<(), BadObject> {
    let part = |s: &str, empty_ok: bool| {
        (s.is_empty() && empty_ok)
            || (!s.is_empty()
                && s.len() <= 63
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
                && s.starts_with(|c: char| c.is_ascii_alphanumeric())
                && s.ends_with(|c: char| c.is_ascii_alphanumeric()))
    };
    for (k, v) in map {
        let name = match k.split_once('/') {
            Some((prefix, name)) if !prefix.is_empty() && prefix.len() <= 253 => name,
            Some(_) => {
                return Err(BadObject::new(
                    format!("{field}[{k}]"),
                    "the prefix of a label key is a DNS name of at most 253 characters",
                ));
            }
            None => k,
        };
        if !part(name, false) || !part(v, true) {
            return Err(BadObject::new(
                format!("{field}[{k}]"),
                "label keys and values have at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
            ));
        }
    }
    Ok(())
}

impl wire::Meta {
    /// Checks name, namespace and labels as every kind needs them.
    ///
    /// # Errors
    /// [`BadObject`] with the path below `meta`.
    pub fn check(&self, namespaced: bool) -> Result<(), BadObject> {
        let name = |field: &str, what, text: &str| {
            strata_model::check_name(what, text)
                .map_err(|e: Invalid| BadObject::new(format!("meta.{field}"), e.to_string()))
        };
        name("name", "name", &self.name)?;
        if namespaced {
            name("namespace", "namespace", &self.namespace)?;
        }
        check_labels("meta.labels", &self.labels)
    }
}

impl From<wire::Resources> for Resources {
    fn from(r: wire::Resources) -> Self {
        Self { cpu_millis: r.cpu_millis, memory_bytes: r.memory_bytes, pids: r.pids }
    }
}

impl From<Resources> for wire::Resources {
    fn from(r: Resources) -> Self {
        Self { cpu_millis: r.cpu_millis, memory_bytes: r.memory_bytes, pids: r.pids }
    }
}

impl TryFrom<&wire::PodTemplate> for PodTemplate {
    type Error = BadObject;

    fn try_from(t: &wire::PodTemplate) -> Result<Self, BadObject> {
        if t.containers.is_empty() || t.containers.len() > limits::CONTAINERS_MAX {
            return Err(BadObject::new(
                "containers",
                format!("a pod has 1 to {} containers, this one has {}", limits::CONTAINERS_MAX, t.containers.len()),
            ));
        }
        let mut seen = HashSet::new();
        let mut containers = Vec::with_capacity(t.containers.len());
        for (i, c) in t.containers.iter().enumerate() {
            let container = Container::try_from(c).map_err(|e| e.below(&format!("containers[{i}]")))?;
            if !seen.insert(c.name.as_str()) {
                return Err(BadObject::new(
                    format!("containers[{i}].name"),
                    format!("two containers are named {:?}", c.name),
                ));
            }
            containers.push(container);
        }
        check_labels("labels", &t.labels)?;
        check_labels("nodeSelector", &t.node_selector)?;
        let grace = t.termination_grace_s.unwrap_or(limits::TERMINATION_GRACE_DEFAULT_S);
        if grace > limits::TERMINATION_GRACE_MAX_S {
            return Err(BadObject::new(
                "terminationGraceS",
                format!("at most {} seconds", limits::TERMINATION_GRACE_MAX_S),
            ));
        }
        if !t.hostname.is_empty()
            && (t.hostname.len() > 63 || strata_model::check_name("hostname", &t.hostname).is_err())
        {
            return Err(BadObject::new("hostname", "at most 63 characters a-z, 0-9 and '-'"));
        }
        let volumes = storage::volumes(&t.volumes)?;
        storage::check_mounted(&containers, &volumes)?;
        let security = t.security.clone().unwrap_or_default();
        Ok(Self {
            labels: labels(&t.labels),
            annotations: labels(&t.annotations),
            containers,
            restart_policy: match t.restart_policy() {
                wire::pod_template::RestartPolicy::Always => RestartPolicy::Always,
                wire::pod_template::RestartPolicy::OnFailure => RestartPolicy::OnFailure,
                wire::pod_template::RestartPolicy::Never => RestartPolicy::Never,
            },
            termination_grace_s: grace,
            node_selector: labels(&t.node_selector),
            hostname: t.hostname.clone(),
            security: PodSecurity {
                run_as_user: security.run_as_user,
                run_as_group: security.run_as_group,
                run_as_non_root: security.run_as_non_root,
                supplemental_groups: security.supplemental_groups,
            },
            sysctls: labels(&t.sysctls),
            volumes,
        })
    }
}

impl TryFrom<&wire::Container> for Container {
    type Error = BadObject;

    fn try_from(c: &wire::Container) -> Result<Self, BadObject> {
        strata_model::check_name("container name", &c.name).map_err(|e| BadObject::new("name", e.to_string()))?;
        if c.name.len() > 63 || c.name.contains('.') {
            return Err(BadObject::new(
                "name",
                "a container name is a DNS label: at most 63 characters a-z, 0-9 and '-'",
            ));
        }
        let image = ImageName::parse(&c.image).map_err(|e| BadObject::new("image", e.to_string()))?;
        if !c.image_digest.is_empty() {
            c.image_digest.parse::<Digest>().map_err(|e| BadObject::new("imageDigest", e.to_string()))?;
        }
        let each = |i: usize, e: BadObject, list: &str| e.below(&format!("{list}[{i}]"));
        let env = c.env.iter().enumerate().map(|(i, e)| storage::env_var(e).map_err(|e| each(i, e, "env")));
        let env = env.collect::<Result<Vec<_>, _>>()?;
        let env_from = c.env_from.iter().enumerate();
        let env_from = env_from.map(|(i, e)| storage::env_from(e).map_err(|e| each(i, e, "envFrom")));
        let env_from = env_from.collect::<Result<Vec<_>, _>>()?;
        for (field, words) in [("command", &c.command), ("args", &c.args)] {
            if words.iter().any(|w| w.contains('\0')) {
                return Err(BadObject::new(field, "must not contain NUL"));
            }
        }
        let ports = c.ports.iter().enumerate().map(|(i, p)| {
            let number = u16::try_from(p.container_port).ok().filter(|n| *n > 0);
            let container_port =
                number.ok_or_else(|| BadObject::new(format!("ports[{i}].containerPort"), "1 to 65535"))?;
            let protocol = match p.protocol() {
                wire::port::Protocol::Tcp => Protocol::Tcp,
                wire::port::Protocol::Udp => Protocol::Udp,
                wire::port::Protocol::Sctp => Protocol::Sctp,
            };
            Ok(Port { name: p.name.clone(), container_port, protocol })
        });
        let limits = Resources::from(c.limits.unwrap_or_default());
        let requests = Resources::from(c.requests.unwrap_or_default());
        for (what, request, limit) in
            [("cpu", requests.cpu_millis, limits.cpu_millis), ("memory", requests.memory_bytes, limits.memory_bytes)]
        {
            if limit != 0 && request > limit {
                return Err(BadObject::new(
                    "requests",
                    format!("the request of {what} ({request}) is above its limit ({limit})"),
                ));
            }
        }
        if limits.memory_bytes != 0 && limits.memory_bytes < 512 << 10 {
            return Err(BadObject::new(
                "limits.memoryBytes",
                "at least 512 KiB: below that no process starts (did you mean Mi?)",
            ));
        }
        let s = c.security.clone().unwrap_or_default();
        let ports = ports.collect::<Result<Vec<_>, BadObject>>()?;
        Ok(Self {
            probes: super::probe::probes(c, &ports)?,
            name: ContainerName::from_trusted(c.name.clone()),
            image,
            image_digest: c.image_digest.clone(),
            pull_policy: match c.pull_policy() {
                wire::container::PullPolicy::IfNotPresent => PullPolicy::IfNotPresent,
                wire::container::PullPolicy::Always => PullPolicy::Always,
                wire::container::PullPolicy::Never => PullPolicy::Never,
            },
            command: c.command.clone(),
            args: c.args.clone(),
            env,
            env_from,
            mounts: storage::mounts(&c.mounts)?,
            working_dir: c.working_dir.clone(),
            requests,
            limits,
            ports,
            security: Security {
                run_as_user: s.run_as_user,
                run_as_group: s.run_as_group,
                run_as_non_root: s.run_as_non_root,
                read_only_root: s.read_only_root,
                add_capabilities: s.add_capabilities,
                drop_capabilities: s.drop_capabilities,
                allow_privilege_escalation: s.allow_privilege_escalation.unwrap_or(false),
            },
            stop_signal: c.stop_signal.clone(),
            tty: c.tty,
            stdin: c.stdin,
        })
    }
}

impl TryFrom<&wire::LayerInfo> for Layer {
    type Error = BadObject;
    fn try_from(l: &wire::LayerInfo) -> Result<Self, BadObject> {
        let diff_id = l.diff_id.parse().map_err(|e: Invalid| BadObject::new("diffId", e.to_string()))?;
        Ok(Self { diff_id, size_bytes: l.size_bytes })
    }
}

impl From<&Layer> for wire::LayerInfo {
    fn from(l: &Layer) -> Self {
        Self { diff_id: l.diff_id.to_string(), size_bytes: l.size_bytes }
    }
}

impl TryFrom<&wire::PinnedImage> for PinnedImage {
    type Error = BadObject;
    fn try_from(i: &wire::PinnedImage) -> Result<Self, BadObject> {
        Ok(Self {
            name: ImageName::parse(&i.name).map_err(|e| BadObject::new("name", e.to_string()))?,
            digest: i.digest.parse().map_err(|e: Invalid| BadObject::new("digest", e.to_string()))?,
            from_registry: i.from_registry,
            layers: i.layers.iter().map(Layer::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&PinnedImage> for wire::PinnedImage {
    fn from(i: &PinnedImage) -> Self {
        Self {
            name: i.name.to_string(),
            digest: i.digest.to_string(),
            from_registry: i.from_registry,
            layers: i.layers.iter().map(wire::LayerInfo::from).collect(),
        }
    }
}

impl wire::TemplateSpec {
    /// The model's template of this content under its revision name.
    ///
    /// # Errors
    /// [`BadObject`] if the content is not valid.
    pub fn template(&self, revision: &str) -> Result<Template, BadObject> {
        let spec = self;
        let pod = spec.pod.as_ref().ok_or_else(|| BadObject::new("spec.pod", "is missing"))?;
        Ok(Template {
            revision: RevisionName::from_trusted(revision),
            pod: PodTemplate::try_from(pod).map_err(|e| e.below("spec.pod"))?,
            images: spec.images.iter().map(PinnedImage::try_from).collect::<Result<_, _>>()?,
            materials: spec.materials.iter().map(Material::try_from).collect::<Result<_, _>>()?,
        })
    }

    /// The name of this template revision: the first 16 hex digits of the SHA-256 of its content, with maps in sorted order.
    /// Of its materials only the hashes count: sealed bytes are different each time.
    #[must_use]
    pub fn revision_name(&self) -> String {
        let mut named = self.clone();
        for material in &mut named.materials {
            material.data.clear();
            material.sealed.clear();
        }
        // serde_json sorts map keys only through its own map: go by way of a Value, whose maps are sorted.
        let value = serde_json::to_value(&named).unwrap_or_default();
        let sorted = sort(value).to_string();
        Digest::of(sorted.as_bytes()).hex()[..16].to_owned()
    }
}

fn sort(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => {
            let sorted: BTreeMap<String, serde_json::Value> = map.into_iter().map(|(k, v)| (k, sort(v))).collect();
            serde_json::Value::Object(sorted.into_iter().collect())
        }
        serde_json::Value::Array(list) => serde_json::Value::Array(list.into_iter().map(sort).collect()),
        other => other,
    }
}
