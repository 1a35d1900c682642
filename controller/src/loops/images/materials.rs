//! The configs and secrets that a template names: fixed in its revision, so that a change of them is a change of the template.
//!
//! What goes away after a revision was made changes nothing: its pods keep what they were made with.

use crate::{
    objects::meta,
    secrets::{Vault, VaultError},
    sessions::ResolveError,
};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use strata_proto::types::{
    ConfigSpec, Kind, Material, Object, PodTemplate, TemplateSpec, env_from, env_var, object, volume_source::Source,
};
use strata_store::{Key, Snapshot};

/// The configs and secrets of a template, each with whether it may be missing: only if everything that names it says so.
pub fn named(template: &PodTemplate) -> BTreeMap<(Kind, String), bool> {
    let mut found: BTreeMap<(Kind, String), bool> = BTreeMap::new();
    let mut add = |kind: Kind, name: &String, optional: bool| {
        let known = found.entry((kind, name.clone())).or_insert(true);
        *known &= optional;
    };
    for container in &template.containers {
        for variable in &container.env {
            match &variable.from {
                Some(env_var::From::Config(r)) => add(Kind::Config, &r.name, r.optional),
                Some(env_var::From::Secret(r)) => add(Kind::Secret, &r.name, r.optional),
                Some(env_var::From::Field(_)) | None => {}
            }
        }
        for all in &container.env_from {
            match &all.from {
                Some(env_from::From::Config(name)) => add(Kind::Config, name, all.optional),
                Some(env_from::From::Secret(name)) => add(Kind::Secret, name, all.optional),
                None => {}
            }
        }
    }
    for volume in &template.volumes {
        match &volume.source {
            Some(Source::Config(files)) => add(Kind::Config, &files.name, files.optional),
            Some(Source::Secret(files)) => add(Kind::Secret, &files.name, files.optional),
            _ => {}
        }
    }
    found
}

/// Whether a variable of the template refers to the pod's own labels or annotations.
pub fn names_fields(template: &PodTemplate) -> bool {
    let mut fields = template.containers.iter().flat_map(|c| &c.env).filter_map(|v| match &v.from {
        Some(env_var::From::Field(field)) => Some(field),
        _ => None,
    });
    fields.any(|f| f.starts_with("metadata.labels") || f.starts_with("metadata.annotations"))
}

/// The materials of a new revision. What `old` has of the same content is taken as it is.
///
/// # Errors
/// `ConfigNotFound`, `SecretNotFound`, `SecretUnreadable`: why the revision cannot be made yet.
pub fn collect(
    vault: &Vault,
    snapshot: &Snapshot,
    namespace: &str,
    template: &PodTemplate,
    old: &[Material],
) -> Result<Vec<Material>, ResolveError> {
    let mut materials = Vec::new();
    for ((kind, name), optional) in named(template) {
        let material = match present(vault, snapshot, namespace, kind, &name, old)? {
            Some(material) => material,
            None if optional => Material { kind: kind.into(), name, ..Material::default() },
            None => return Err(missing(kind, namespace, &name)),
        };
        materials.push(material);
    }
    Ok(materials)
}

/// The materials of a revision as they would be made now, if that is something else. What is gone stays as it was.
///
/// # Errors
/// `SecretUnreadable`.
pub fn changed(
    vault: &Vault,
    snapshot: &Snapshot,
    namespace: &str,
    revision: &TemplateSpec,
) -> Result<Option<Vec<Material>>, ResolveError> {
    let mut changed = false;
    let mut materials = revision.materials.clone();
    for material in &mut materials {
        let now = present(vault, snapshot, namespace, material.kind(), &material.name, &revision.materials)?;
        if let Some(now) = now.filter(|now| now.sha256 != material.sha256) {
            *material = now;
            changed = true;
        }
    }
    Ok(changed.then_some(materials))
}

fn present(
    vault: &Vault,
    snapshot: &Snapshot,
    namespace: &str,
    kind: Kind,
    name: &str,
    old: &[Material],
) -> Result<Option<Material>, ResolveError> {
    let Some(object) = snapshot.get(&Key::new(kind, namespace, name)) else { return Ok(None) };
    let known = |sha256: &str| old.iter().find(|m| m.kind() == kind && m.name == name && m.sha256 == sha256).cloned();
    match &object.kind {
        Some(object::Kind::Config(config)) => {
            let material = config_material(name, config.spec.as_ref().unwrap_or(&ConfigSpec::default()));
            Ok(Some(material))
        }
        Some(object::Kind::Secret(secret)) => {
            let sha256 = secret.status.as_ref().map_or("", |s| &s.sha256);
            match known(sha256) {
                Some(material) => Ok(Some(material)),
                None => vault.material(&object).map(Some).map_err(|e| unreadable(&object, &e)),
            }
        }
        _ => Ok(None),
    }
}

fn config_material(name: &str, spec: &ConfigSpec) -> Material {
    let text = spec.data.iter().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let data: BTreeMap<String, Vec<u8>> = text.chain(spec.binary.clone()).collect();
    let mut hash = Sha256::new();
    for part in data.iter().flat_map(|(k, v)| [k.as_bytes(), v.as_slice()]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Material {
        kind: Kind::Config.into(),
        name: name.to_owned(),
        sha256,
        data: data.into_iter().collect(),
        sealed: Vec::new(),
    }
}

fn missing(kind: Kind, namespace: &str, name: &str) -> ResolveError {
    let (word, reason) = match kind {
        Kind::Secret => ("secret", "SecretNotFound"),
        _ => ("config", "ConfigNotFound"),
    };
    let message = format!("there is no {word} {name} in namespace {namespace}: apply it, or mark it as optional");
    ResolveError { reason: reason.to_owned(), message }
}

fn unreadable(secret: &Object, error: &VaultError) -> ResolveError {
    let message = format!("secret {} cannot be opened: {error}", meta(secret).name);
    ResolveError { reason: "SecretUnreadable".to_owned(), message }
}

/// Who names which config or secret.
#[derive(Debug, Default)]
pub struct Users {
    materials: BTreeMap<Key, BTreeSet<Key>>,
    users: BTreeMap<Key, BTreeSet<Key>>,
}

impl Users {
    /// Notes what an object names now; nothing: it is forgotten.
    pub fn set(&mut self, user: &Key, names: BTreeSet<Key>) {
        let old = if names.is_empty() {
            self.materials.remove(user)
        } else {
            self.materials.insert(user.clone(), names.clone())
        };
        let old = old.unwrap_or_default();
        for gone in old.difference(&names) {
            if let Some(users) = self.users.get_mut(gone) {
                users.remove(user);
                if users.is_empty() {
                    self.users.remove(gone);
                }
            }
        }
        for new in names.difference(&old) {
            self.users.entry(new.clone()).or_default().insert(user.clone());
        }
    }

    /// Who names it.
    pub fn of(&self, material: &Key) -> impl Iterator<Item = &Key> {
        self.users.get(material).into_iter().flatten()
    }

    /// Everybody who names anything.
    pub fn all(&self) -> impl Iterator<Item = &Key> {
        self.materials.keys()
    }
}

/// The keys of what a template and its present revision name.
pub fn keys(namespace: &str, template: &PodTemplate, revision: Option<&TemplateSpec>) -> BTreeSet<Key> {
    let of_revision = revision.into_iter().flat_map(|r| r.materials.iter().map(|m| (m.kind(), m.name.clone())));
    named(template).into_keys().chain(of_revision).map(|(kind, name)| Key::new(kind, namespace, name)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use strata_proto::types::{Config, Container, EnvFrom, EnvVar, Files, KeyRef, Meta, VolumeSource};
    use strata_store::{Change, Condition, Store, backend};

    fn template() -> PodTemplate {
        let key = |name: &str, optional| KeyRef { name: name.into(), key: "k".into(), optional };
        let env = vec![
            EnvVar { from: Some(env_var::From::Secret(key("db", true))), ..EnvVar::default() },
            EnvVar { from: Some(env_var::From::Config(key("app", true))), ..EnvVar::default() },
        ];
        let from = Some(env_from::From::Config("app".into()));
        let env_from = vec![EnvFrom { from, ..EnvFrom::default() }];
        let files = Files { name: "tls".into(), optional: true, ..Files::default() };
        PodTemplate {
            containers: vec![Container { env, env_from, ..Container::default() }],
            volumes: vec![VolumeSource { name: "v".into(), source: Some(Source::Secret(files)) }],
            ..PodTemplate::default()
        }
    }

    #[test]
    fn a_name_may_be_missing_only_if_all_who_name_it_say_so() {
        let found: Vec<_> = named(&template()).into_iter().map(|((_, name), optional)| (name, optional)).collect();
        assert_eq!(found, [("app".to_owned(), false), ("db".to_owned(), true), ("tls".to_owned(), true)]);
    }

    #[tokio::test]
    async fn a_change_of_a_config_is_another_revision_and_its_end_is_not() {
        let store = Store::open(Box::new(backend::Memory::default())).unwrap();
        let vault = Vault::of_key(&[1; 32]);
        let put = |value: &str| {
            let meta = Meta { namespace: "default".into(), name: "app".into(), ..Meta::default() };
            let data = [("k".to_owned(), value.to_owned())].into();
            let spec = Some(ConfigSpec { data, ..ConfigSpec::default() });
            let object = Object { meta: Some(meta), kind: Some(object::Kind::Config(Config { spec })) };
            Change::put(object, Condition::None)
        };
        let missing = collect(&vault, &store.snapshot(), "default", &template(), &[]).unwrap_err();
        assert_eq!(missing.reason, "ConfigNotFound");
        assert!(missing.message.contains("no config app in namespace default"), "{}", missing.message);
        store.commit(vec![put("1")]).await.unwrap();
        let materials = collect(&vault, &store.snapshot(), "default", &template(), &[]).unwrap();
        assert_eq!(materials.len(), 3);
        assert_eq!(materials[1].sha256, "", "what is optional and missing");
        let revision = TemplateSpec { pod: Some(template()), materials, ..TemplateSpec::default() };
        assert!(changed(&vault, &store.snapshot(), "default", &revision).unwrap().is_none());
        store.commit(vec![put("2")]).await.unwrap();
        let materials = changed(&vault, &store.snapshot(), "default", &revision).unwrap().unwrap();
        let next = TemplateSpec { materials, ..revision.clone() };
        assert_ne!(next.revision_name(), revision.revision_name());
        assert_eq!(next.materials[0].data["k"], b"2");
        store.commit(vec![Change::delete(Key::new(Kind::Config, "default", "app"), Condition::None)]).await.unwrap();
        assert!(changed(&vault, &store.snapshot(), "default", &next).unwrap().is_none());
    }

    #[test]
    fn users_are_found_by_what_they_name() {
        let key = |name: &str| Key::new(Kind::Config, "default", name);
        let user = |name: &str| Key::new(Kind::Workload, "default", name);
        let mut users = Users::default();
        users.set(&user("a"), [key("x"), key("y")].into());
        users.set(&user("b"), [key("y")].into());
        assert_eq!(users.of(&key("y")).count(), 2);
        users.set(&user("a"), [key("x")].into());
        assert_eq!(users.of(&key("y")).collect::<Vec<_>>(), [&user("b")]);
        users.set(&user("b"), BTreeSet::new());
        assert_eq!((users.of(&key("y")).count(), users.all().count()), (0, 1));
    }
}
