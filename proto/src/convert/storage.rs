//! Volumes, environment and files of pods; configs, secrets and volumes as objects.

use super::BadObject;
use crate::types as wire;
use std::collections::HashSet;
use strata_model::{
    EnvFrom, EnvSource, EnvVar, Field, FileItem, Files, HostPathKind, KeyRef, Material, MaterialKind, Mount, Volume,
    VolumeSource, limits,
};

/// Longest key of a config or secret, characters.
const KEY_CHARS_MAX: usize = 253;

fn check_object_name(path: &str, what: &'static str, name: &str) -> Result<(), BadObject> {
    strata_model::check_name(what, name).map_err(|e| BadObject::new(path, e.to_string()))
}

fn check_key(path: impl Into<String>, key: &str) -> Result<(), BadObject> {
    let ok = !key.is_empty()
        && key.len() <= KEY_CHARS_MAX
        && !matches!(key, "." | "..")
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if ok {
        return Ok(());
    }
    Err(BadObject::new(path, format!("a key has 1 to {KEY_CHARS_MAX} letters, digits, '-', '_' and '.', not {key:?}")))
}

/// A path below something: no leading slash, no "..", no empty part.
fn check_relative(path: &str, text: &str) -> Result<(), BadObject> {
    let ok = !text.is_empty()
        && text.len() < 4096
        && !text.contains('\0')
        && text.split('/').all(|part| !part.is_empty() && part != ".." && part != "." && part.len() <= 255);
    if ok {
        Ok(())
    } else {
        Err(BadObject::new(path, format!("a relative path without '..' is expected, not {text:?}")))
    }
}

fn check_mode(path: &str, mode: u32) -> Result<(), BadObject> {
    if mode > 0o777 { Err(BadObject::new(path, "permission bits: 0 to 0777 (511)")) } else { Ok(()) }
}

pub(super) fn env_var(e: &wire::EnvVar) -> Result<EnvVar, BadObject> {
    let name_ok = !e.name.is_empty() && !e.name.contains(['=', '\0']);
    if !name_ok || e.value.contains('\0') {
        return Err(BadObject::new("", "a name is not empty and has no '=', neither name nor value has NUL"));
    }
    if e.from.is_some() && !e.value.is_empty() {
        return Err(BadObject::new("value", "either a value or where it comes from, not both"));
    }
    let key = |kind: MaterialKind, r: &wire::KeyRef| {
        check_object_name("name", "name", &r.name)?;
        check_key("key", &r.key)?;
        let reference = KeyRef { name: r.name.clone(), key: r.key.clone(), optional: r.optional };
        Ok::<_, BadObject>(EnvSource::Key(kind, reference))
    };
    let source = match &e.from {
        None => EnvSource::Value(e.value.clone()),
        Some(wire::env_var::From::Config(r)) => key(MaterialKind::Config, r).map_err(|e| e.below("config"))?,
        Some(wire::env_var::From::Secret(r)) => key(MaterialKind::Secret, r).map_err(|e| e.below("secret"))?,
        Some(wire::env_var::From::Field(text)) => EnvSource::Field(Field::parse(text).ok_or_else(|| {
            BadObject::new(
                "field",
                format!(
                    "{text:?} is none of metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, status.podIP, status.hostIP"
                ),
            )
        })?),
    };
    Ok(EnvVar { name: e.name.clone(), source })
}

pub(super) fn env_from(e: &wire::EnvFrom) -> Result<EnvFrom, BadObject> {
    let (kind, name) = match &e.from {
        Some(wire::env_from::From::Config(name)) => (MaterialKind::Config, name),
        Some(wire::env_from::From::Secret(name)) => (MaterialKind::Secret, name),
        None => return Err(BadObject::new("", "config or secret is missing")),
    };
    check_object_name(kind.word(), "name", name)?;
    if e.prefix.contains(['=', '\0']) {
        return Err(BadObject::new("prefix", "has no '=' and no NUL"));
    }
    Ok(EnvFrom { prefix: e.prefix.clone(), kind, name: name.clone(), optional: e.optional })
}

pub(super) fn mounts(list: &[wire::VolumeMount]) -> Result<Vec<Mount>, BadObject> {
    if list.len() > limits::MOUNTS_MAX {
        return Err(BadObject::new("mounts", format!("a container has at most {} mounts", limits::MOUNTS_MAX)));
    }
    let mut seen = HashSet::new();
    let one = |(i, m): (usize, &wire::VolumeMount)| {
        let at = |field: &str| format!("mounts[{i}].{field}");
        let path = normal_path(&at("path"), &m.path)?;
        if !seen.insert(path.clone()) {
            return Err(BadObject::new(at("path"), format!("two mounts are at {path}")));
        }
        let sub_path = m.sub_path.trim_end_matches('/');
        if !sub_path.is_empty() {
            check_relative(&at("subPath"), sub_path)?;
        }
        Ok(Mount { volume: m.volume.clone(), path, sub_path: sub_path.to_owned(), read_only: m.read_only })
    };
    list.iter().enumerate().map(one).collect()
}

/// An absolute path without "..", each slash once, none at the end; not the root and nothing below what every container has.
fn normal_path(at: &str, text: &str) -> Result<String, BadObject> {
    let absolute = text.starts_with('/') && text.len() < 4096 && !text.contains('\0');
    let parts: Vec<&str> = text.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if !absolute || parts.contains(&"..") {
        return Err(BadObject::new(at, format!("an absolute path without '..' is expected, not {text:?}")));
    }
    match parts.as_slice() {
        [] => Err(BadObject::new(at, "the root itself cannot be mounted over")),
        ["proc" | "sys", ..] => Err(BadObject::new(at, "/proc and /sys are the kernel's: choose another path")),
        ["dev"] => Err(BadObject::new(at, "/dev has the devices: mount below it")),
        parts => Ok(format!("/{}", parts.join("/"))),
    }
}

pub(super) fn volumes(list: &[wire::VolumeSource]) -> Result<Vec<Volume>, BadObject> {
    if list.len() > limits::VOLUMES_MAX {
        return Err(BadObject::new("volumes", format!("a pod has at most {} volumes", limits::VOLUMES_MAX)));
    }
    let mut seen = HashSet::new();
    let one = |(i, v): (usize, &wire::VolumeSource)| {
        if !seen.insert(v.name.clone()) {
            return Err(BadObject::new(format!("volumes[{i}].name"), format!("two volumes are named {:?}", v.name)));
        }
        volume(v).map_err(|e| e.below(&format!("volumes[{i}]")))
    };
    list.iter().enumerate().map(one).collect()
}

fn volume(v: &wire::VolumeSource) -> Result<Volume, BadObject> {
    check_object_name("name", "volume name", &v.name)?;
    if v.name.len() > 63 {
        return Err(BadObject::new("name", "at most 63 characters"));
    }
    let source = match &v.source {
        None => {
            return Err(BadObject::new("", "says nothing of what it is: volume, scratch, hostPath, config or secret"));
        }
        Some(wire::volume_source::Source::Volume(name)) => {
            // Of an ordered workload it is the name with a slot still to be filled in.
            check_object_name("volume", "volume name", &strata_model::slot_volume(name, 0))?;
            VolumeSource::Named(name.clone())
        }
        Some(wire::volume_source::Source::Scratch(s)) => {
            VolumeSource::Scratch { memory: s.memory, size_bytes: s.size_bytes }
        }
        Some(wire::volume_source::Source::HostPath(h)) => {
            if !h.path.starts_with('/') || h.path.contains('\0') || h.path.split('/').any(|p| p == "..") {
                return Err(BadObject::new("hostPath.path", "an absolute path of the node without '..'"));
            }
            let kind = match wire::host_path::Type::try_from(h.r#type) {
                Ok(wire::host_path::Type::Any) => HostPathKind::Any,
                Ok(wire::host_path::Type::Directory) => HostPathKind::Directory,
                Ok(wire::host_path::Type::DirectoryOrCreate) => HostPathKind::DirectoryOrCreate,
                Ok(wire::host_path::Type::File) => HostPathKind::File,
                Ok(wire::host_path::Type::FileOrCreate) => HostPathKind::FileOrCreate,
                Err(_) => {
                    let why = "Any, Directory, DirectoryOrCreate, File or FileOrCreate";
                    return Err(BadObject::new("hostPath.type", why));
                }
            };
            VolumeSource::HostPath { path: h.path.clone(), kind }
        }
        Some(wire::volume_source::Source::Config(f)) => {
            files(MaterialKind::Config, f).map(VolumeSource::Files).map_err(|e| e.below("config"))?
        }
        Some(wire::volume_source::Source::Secret(f)) => {
            files(MaterialKind::Secret, f).map(VolumeSource::Files).map_err(|e| e.below("secret"))?
        }
    };
    Ok(Volume { name: v.name.clone(), source })
}

fn files(kind: MaterialKind, f: &wire::Files) -> Result<Files, BadObject> {
    check_object_name("name", "name", &f.name)?;
    check_mode("mode", f.mode)?;
    let mode = if f.mode == 0 { limits::FILE_MODE_DEFAULT } else { f.mode };
    let mut paths = HashSet::new();
    let mut items = Vec::with_capacity(f.items.len());
    for (i, item) in f.items.iter().enumerate() {
        let at = |field: &str| format!("items[{i}].{field}");
        check_key(at("key"), &item.key)?;
        check_relative(&at("path"), &item.path)?;
        check_mode(&at("mode"), item.mode)?;
        if !paths.insert(item.path.as_str()) {
            return Err(BadObject::new(at("path"), format!("two files are at {:?}", item.path)));
        }
        let mode = if item.mode == 0 { mode } else { item.mode };
        items.push(FileItem { key: item.key.clone(), path: item.path.clone(), mode });
    }
    Ok(Files { kind, name: f.name.clone(), items, mode, optional: f.optional })
}

/// Every mount names a volume of its pod.
pub(super) fn check_mounted(containers: &[strata_model::Container], volumes: &[Volume]) -> Result<(), BadObject> {
    for (i, container) in containers.iter().enumerate() {
        for (j, mount) in container.mounts.iter().enumerate() {
            if volumes.iter().all(|v| v.name != mount.volume) {
                let known: Vec<&str> = volumes.iter().map(|v| v.name.as_str()).collect();
                return Err(BadObject::new(
                    format!("containers[{i}].mounts[{j}].volume"),
                    format!("the pod has no volume {:?}; it has: {}", mount.volume, known.join(", ")),
                ));
            }
        }
    }
    Ok(())
}

impl TryFrom<&wire::Material> for Material {
    type Error = BadObject;
    fn try_from(m: &wire::Material) -> Result<Self, BadObject> {
        let kind = match m.kind() {
            wire::Kind::Config => MaterialKind::Config,
            wire::Kind::Secret => MaterialKind::Secret,
            _ => return Err(BadObject::new("kind", "Config or Secret")),
        };
        let content = (!m.sha256.is_empty()).then(|| m.data.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
        Ok(Self { kind, name: m.name.clone(), content })
    }
}

impl wire::ConfigSpec {
    /// Checks keys and size.
    ///
    /// # Errors
    /// [`BadObject`] with the path below `spec`.
    pub fn check(&self) -> Result<(), BadObject> {
        let (mut bytes, mut seen) = (0, HashSet::new());
        let text = self.data.iter().map(|(k, v)| ("data", k, v.len()));
        for (field, key, len) in text.chain(self.binary.iter().map(|(k, v)| ("binary", k, v.len()))) {
            check_key(format!("spec.{field}[{key}]"), key)?;
            if !seen.insert(key) {
                return Err(BadObject::new(format!("spec.{field}[{key}]"), "is in data and in binary"));
            }
            bytes += key.len() + len;
        }
        check_bytes("spec.data", bytes)
    }
}

impl wire::SecretSpec {
    /// Checks keys and size of what is not sealed yet.
    ///
    /// # Errors
    /// [`BadObject`] with the path below `spec`.
    pub fn check(&self) -> Result<(), BadObject> {
        for key in self.data.keys() {
            check_key(format!("spec.data[{key}]"), key)?;
        }
        check_bytes("spec.data", self.data.iter().map(|(k, v)| k.len() + v.len()).sum())
    }
}

fn check_bytes(path: &str, bytes: usize) -> Result<(), BadObject> {
    if bytes <= limits::MATERIAL_BYTES_MAX {
        return Ok(());
    }
    Err(BadObject::new(path, format!("has {bytes} bytes, the limit is {} (1 MiB)", limits::MATERIAL_BYTES_MAX)))
}

#[cfg(test)]
#[path = "storage/tests.rs"]
mod tests;
