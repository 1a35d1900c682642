//! The log: groups of changes, each ended by a seal.
//!
//! Key: group number, then piece number (u32::MAX: the seal), big-endian. Groups are numbered without gaps, so that a missing one is seen.
//! A group without a seal that fits is what a crash cut off, and was never acknowledged: it may only be the last.

use super::{apply_in_batches, damaged, of_sled, pieces};
use crate::backend::BackendError;
use std::{collections::VecDeque, path::PathBuf};
use strata_proto::store;

const SEAL: u32 = u32::MAX;

pub(super) struct Log {
    dir: PathBuf,
    tree: sled::Tree,
    last: u64,
    /// Number and pieces of the groups that are there, oldest first.
    groups: VecDeque<(u64, u32)>,
    /// Of all of them.
    pieces: u64,
    /// What [`Log::load`] found of covered and incomplete groups.
    left_over: Vec<Vec<u8>>,
}

impl Log {
    pub fn new(dir: PathBuf, tree: sled::Tree) -> Self {
        Self { dir, tree, last: 0, groups: VecDeque::new(), pieces: 0, left_over: Vec::new() }
    }

    /// Bytes of the groups that there are, at the most: what the next checkpoint may have to write again.
    pub fn bytes(&self) -> u64 {
        self.pieces * super::PIECE_BYTES as u64
    }

    /// The number of the newest group.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Reads the changes of every group after `dropped`. What a crash left of others stays until [`Log::clear`].
    pub fn load(&mut self, dropped: u64) -> Result<Vec<store::Change>, BackendError> {
        let mut changes = Vec::new();
        let mut left_over = Vec::new();
        let mut torn: Option<u64> = None;
        let mut open: Option<(u64, pieces::Gathered)> = None;
        self.last = dropped;
        for record in self.tree.iter() {
            let (key, value) = record.map_err(of_sled(&self.dir, "reading the log"))?;
            let (group, piece) = split(&key).ok_or_else(|| damaged(&self.dir, "a log record has a foreign key"))?;
            if group <= dropped {
                left_over.push(key.to_vec());
                continue;
            }
            if open.as_ref().is_none_or(|(g, _)| *g != group) {
                self.end_group(open.take(), &mut torn, &mut changes)?;
                open = Some((group, pieces::Gathered::default()));
            }
            if let Some((_, gathered)) = &mut open {
                if piece == SEAL { gathered.seal(&value) } else { gathered.piece(piece, &value) }
            }
        }
        self.end_group(open, &mut torn, &mut changes)?;
        if let Some(torn) = torn {
            for record in self.tree.range(torn.to_be_bytes().to_vec()..) {
                left_over.push(record.map_err(of_sled(&self.dir, "reading the log"))?.0.to_vec());
            }
        }
        self.left_over = left_over;
        Ok(changes)
    }

    /// Removes what a crash left, once it is sure that nothing of it was acknowledged.
    pub fn clear(&mut self) -> Result<(), BackendError> {
        if !self.left_over.is_empty() {
            tracing::info!(
                records = self.left_over.len(),
                "the log is cleared of what a crash left: groups that were never acknowledged or are kept elsewhere"
            );
        }
        let left_over = std::mem::take(&mut self.left_over);
        apply_in_batches(&self.tree, left_over.into_iter().map(|k| (k, None)))
            .map_err(of_sled(&self.dir, "clearing the log"))
    }

    fn end_group(
        &mut self,
        group: Option<(u64, pieces::Gathered)>,
        torn: &mut Option<u64>,
        changes: &mut Vec<store::Change>,
    ) -> Result<(), BackendError> {
        let Some((number, gathered)) = group else { return Ok(()) };
        if let Some(torn) = torn {
            return Err(damaged(&self.dir, &format!("group {torn} of the log is incomplete, but {number} follows it")));
        }
        if number != self.last + 1 {
            return Err(damaged(&self.dir, &format!("the log has no group {} before {number}", self.last + 1)));
        }
        let Some((_, payload)) = gathered.whole() else {
            *torn = Some(number);
            return Ok(());
        };
        let group = pieces::decode(payload)
            .map_err(|e| damaged(&self.dir, &format!("group {number} of the log cannot be decoded: {e}")))?;
        changes.extend(group);
        self.pieces += u64::from(gathered.pieces());
        self.groups.push_back((number, gathered.pieces()));
        self.last = number;
        Ok(())
    }

    /// Writes a group; it is not on disk yet.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, BackendError> {
        let number = self.last + 1;
        let seal = pieces::Seal::of(payload);
        let records = pieces::cut(payload)
            .map(|(piece, bytes)| (join(number, piece), Some(bytes.to_vec())))
            .chain([(join(number, SEAL), Some(seal.to_bytes()))]);
        apply_in_batches(&self.tree, records).map_err(of_sled(&self.dir, "writing the log"))?;
        self.last = number;
        self.groups.push_back((number, seal.pieces));
        self.pieces += u64::from(seal.pieces);
        Ok(number)
    }

    /// Removes the groups up to `position`, oldest first.
    pub fn drop_to(&mut self, position: u64) -> Result<(), BackendError> {
        let covered = self.groups.iter().take_while(|(n, _)| *n <= position).count();
        self.pieces -= self.groups.iter().take(covered).map(|(_, pieces)| u64::from(*pieces)).sum::<u64>();
        let keys =
            self.groups.drain(..covered).flat_map(|(n, pieces)| (0..pieces).chain([SEAL]).map(move |p| join(n, p)));
        apply_in_batches(&self.tree, keys.map(|k| (k, None))).map_err(of_sled(&self.dir, "dropping the log"))
    }
}

fn join(group: u64, piece: u32) -> Vec<u8> {
    [group.to_be_bytes().as_slice(), &piece.to_be_bytes()].concat()
}

fn split(key: &[u8]) -> Option<(u64, u32)> {
    let key: &[u8; 12] = key.try_into().ok()?;
    Some((u64::from_be_bytes(*key.first_chunk()?), u32::from_be_bytes(*key.last_chunk()?)))
}
