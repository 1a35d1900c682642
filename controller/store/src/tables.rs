//! The objects in memory, and immutable views of them.

use crate::Key;
use imbl::OrdMap;
use std::sync::Arc;
use strata_proto::types::{Kind, Object, object};

type Objects = OrdMap<Key, Arc<Object>>;

/// All objects with their indexes: persistent maps, so that a clone costs nothing and a change copies one path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    objects: Objects,
    pods_of_node: OrdMap<String, Objects>,
    pods_of_workload: OrdMap<(String, String), Objects>,
    revision: u64,
}

impl Tables {
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }

    pub fn put(&mut self, key: Key, object: Arc<Object>) {
        let old = self.objects.insert(key.clone(), object.clone());
        if key.kind != Kind::Pod {
            return;
        }
        let (node, workload) = owners(&key, &object);
        if let Some(old) = old {
            let (old_node, old_workload) = owners(&key, &old);
            if old_node != node {
                leave(&mut self.pods_of_node, &old_node, &key);
            }
            if old_workload != workload {
                leave(&mut self.pods_of_workload, &old_workload, &key);
            }
        }
        join(&mut self.pods_of_node, node, &key, &object);
        join(&mut self.pods_of_workload, workload, &key, &object);
    }

    pub fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let old = self.objects.remove(key)?;
        if key.kind == Kind::Pod {
            let (node, workload) = owners(key, &old);
            leave(&mut self.pods_of_node, &node, key);
            leave(&mut self.pods_of_workload, &workload, key);
        }
        Some(old)
    }
}

/// The index entries of a pod; `None` where it has no such owner.
fn owners(key: &Key, object: &Object) -> (Option<String>, Option<(String, String)>) {
    let Some(object::Kind::Pod(pod)) = &object.kind else { return (None, None) };
    let spec = pod.spec.as_ref();
    let named = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let node = spec.and_then(|s| named(&s.node));
    let workload = spec.and_then(|s| named(&s.workload)).map(|w| (key.namespace.clone(), w));
    (node, workload)
}

fn join<K: Ord + Clone>(index: &mut OrdMap<K, Objects>, owner: Option<K>, key: &Key, object: &Arc<Object>) {
    if let Some(owner) = owner {
        index.entry(owner).or_default().insert(key.clone(), object.clone());
    }
}

fn leave<K: Ord + Clone>(index: &mut OrdMap<K, Objects>, owner: &Option<K>, key: &Key) {
    let Some(owner) = owner else { return };
    if let Some(pods) = index.get_mut(owner) {
        pods.remove(key);
        if pods.is_empty() {
            index.remove(owner);
        }
    }
}

/// An immutable view of all objects at one revision. Cheap to take, to clone and to keep.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) tables: Arc<Tables>,
}

impl Snapshot {
    /// The revision it shows.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.tables.revision
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.tables.get(key).cloned()
    }

    /// The objects of a kind (`Kind::Unspecified`: of all), in all namespaces or one, in the order of namespace and name.
    pub fn list<'a>(&'a self, kind: Kind, namespace: Option<&'a str>) -> impl Iterator<Item = Arc<Object>> + 'a {
        let from = Key::new(kind, namespace.unwrap_or_default(), "");
        self.tables
            .objects
            .range(from..)
            .take_while(move |(k, _)| {
                kind == Kind::Unspecified || (k.kind == kind && namespace.is_none_or(|n| n == k.namespace))
            })
            .filter(move |(k, _)| namespace.is_none_or(|n| n == k.namespace))
            .map(|(_, o)| o.clone())
    }

    /// The pods bound to a node.
    pub fn pods_of_node(&self, node: &str) -> impl Iterator<Item = Arc<Object>> + '_ {
        self.tables.pods_of_node.get(node).into_iter().flat_map(|pods| pods.values().cloned())
    }

    /// The pods of a workload.
    pub fn pods_of_workload(&self, namespace: &str, name: &str) -> impl Iterator<Item = Arc<Object>> + '_ {
        let owner = (namespace.to_owned(), name.to_owned());
        self.tables.pods_of_workload.get(&owner).into_iter().flat_map(|pods| pods.values().cloned())
    }
}
