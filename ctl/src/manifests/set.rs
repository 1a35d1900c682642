//! Sets: what belongs together by having been applied together, so that what is no longer in the files can be found.

use super::Manifest;
use crate::exit::Failure;
use std::collections::{BTreeSet, HashSet};
use strata_proto::types::{Kind, Object};

/// Label of objects that were applied as part of a set: the set's name.
pub const APPLIED_BY: &str = "strata.dev/applied-by";
/// Label that a Compose file's objects have: their project, which is their set unless another one is named.
const COMPOSE_PROJECT: &str = "com.docker.compose.project";

/// Kind, namespace and name.
pub type Key = (i32, String, String);

/// The key of an object.
pub fn key(object: &Object) -> Key {
    let meta = object.meta.clone().unwrap_or_default();
    (object.kind_of() as i32, meta.namespace, meta.name)
}

/// Whether it is a volume of a Compose file: as there, it outlives the services unless its end is asked for.
pub fn is_compose_volume(object: &Object) -> bool {
    let of_project = object.meta.as_ref().is_some_and(|meta| meta.labels.contains_key(COMPOSE_PROJECT));
    object.kind_of() == Kind::Volume && of_project
}

/// What one call applies.
#[derive(Debug, Default)]
pub struct Set {
    /// The names that were given to its objects.
    pub names: BTreeSet<String>,
    /// Where its objects are.
    pub namespaces: BTreeSet<String>,
    /// Its objects.
    pub objects: HashSet<Key>,
    /// Whether every object has such a name.
    pub complete: bool,
}

/// Marks objects as belonging to the set of this name; those of a Compose file without one to their project.
pub fn mark(manifests: &mut [Manifest], name: Option<&str>) {
    for Manifest { object, .. } in manifests {
        let meta = object.meta.get_or_insert_default();
        let of_project = meta.labels.get(COMPOSE_PROJECT).cloned();
        if let Some(name) = name.map(str::to_owned).or(of_project) {
            meta.labels.insert(APPLIED_BY.to_owned(), name);
        }
    }
}

impl Set {
    /// The set of these objects, once their namespaces are known.
    pub fn of<'o>(objects: impl IntoIterator<Item = &'o Object>) -> Self {
        let mut set = Self { complete: true, ..Self::default() };
        for object in objects {
            let meta = object.meta.clone().unwrap_or_default();
            match meta.labels.get(APPLIED_BY) {
                Some(name) => drop(set.names.insert(name.clone())),
                None => set.complete = false,
            }
            if !meta.namespace.is_empty() {
                set.namespaces.insert(meta.namespace.clone());
            }
            set.objects.insert(key(object));
        }
        set
    }

    /// Whether an object of one of its names is no longer part of it. What a workload made goes with its workload.
    pub fn lacks(&self, object: &Object) -> bool {
        let Some(meta) = &object.meta else { return false };
        let of_ours = meta.labels.get(APPLIED_BY).is_some_and(|name| self.names.contains(name));
        of_ours && meta.owner.is_empty() && meta.deleted.is_none() && !self.objects.contains(&key(object))
    }
}

/// What may be removed because the files no longer have it. A volume has data and a namespace has everything in it: both stay.
pub const PRUNED: [Kind; 5] = [Kind::Workload, Kind::Pod, Kind::Service, Kind::Config, Kind::Secret];

/// A set's name is the value of a label.
pub fn parse_name(text: &str) -> Result<String, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if text.len() <= 63 && text.chars().all(plain) && ends(text.chars().next()) && ends(text.chars().last()) {
        return Ok(text.to_owned());
    }
    Err(Failure::usage(format!(
        "{text:?} cannot be the name of a set: at most 63 letters, digits, '-', '_' and '.', the first and the last a letter or digit"
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_proto::types::{Config, Meta, object};

    fn config(name: &str, labels: &[(&str, &str)]) -> Object {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let meta = Meta { namespace: "n".into(), name: name.into(), labels, ..Default::default() };
        Object { meta: Some(meta), kind: Some(object::Kind::Config(Config::default())) }
    }

    #[test]
    fn only_what_an_earlier_apply_of_the_same_set_made_is_lacking() {
        let mut manifests: Vec<Manifest> = [config("a", &[]), config("b", &[(COMPOSE_PROJECT, "shop")])]
            .map(|object| Manifest { object, build: None })
            .into();
        mark(&mut manifests, None);
        let set = Set::of(manifests.iter().map(|m| &m.object));
        assert!(!set.complete && set.names.contains("shop") && set.names.len() == 1);
        mark(&mut manifests, Some("mine"));
        let set = Set::of(manifests.iter().map(|m| &m.object));
        assert!(set.complete && set.names.contains("mine") && set.names.len() == 1);
        assert!(set.lacks(&config("c", &[(APPLIED_BY, "mine")])));
        assert!(!set.lacks(&config("a", &[(APPLIED_BY, "mine")])), "still there");
        assert!(!set.lacks(&config("c", &[(APPLIED_BY, "yours")])) && !set.lacks(&config("c", &[])), "not ours");
        let mut made = config("c", &[(APPLIED_BY, "mine")]);
        made.meta.as_mut().unwrap().owner = "cron".into();
        assert!(!set.lacks(&made), "goes with what made it");
        for bad in ["", "a b", "-a", "a_", &"x".repeat(64)] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }
}
