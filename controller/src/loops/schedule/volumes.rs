//! Volumes of pods that look for a node: where they are, and where they are from now on.

use crate::{edit::Keep, edit::changed, objects::meta};
use std::{collections::BTreeSet, sync::Arc};
use strata_model::NodeName;
use strata_proto::types::{Kind, Object, PodTemplate, object, volume_source::Source};
use strata_store::{Change, Condition, Key, Snapshot};

/// The Volume objects that a template names, each once.
pub fn names(template: &PodTemplate) -> Vec<String> {
    let named = template.volumes.iter().filter_map(|v| match &v.source {
        Some(Source::Volume(name)) => Some(name.clone()),
        _ => None,
    });
    named.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The volumes of one pod, all of which are there.
#[derive(Debug, Default)]
pub struct PodVolumes {
    objects: Vec<Arc<Object>>,
}

impl PodVolumes {
    /// Looks them up.
    ///
    /// # Errors
    /// Says which one is not there.
    pub fn look(snapshot: &Snapshot, namespace: &str, names: &[String]) -> Result<Self, String> {
        let one = |name: &String| match snapshot.get(&Key::new(Kind::Volume, namespace, name.clone())) {
            None => Err(format!("there is no volume {name} in namespace {namespace}: apply it")),
            Some(v) if meta(&v).deleted.is_some() => {
                Err(format!("volume {name} is being deleted: apply it again once it is gone"))
            }
            Some(volume) => Ok(volume),
        };
        Ok(Self { objects: names.iter().map(one).collect::<Result<_, _>>()? })
    }

    /// Those that are somewhere: name and node.
    pub fn bound(&self) -> Vec<(String, NodeName)> {
        let at = self.objects.iter().map(|o| (meta(o).name.clone(), node(o))).filter(|(_, node)| !node.is_empty());
        at.map(|(name, node)| (name, NodeName::from_trusted(node))).collect()
    }

    /// Those that are nowhere yet.
    pub fn unbound(&self) -> impl Iterator<Item = Key> {
        self.objects.iter().filter(|o| node(o).is_empty()).map(|o| Key::of(o))
    }

    /// What is committed with the pod's node: new volumes are bound to it, and none is deleted meanwhile. `seen` has the volumes
    /// that the same commit names already.
    pub fn changes(&self, to: &str, seen: &mut BTreeSet<Key>) -> Vec<Change> {
        let mut changes = Vec::new();
        for volume in self.objects.iter().filter(|v| seen.insert(Key::of(v))) {
            if !node(volume).is_empty() {
                changes.push(Change::check(Key::of(volume), Condition::Revision(meta(volume).revision)));
                continue;
            }
            let mut bound = Object::clone(volume);
            if let Some(object::Kind::Volume(v)) = &mut bound.kind {
                to.clone_into(&mut v.spec.get_or_insert_default().node);
            }
            changes.push(changed(bound, Keep::Durable));
        }
        changes
    }
}

/// Where a volume is; "" = nowhere yet.
pub fn node(volume: &Object) -> &str {
    match &volume.kind {
        Some(object::Kind::Volume(v)) => v.spec.as_ref().map_or("", |s| &s.node),
        _ => "",
    }
}
