//! The objects: pods 64 to a chunk, others one to a chunk.
//!
//! Key: kind, id, version, piece number (u32::MAX: the seal). The id of a pod chunk is its number, that of others `namespace 0 name`; the version is the number
//! of the checkpoint that wrote it. A chunk is written beside its older version, which is removed only when the new one is on disk: so one whole version is always there.
//! A chunk that lost its last object is written empty before its older version goes, then removed.

use super::{apply_in_batches, damaged, digest::Digest, key_of, of_sled, pieces};
use crate::{Key, Snapshot, backend::BackendError};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};
use strata_proto::{store, types::Kind};

const PODS_PER_CHUNK: usize = 64;
const SEAL: u32 = u32::MAX;

/// Kind and id.
type Id = Vec<u8>;

pub(super) struct Chunks {
    dir: PathBuf,
    tree: sled::Tree,
    /// Which version of each chunk is there, in how many pieces.
    present: HashMap<Id, Version>,
    /// Over `present`.
    digest: Digest,
    slots: Slots,
    /// The number of the last checkpoint that was begun.
    version: u64,
}

#[derive(Debug, Clone, Copy)]
struct Version {
    version: u64,
    seal: pieces::Seal,
}

/// Versions that are no longer needed: their ids, numbers and pieces.
pub(super) struct Replaced(Vec<(Id, u64, u32)>);

/// The places of pods in their chunks.
#[derive(Default)]
struct Slots {
    of: HashMap<Key, usize>,
    taken: Vec<Option<Key>>,
    free: BTreeSet<usize>,
}

impl Slots {
    fn take(&mut self, key: &Key) -> usize {
        if let Some(slot) = self.of.get(key) {
            return *slot;
        }
        let slot = self.free.pop_first().unwrap_or_else(|| {
            self.taken.push(None);
            self.taken.len() - 1
        });
        self.put(key.clone(), slot);
        slot
    }

    fn put(&mut self, key: Key, slot: usize) {
        while self.taken.len() <= slot {
            self.free.insert(self.taken.len());
            self.taken.push(None);
        }
        self.free.remove(&slot);
        self.taken[slot] = Some(key.clone());
        self.of.insert(key, slot);
    }

    fn leave(&mut self, key: &Key) -> Option<usize> {
        let slot = self.of.remove(key)?;
        self.taken[slot] = None;
        self.free.insert(slot);
        Some(slot)
    }

    fn chunk(&self, number: usize) -> impl Iterator<Item = &Key> {
        let from = (number * PODS_PER_CHUNK).min(self.taken.len());
        let to = (from + PODS_PER_CHUNK).min(self.taken.len());
        self.taken[from..to].iter().flatten()
    }
}

impl Chunks {
    pub fn new(dir: PathBuf, tree: sled::Tree) -> Self {
        Self { dir, tree, present: HashMap::new(), digest: Digest::default(), slots: Slots::default(), version: 0 }
    }

    /// Reads every chunk as this checkpoint left it. Returns the objects, and what a crash left of other versions.
    pub fn load(&mut self, checkpoint: u64) -> Result<(Vec<store::Change>, Replaced), BackendError> {
        self.version = checkpoint;
        let mut versions: BTreeMap<Id, Vec<(u64, pieces::Gathered)>> = BTreeMap::new();
        for record in self.tree.iter() {
            let (key, value) = record.map_err(of_sled(&self.dir, "reading the chunks"))?;
            let (id, version, piece) =
                split(&key).ok_or_else(|| damaged(&self.dir, "a chunk record has a foreign key"))?;
            let list = versions.entry(id.to_vec()).or_default();
            if list.last().is_none_or(|(v, _)| *v != version) {
                list.push((version, pieces::Gathered::default()));
            }
            if let Some((_, gathered)) = list.last_mut() {
                if piece == SEAL { gathered.seal(&value) } else { gathered.piece(piece, &value) }
            }
        }
        let mut objects = Vec::new();
        let mut stale = Vec::new();
        for (id, list) in versions {
            // Versions above the last checkpoint are of one that a crash cut off; the log still has what they say.
            let newest = list.iter().rposition(|(version, _)| *version <= checkpoint);
            for (place, (version, gathered)) in list.into_iter().enumerate() {
                if Some(place) != newest {
                    stale.push((id.clone(), version, gathered.pieces()));
                    continue;
                }
                let (seal, payload) = gathered.whole().ok_or_else(|| {
                    damaged(&self.dir, &format!("chunk {} of checkpoint {version} is incomplete", hex(&id)))
                })?;
                let changes = pieces::decode(payload)
                    .map_err(|e| damaged(&self.dir, &format!("chunk {} cannot be decoded: {e}", hex(&id))))?;
                if changes.is_empty() {
                    stale.push((id.clone(), version, seal.pieces));
                    continue;
                }
                self.digest.add(&id, version, seal);
                self.present.insert(id.clone(), Version { version, seal });
                self.place(&id, &changes);
                objects.extend(changes);
            }
        }
        Ok((objects, Replaced(stale)))
    }

    /// The digest over the chunks that there are, for the next checkpoint's marker.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Gives the pods of a chunk that was read their places again.
    fn place(&mut self, id: &Id, pods: &[store::Change]) {
        let Some(number) = pod_chunk(id) else { return };
        for (at, pod) in pods.iter().enumerate() {
            self.slots.put(key_of(pod), number * PODS_PER_CHUNK + at);
        }
    }

    /// The number of the last checkpoint that was begun.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Begins a checkpoint: writes new versions of the chunks that these keys are in.
    pub fn write(&mut self, snapshot: &Snapshot, dirty: &[Key]) -> Result<Replaced, BackendError> {
        self.version += 1;
        let mut pod_chunks = BTreeSet::new();
        let mut replaced = Vec::new();
        for key in dirty {
            if key.kind != Kind::Pod {
                let id = [
                    &[u8::try_from(i32::from(key.kind)).unwrap_or(0)],
                    key.namespace.as_bytes(),
                    b"\0",
                    key.name.as_bytes(),
                ]
                .concat();
                self.write_chunk(snapshot, id, &[key], &mut replaced)?;
            } else if snapshot.get(key).is_some() {
                pod_chunks.insert(self.slots.take(key) / PODS_PER_CHUNK);
            } else if let Some(slot) = self.slots.leave(key) {
                pod_chunks.insert(slot / PODS_PER_CHUNK);
            }
        }
        for number in pod_chunks {
            let keys: Vec<Key> = self.slots.chunk(number).cloned().collect();
            let id =
                [&[u8::try_from(i32::from(Kind::Pod)).unwrap_or(0)], (number as u64).to_be_bytes().as_slice()].concat();
            self.write_chunk(snapshot, id, &keys.iter().collect::<Vec<_>>(), &mut replaced)?;
        }
        Ok(Replaced(replaced))
    }

    fn write_chunk(
        &mut self,
        snapshot: &Snapshot,
        id: Id,
        keys: &[&Key],
        replaced: &mut Vec<(Id, u64, u32)>,
    ) -> Result<(), BackendError> {
        let objects: Vec<store::Change> = keys
            .iter()
            .filter_map(|key| {
                let object = snapshot.get(key)?;
                Some(store::Change {
                    kind: key.kind.into(),
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    revision: object.meta.as_ref().map_or(0, |m| m.revision),
                    object: Some((*object).clone()),
                })
            })
            .collect();
        let old = self.present.get(&id).copied();
        if objects.is_empty() && old.is_none() {
            return Ok(());
        }
        let payload = pieces::encode(&objects);
        let seal = pieces::Seal::of(&payload);
        let new = Version { version: self.version, seal };
        let records = pieces::cut(&payload)
            .map(|(piece, bytes)| (join(&id, new.version, piece), Some(bytes.to_vec())))
            .chain([(join(&id, new.version, SEAL), Some(seal.to_bytes()))]);
        apply_in_batches(&self.tree, records).map_err(of_sled(&self.dir, "writing chunks"))?;
        if let Some(old) = old {
            self.digest.remove(&id, old.version, old.seal);
            replaced.push((id.clone(), old.version, old.seal.pieces));
        }
        if objects.is_empty() {
            self.present.remove(&id);
            replaced.push((id, new.version, seal.pieces));
        } else {
            self.digest.add(&id, new.version, seal);
            self.present.insert(id, new);
        }
        Ok(())
    }

    /// Removes versions, in order, whose successors are on disk.
    pub fn remove(&self, replaced: &Replaced) -> Result<(), BackendError> {
        let keys = replaced
            .0
            .iter()
            .flat_map(|(id, version, pieces)| (0..*pieces).chain([SEAL]).map(move |piece| join(id, *version, piece)));
        apply_in_batches(&self.tree, keys.map(|k| (k, None))).map_err(of_sled(&self.dir, "removing old chunks"))
    }
}

fn pod_chunk(id: &[u8]) -> Option<usize> {
    let (kind, number) = id.split_first()?;
    let number: [u8; 8] = number.try_into().ok()?;
    (i32::from(*kind) == i32::from(Kind::Pod)).then(|| usize::try_from(u64::from_be_bytes(number)).ok())?
}

fn join(id: &[u8], version: u64, piece: u32) -> Vec<u8> {
    [id, &version.to_be_bytes(), &piece.to_be_bytes()].concat()
}

fn split(key: &[u8]) -> Option<(&[u8], u64, u32)> {
    let (rest, piece) = key.split_last_chunk()?;
    let (id, version) = rest.split_last_chunk()?;
    (!id.is_empty()).then_some((id, u64::from_be_bytes(*version), u32::from_be_bytes(*piece)))
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}
