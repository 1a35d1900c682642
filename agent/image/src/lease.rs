//! Leases: what work in progress needs is not removed below it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use strata_model::Digest;

type Counts = HashMap<Digest, usize>;

/// How many leases hold each digest (of a blob or a layer).
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases(Arc<Mutex<Counts>>);

/// Holds digests until it is dropped.
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    held: Vec<Digest>,
}

impl Leases {
    /// An empty lease.
    pub(crate) fn begin(&self) -> Lease {
        Lease { leases: self.clone(), held: Vec::new() }
    }

    /// The counts, locked: nothing can be leased while the caller removes what nobody holds.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Holds one more digest.
    pub fn hold(&mut self, digest: &Digest) {
        *self.leases.lock().entry(digest.clone()).or_default() += 1;
        self.held.push(digest.clone());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut counts = self.leases.lock();
        for digest in &self.held {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}
