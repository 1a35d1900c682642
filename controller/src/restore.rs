//! Restoring a backup into an empty state directory, while no controller runs: `strata-controller restore --config FILE BACKUP`.
//!
//! The store is built beside its place and moved there when the whole backup has been read and its checksum was right: a restore that is broken off leaves
//! no store at all. The cluster's keys (`pki/`) must be there already, from the old state directory or a copy of it: the agents trust no others.

use crate::{api::Pki, serve};
use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};
use strata_proto::{
    backup::{BackupError, Reader},
    store::{BackupHeader, Change},
};
use strata_store::{
    Store, StoreError,
    backend::{Backend as _, BackendError, Sled},
    limits::{GROUP_BYTES, GROUP_CHANGES},
};
use strata_transport::{TransportError, pki::Ca};

/// Revisions between the backup's and the first new one: more than any controller gave out after the backup was taken, so that none is given twice.
pub const REVISIONS_SKIPPED: u64 = 1 << 32;
/// Where the store is built.
const BUILD_DIR: &str = "store.restoring";

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The state directory is in use, or cannot be used.
    #[error(transparent)]
    State(#[from] serve::ServeError),
    /// There is a store already.
    #[error(
        "{path} is not empty: a backup is only restored into a state directory without a store; move it away first, and keep it until you are sure"
    )]
    NotEmpty {
        /// The store.
        path: PathBuf,
    },
    /// The cluster's keys are not there.
    #[error("{path} is not there: copy pki/ (and secret-key, if there is one) of the old state directory, or your copy of them, to {} first; without them the nodes would not know this controller", state_dir.display())]
    NoKeys {
        /// The CA's certificate.
        path: PathBuf,
        /// Where it belongs.
        state_dir: PathBuf,
    },
    /// The keys are another cluster's.
    #[error(
        "the backup is of cluster {backup}, but the keys in the state directory are those of cluster {keys}: restore it beside its own keys"
    )]
    OtherCluster {
        /// The backup's.
        backup: String,
        /// The keys'.
        keys: String,
    },
    /// The backup.
    #[error("the backup {path}: {source}")]
    Backup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BackupError,
    },
    /// Certificates.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The new store.
    #[error("the new store: {0}")]
    Backend(#[from] BackendError),
    /// Its last checkpoint.
    #[error("the new store: {0}")]
    Store(#[from] StoreError),
    /// A file.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// What the backup said of itself.
    pub header: BackupHeader,
    /// How many objects it had.
    pub objects: u64,
}

/// Restores; blocks on the disk. Call it inside an async runtime of several threads.
///
/// # Errors
/// [`RestoreError`]; there is no store then, as before.
pub async fn restore(state_dir: &Path, backup: &Path) -> Result<Restored, RestoreError> {
    let _lock = serve::lock_state(state_dir)?;
    let (place, build) = (state_dir.join("store"), state_dir.join(BUILD_DIR));
    if place.exists() {
        return Err(RestoreError::NotEmpty { path: place });
    }
    let pki = state_dir.join("pki");
    if !Ca::exists(&pki) {
        return Err(RestoreError::NoKeys { path: pki.join("ca.pem"), state_dir: state_dir.to_owned() });
    }
    let keys = Pki::open(state_dir)?.cluster_id().to_owned();
    remove(&build)?;
    let restored = fill(&build, backup, &keys).await;
    if restored.is_err() {
        remove(&build)?;
        return restored;
    }
    fs::rename(&build, &place).map_err(file("moving", &build))?;
    File::open(state_dir).and_then(|d| d.sync_all()).map_err(file("syncing", state_dir))?;
    restored
}

async fn fill(build: &Path, backup: &Path, keys: &str) -> Result<Restored, RestoreError> {
    let bad = |source| RestoreError::Backup { path: backup.to_owned(), source };
    let from = File::open(backup).map_err(|e| bad(e.into()))?;
    let mut reader = Reader::open(BufReader::new(from)).map_err(bad)?;
    let header = reader.header().clone();
    if header.cluster_id != keys {
        return Err(RestoreError::OtherCluster { backup: header.cluster_id, keys: keys.to_owned() });
    }
    let mut objects = 0;
    let store = Sled::open(build)?;
    store.load()?;
    let (mut group, mut bytes) = (Vec::<Change>::new(), 0);
    while let Some(change) = reader.read().map_err(bad)? {
        objects += 1;
        bytes += prost::Message::encoded_len(&change);
        group.push(change);
        if group.len() >= GROUP_CHANGES || bytes >= GROUP_BYTES {
            store.append(&std::mem::take(&mut group))?;
            bytes = 0;
        }
    }
    if !group.is_empty() {
        store.append(&group)?;
    }
    store.reserve(header.revision + REVISIONS_SKIPPED)?;
    drop(store);
    // Opened once as a store: that reads everything back, and closing it writes the checkpoint.
    let opened = Store::open(Box::new(Sled::open(build)?))?;
    let found = opened.snapshot().list(strata_proto::types::Kind::Unspecified, None).count() as u64;
    opened.close().await;
    if found != objects {
        let what = format!("{objects} objects in it, {found} different ones");
        return Err(bad(BackupError::Damaged { what }));
    }
    Ok(Restored { header, objects })
}

fn remove(dir: &Path) -> Result<(), RestoreError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file("removing", dir)(e)),
        _ => Ok(()),
    }
}

fn file<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> RestoreError + 'a {
    move |source| RestoreError::File { doing, path: path.to_owned(), source }
}
