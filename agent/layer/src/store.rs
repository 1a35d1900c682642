//! The layers of one node.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{Advice, AtFlags, FlockOperation, fadvise, flock, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use strata_model::{Algorithm, Digest};

use crate::directories::Directories;
use crate::erofs::LayerHeader;
use crate::error::{LayerError, Result};
use crate::mount::{self, MountMode};
use crate::overlay::{self, Overlay};
use crate::reader::TarReader;
use crate::seal::SealOptions;
use crate::verify;
use crate::writable::RootAttributes;
use crate::writer::{LayerWriter, Published, TEMPORARY};

/// The file of a layer without entries: the lower of images without layers, and what is mounted to find out how mounts work here.
const EMPTY: &str = ".empty";

/// How often a busy mount is asked to go, and how long is waited between.
const UNMOUNT_ATTEMPTS: u32 = 5;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(10);

struct Inner {
    directories: Directories,
    mode: MountMode,
    /// Held while mounts are made or removed; together with a lock on the directory for other processes.
    mounting: Mutex<()>,
    holds: Mutex<HashMap<Digest, u64>>,
    writers: AtomicU64,
    overlay_by_path: AtomicBool,
}

/// The layers below one state directory. Clones share all; every method may be called from any thread.
///
/// ```text
/// store.writer(Sha256) -> push tar bytes -> finish(Some(&diff_id))     a layer file appears
/// store.ensure_mounted(&diff_id)                                       and is mounted, once
/// prepare_writable(dir); store.mount_overlay(&layers, dir, userns)     a container's root, as a descriptor
/// ```
#[derive(Clone)]
pub struct LayerStore(Arc<Inner>);

impl std::fmt::Debug for LayerStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let layers = self.0.directories.layer_path("");
        f.debug_struct("LayerStore").field("layers", &layers).field("mode", &self.0.mode).finish_non_exhaustive()
    }
}

/// Layers that must not be removed while this lives. Kept in memory only: take it again for containers that are found running.
#[derive(Debug)]
pub struct Hold {
    store: LayerStore,
    digests: Vec<Digest>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.store.holds();
        for digest in &self.digests {
            if let Some(count) = holds.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    holds.remove(digest);
                }
            }
        }
    }
}

impl LayerStore {
    /// Opens the store below a state directory: makes `layers` and `mnt`, removes what dead writers left, and finds out by a mount
    /// how layers can be mounted from this file system.
    ///
    /// # Errors
    /// [`LayerError::Unsupported`] if layers cannot be mounted at all; else the I/O error.
    pub fn open(state: &Path) -> Result<Self> {
        let directories = Directories::open(state)?;
        let writers = AtomicU64::new(0);
        write_empty(&directories, &writers)?;
        let mode = mount::probe(&directories, EMPTY)?;
        tracing::info!(layers = %directories.layer_path("").display(), mode = mode.name(), "layer store is open");
        let (mounting, holds) = (Mutex::new(()), Mutex::new(HashMap::new()));
        let overlay_by_path = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner { directories, mode, mounting, holds, writers, overlay_by_path })))
    }

    /// How layers are mounted here.
    #[must_use]
    pub fn mount_mode(&self) -> MountMode {
        self.0.mode
    }

    /// Makes overlays from paths from now on, as kernels before 6.15 need. The store finds out by itself; this saves it the attempt.
    pub fn make_overlays_by_path(&self) {
        self.0.overlay_by_path.store(true, Ordering::Relaxed);
    }

    /// Whether a layer is mounted in the calling thread's mount namespace.
    ///
    /// # Errors
    /// If its place cannot be looked at, or something else is mounted there.
    pub fn is_mounted(&self, digest: &Digest) -> Result<bool> {
        mount::is_mounted(&self.0.directories, &digest.file_name())
    }

    /// The size of a layer's file in bytes, if the layer is here.
    ///
    /// # Errors
    /// If the file is there and cannot be read. A damaged file counts as absent.
    pub fn contains(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.read(digest)?.map(|(_, header)| header.file_bytes))
    }

    /// All layers with the sizes of their files in bytes, in the order of their digests.
    ///
    /// # Errors
    /// If the directory or a file cannot be read.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>> {
        let mut layers = Vec::new();
        for name in self.0.directories.layer_names()? {
            let Ok(digest) = Digest::from_file_name(&name) else { continue };
            if let Some(bytes) = self.contains(&digest)? {
                layers.push((digest, bytes));
            }
        }
        layers.sort_unstable();
        Ok(layers)
    }

    /// Begins a new layer whose digest will be in this algorithm.
    ///
    /// # Errors
    /// If the temporary file cannot be made.
    pub fn writer(&self, algorithm: Algorithm) -> Result<LayerWriter> {
        begin(&self.0.directories, &self.0.writers, algorithm)
    }

    /// Seals a writable layer (see [`crate::prepare_writable`]): what its container changed becomes a layer of its own. The writable layer stays.
    ///
    /// The cost is that of what was changed. Stop or freeze the container before, else files are caught in the middle of a write.
    ///
    /// # Errors
    /// [`LayerError::Unsealable`], [`LayerError::NoSpace`], or the I/O error. Nothing was published then.
    pub fn seal(&self, writable: &Path, options: SealOptions) -> Result<Published> {
        crate::seal::seal(&writable.join("u"), self.writer(Algorithm::Sha256)?, options)
    }

    /// The tar of a layer, exactly as it came.
    ///
    /// # Errors
    /// [`LayerError::Missing`], or the I/O error.
    pub fn open_tar(&self, digest: &Digest) -> Result<TarReader> {
        let (file, header) = self.read(digest)?.ok_or_else(|| LayerError::Missing(digest.clone()))?;
        Ok(TarReader::new(file, header.tar_bytes))
    }

    /// Reads a layer again: its tar must hash to its digest, and header and index must be what this tar gives.
    ///
    /// # Errors
    /// [`LayerError::Missing`], [`LayerError::DigestMismatch`] or [`LayerError::Damaged`].
    pub fn verify(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        let (file, header) = self.read(digest)?.ok_or_else(|| LayerError::Missing(digest.clone()))?;
        verify::verify(&file, &path, digest, &header)
    }

    /// The layer's file, whether it is there or not.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.0.directories.layer_path(&digest.file_name())
    }

    /// Keeps layers from being removed for as long as the answer lives.
    #[must_use]
    pub fn hold(&self, digests: &[Digest]) -> Hold {
        let mut holds = self.holds();
        for digest in digests {
            *holds.entry(digest.clone()).or_default() += 1;
        }
        Hold { store: self.clone(), digests: digests.to_vec() }
    }

    /// Unmounts and deletes a layer. A layer that is not here is no error.
    ///
    /// A container whose root was made from it is not disturbed: the kernel keeps the file's data until the last such root is gone.
    /// Disk space returns only then, so callers keep a [`Hold`] for running containers.
    ///
    /// # Errors
    /// [`LayerError::InUse`] if it is held, or files below its mount are open.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        let name = digest.file_name();
        let directories = &self.0.directories;
        let _lock = self.lock_mounts()?;
        if self.holds().contains_key(digest) {
            return Err(LayerError::InUse(digest.clone()));
        }
        let place = directories.mount_path(&name);
        if mount::is_mounted(directories, &name)? {
            unmount_patiently(&place).map_err(|error| match error {
                Errno::BUSY => LayerError::InUse(digest.clone()),
                error => LayerError::io("unmounting", &place, error),
            })?;
        }
        ignore_missing(unlinkat(directories.mounts(), &name, AtFlags::REMOVEDIR), "removing", &place)?;
        ignore_missing(
            unlinkat(directories.layers(), &name, AtFlags::empty()),
            "removing",
            &directories.layer_path(&name),
        )
    }

    /// Mounts a layer in the calling thread's mount namespace unless it is, and says where: `STATE/mnt/<file name>`.
    ///
    /// The mount outlives this process if the namespace does; the next one finds it and makes no second (which would cache all
    /// files twice).
    ///
    /// # Errors
    /// [`LayerError::Missing`] or [`LayerError::Mount`].
    pub fn ensure_mounted(&self, digest: &Digest) -> Result<PathBuf> {
        let name = digest.file_name();
        let path = self.0.directories.mount_path(&name);
        if mount::is_mounted(&self.0.directories, &name)? {
            return Ok(path);
        }
        if self.read(digest)?.is_none() {
            return Err(LayerError::Missing(digest.clone()));
        }
        let _lock = self.lock_mounts()?;
        mount::ensure(&self.0.directories, &name, self.0.mode)
    }

    /// Drops the layer file's pages from the page cache; the mount's own pages stay. Call it some seconds after pulls and starts.
    ///
    /// # Errors
    /// [`LayerError::Missing`], or the I/O error.
    pub fn drop_duplicate_cache(&self, digest: &Digest) -> Result<()> {
        let (file, _) = self.read(digest)?.ok_or_else(|| LayerError::Missing(digest.clone()))?;
        fadvise(&file, 0, None, Advice::DontNeed)
            .map_err(|error| LayerError::io("advising on", self.path(digest), error))
    }

    /// Makes a container's root: its layers, the lowest first, below its writable directory (see [`crate::prepare_writable`]).
    ///
    /// The answer is a detached mount: it goes when the last descriptor and the last place where it is attached go. With a user
    /// namespace all files belong to its ids; on disk they keep their plain ones. `volatile` leaves out every sync: such a
    /// writable directory must be discarded after a crash of the machine.
    ///
    /// # Errors
    /// [`LayerError::Missing`], [`LayerError::RootUnmapped`], [`LayerError::TooManyLayers`] or [`LayerError::Mount`].
    pub fn mount_overlay(
        &self,
        lowers: &[Digest],
        writable: &Path,
        userns: Option<BorrowedFd<'_>>,
        volatile: bool,
    ) -> Result<OwnedFd> {
        let lowers = self.lowers(lowers)?;
        overlay::mount(&Overlay {
            lowers: &lowers,
            writable: Some(writable),
            userns,
            volatile,
            by_path: &self.0.overlay_by_path,
        })
    }

    /// Makes a read-only root of layers, the lowest first.
    ///
    /// # Errors
    /// As [`LayerStore::mount_overlay`].
    pub fn mount_read_only(&self, lowers: &[Digest], userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
        if lowers.is_empty() {
            return overlay::clone(&self.empty()?, userns);
        }
        let mut lowers = self.lowers(lowers)?;
        // overlayfs wants two layers, and only overlayfs hides what a whiteout is made of.
        lowers.push(self.empty()?);
        overlay::mount(&Overlay {
            lowers: &lowers,
            writable: None,
            userns,
            volatile: false,
            by_path: &self.0.overlay_by_path,
        })
    }

    /// Owner and mode of the root directory that these layers (the lowest first) give.
    ///
    /// # Errors
    /// [`LayerError::Missing`] or [`LayerError::Mount`].
    pub fn root_attributes(&self, lowers: &[Digest]) -> Result<RootAttributes> {
        match lowers.last() {
            Some(top) => RootAttributes::of(&self.ensure_mounted(top)?),
            None => Ok(RootAttributes::default()),
        }
    }

    /// The mounts of layers, the highest first.
    fn lowers(&self, lowers: &[Digest]) -> Result<Vec<PathBuf>> {
        if lowers.is_empty() {
            return Ok(vec![self.empty()?]);
        }
        lowers.iter().rev().map(|digest| self.ensure_mounted(digest)).collect()
    }

    fn empty(&self) -> Result<PathBuf> {
        let _lock = self.lock_mounts()?;
        mount::ensure(&self.0.directories, EMPTY, self.0.mode)
    }

    fn read(&self, digest: &Digest) -> Result<Option<(std::fs::File, LayerHeader)>> {
        Ok(self.0.directories.read_header(&digest.file_name())?.filter(|(_, header)| header.digest == *digest))
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<Digest, u64>> {
        self.0.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_mounts(&self) -> Result<MountLock<'_>> {
        let thread = self.0.mounting.lock().unwrap_or_else(PoisonError::into_inner);
        let process = self.0.directories.mounts();
        flock(process, FlockOperation::LockExclusive)
            .map_err(|error| LayerError::io("locking", self.0.directories.mount_path(""), error))?;
        Ok(MountLock { process, _thread: thread })
    }
}

/// Excludes other threads and other processes from making mounts.
struct MountLock<'a> {
    process: BorrowedFd<'a>,
    _thread: MutexGuard<'a, ()>,
}

impl Drop for MountLock<'_> {
    fn drop(&mut self) {
        if let Err(error) = flock(self.process, FlockOperation::Unlock) {
            tracing::warn!(%error, "unlocking the directory of mounts failed");
        }
    }
}

fn begin(directories: &Directories, writers: &AtomicU64, algorithm: Algorithm) -> Result<LayerWriter> {
    let number = writers.fetch_add(1, Ordering::Relaxed);
    let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let name = format!("{TEMPORARY}{}-{number}-{start:x}", std::process::id());
    LayerWriter::new(directories.clone(), name, algorithm)
}

/// Writes the layer without entries unless it is there: an archive of nothing but its end.
fn write_empty(directories: &Directories, writers: &AtomicU64) -> Result<()> {
    if directories.read_header(EMPTY)?.is_some() {
        return Ok(());
    }
    let mut writer = begin(directories, writers, Algorithm::Sha256)?;
    writer.push(&[0; 1024])?;
    writer.finish_as(None, Some(EMPTY)).map(|_| ())
}

/// A child between fork and exec holds copies of this process's descriptors for a moment, so a busy mount is asked again.
fn unmount_patiently(place: &Path) -> Result<(), Errno> {
    for _ in 1..UNMOUNT_ATTEMPTS {
        match unmount(place, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => std::thread::sleep(UNMOUNT_PAUSE),
            result => return result,
        }
    }
    unmount(place, UnmountFlags::NOFOLLOW)
}

fn ignore_missing(result: Result<(), Errno>, doing: &'static str, path: &Path) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(LayerError::io(doing, path, error)),
    }
}
