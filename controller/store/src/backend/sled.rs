//! The embedded backend: a log and lazily rewritten chunks inside one sled database (0.34).
//!
//! Trees: `meta` (level, reserved revision, markers), `log` (groups, see `log.rs`), `chunks` (the objects, see `chunks.rs`).
//!
//! What is loaded is exactly what was acknowledged, or it is refused: the chunks are those of the last checkpoint's marker (`digest.rs`), the log goes
//! on from there without a gap, each group and chunk fits its seal (`pieces.rs`), and the log ends no earlier than what was acknowledged (`acked.rs`).
//!
//! What sled needs of its user, all measured:
//! - `flush` neither writes the device's cache nor the file's size: an fdatasync of the `db` file by a descriptor of our own follows each.
//! - A batch of more than 100 records makes its memory grow without bound; a record above 4 KiB may become a file of its own below `blobs/`
//!   that is never synced. Both bounds are kept here, and a file in `blobs/` raises an alarm.
//! - An I/O error makes the database unusable until it is opened again: so free space is looked at before each group, and a group that
//!   would eat into the reserve is refused while nothing has been written yet.

mod acked;
mod chunks;
mod digest;
mod log;
mod pieces;

use super::{Appended, Backend, BackendError, Loaded};
use crate::{Key, Snapshot};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use strata_proto::{store, types::Kind};

/// The format this build writes, and the newest it reads. Level 1 had neither the acknowledged position nor the digest of the chunks.
const LEVEL: u64 = 2;
/// Bytes of sled's page cache.
const CACHE_BYTES: u64 = 64 << 20;
/// Bytes that must stay free on the disk: room for what sled has buffered, and for checkpoints, which free space in turn.
const RESERVED_BYTES: u64 = 32 << 20;
/// Records of one batch.
const BATCH_RECORDS: usize = 100;
/// Bytes of a value; with its key it stays below 4 KiB.
const PIECE_BYTES: usize = 3_400;

const META_LEVEL: &[u8] = b"level";
const META_RESERVED: &[u8] = b"reserved";
/// Groups up to here are covered by chunks.
const META_DROPPED: &[u8] = b"dropped";
/// The last completed checkpoint; chunks of versions up to here were completely written.
const META_CHECKPOINT: &[u8] = b"checkpoint";
/// The digest of the chunks at that checkpoint.
const META_DIGEST: &[u8] = b"digest";
/// A file beside the database that says there must be one.
const LEVEL_FILE: &str = "store-level";

/// A sled database in a directory of its own.
pub struct Sled {
    dir: PathBuf,
    db: sled::Db,
    meta: sled::Tree,
    /// The database's one file, for fdatasync.
    file: File,
    log: Mutex<log::Log>,
    chunks: Mutex<chunks::Chunks>,
    /// `None` only before a store of level 1 was loaded.
    acked: Mutex<Option<acked::Acked>>,
}

/// How long the lock of a database that was just closed is waited for: sled's background threads let go of it a little after the last handle.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Opens the database; a lock that is held is tried again for [`LOCK_WAIT`].
fn open_unlocked(config: &sled::Config) -> std::thread::Result<sled::Result<sled::Db>> {
    let end = Instant::now() + LOCK_WAIT;
    loop {
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        let locked = matches!(&opened, Ok(Err(sled::Error::Io(e))) if e.to_string().contains("lock"));
        if !locked || Instant::now() >= end {
            return opened;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Sled {
    /// Opens or creates the database. Only one process can have it open.
    ///
    /// # Errors
    /// [`BackendError::Damaged`], [`BackendError::Newer`], [`BackendError::InUse`], [`BackendError::Io`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, BackendError> {
        let dir = dir.into();
        let io = |what| at(&dir, what);
        std::fs::create_dir_all(&dir).map_err(io("making the directory"))?;
        let level_file = dir.join(LEVEL_FILE);
        let acked = acked::Acked::read(&dir)?;
        let known = level_file.exists() || acked.is_some_and(|a| a != acked::Position::default());
        if known && !dir.join("db").exists() {
            return Err(damaged(&dir, "its database file is gone"));
        }
        // Less than checkpoints leave: a store that has filled its disk can always be opened again.
        check_free(&dir, RESERVED_BYTES / 4)?;
        let config = sled::Config::new()
            .path(&dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        // Damage makes sled panic in places.
        let db = match open_unlocked(&config) {
            Ok(Ok(db)) => db,
            Ok(Err(sled::Error::Io(e))) if e.to_string().contains("lock") => {
                return Err(BackendError::InUse { dir });
            }
            Ok(Err(e)) => return Err(of_sled(&dir, "opening the database")(e)),
            Err(_) => return Err(damaged(&dir, "the database cannot be read")),
        };
        let tree = |name: &str| db.open_tree(name).map_err(of_sled(&dir, "opening the database"));
        let (meta, log_tree, chunk_tree) = (tree("meta")?, tree("log")?, tree("chunks")?);
        let file = File::open(dir.join("db")).map_err(io("opening the database file"))?;
        let this = Self {
            log: Mutex::new(log::Log::new(dir.clone(), log_tree)),
            chunks: Mutex::new(chunks::Chunks::new(dir.clone(), chunk_tree)),
            acked: Mutex::new(acked.map(|a| acked::Acked::open(&dir, a)).transpose()?),
            dir,
            db,
            meta,
            file,
        };
        this.check_level(known)?;
        Ok(this)
    }

    /// Refuses a newer level and a database that is empty although it was not; marks a new one.
    fn check_level(&self, known: bool) -> Result<(), BackendError> {
        match self.number(META_LEVEL)? {
            Some(found) if found > LEVEL => {
                return Err(BackendError::Newer { dir: self.dir.clone(), found, known: LEVEL });
            }
            Some(LEVEL) if self.lock_acked().is_none() => {
                return Err(damaged(&self.dir, "its file of the acknowledged position is gone"));
            }
            Some(_) => {}
            None if known => return Err(damaged(&self.dir, "the database is empty although it was written before")),
            None => self.set_level(acked::Position::default(), digest::Digest::default())?,
        }
        if !self.dir.join(LEVEL_FILE).exists() {
            self.write_level_file().map_err(at(&self.dir, "writing the level"))?;
        }
        Ok(())
    }

    /// Makes a new or older database one of this level. The file comes first: without the level it is only an empty promise.
    fn set_level(&self, position: acked::Position, digest: digest::Digest) -> Result<(), BackendError> {
        let acked = acked::Acked::create(&self.dir, position)?;
        let mut batch = sled::Batch::default();
        batch.insert(META_LEVEL, &LEVEL.to_be_bytes());
        batch.insert(META_DIGEST, digest.to_bytes());
        self.meta.apply_batch(batch).map_err(of_sled(&self.dir, "writing the level"))?;
        self.sync()?;
        *self.lock_acked() = Some(acked);
        Ok(())
    }

    fn write_level_file(&self) -> std::io::Result<()> {
        let mut file = File::create(self.dir.join(LEVEL_FILE))?;
        writeln!(file, "a store of level {LEVEL} or older is in this directory")?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    fn lock_acked(&self) -> MutexGuard<'_, Option<acked::Acked>> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self, key: &[u8]) -> Result<Option<u64>, BackendError> {
        let value = self.meta.get(key).map_err(of_sled(&self.dir, "reading"))?;
        value
            .map(|v| v.as_ref().try_into().map(u64::from_be_bytes))
            .transpose()
            .map_err(|_| damaged(&self.dir, "a marker has the wrong length"))
    }

    fn set_number(&self, key: &[u8], value: u64) -> Result<(), BackendError> {
        self.meta.insert(key, &value.to_be_bytes()).map_err(of_sled(&self.dir, "writing"))?;
        Ok(())
    }

    /// Reads everything, and changes nothing before it is sure that it is all there.
    fn load_whole(&self) -> Result<Loaded, BackendError> {
        let dropped = self.number(META_DROPPED)?.unwrap_or(0);
        let checkpoint = self.number(META_CHECKPOINT)?.unwrap_or(0);
        let reserved = self.number(META_RESERVED)?.unwrap_or(0);
        let mut objects: BTreeMap<Key, store::Change> = BTreeMap::new();
        let mut revision = reserved;
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let (found, stale) = chunks.load(checkpoint)?;
        for change in found {
            revision = revision.max(change.revision);
            objects.insert(key_of(&change), change);
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dirty = BTreeSet::new();
        for change in log.load(dropped)? {
            revision = revision.max(change.revision);
            let key = key_of(&change);
            dirty.insert(key.clone());
            // A chunk may be newer than the part of the log that is still there.
            if objects.get(&key).is_some_and(|o| o.revision > change.revision) {
                continue;
            }
            if change.object.is_some() {
                objects.insert(key, change);
            } else {
                objects.remove(&key);
            }
        }
        let position = acked::Position { group: log.last(), reserved };
        self.check_whole(position, chunks.digest())?;
        if self.number(META_LEVEL)? != Some(LEVEL) {
            self.set_level(position, chunks.digest())?;
        }
        chunks.remove(&stale)?;
        log.clear()?;
        self.sync()?;
        Ok(Loaded {
            objects: objects.into_values().collect(),
            revision,
            dirty: dirty.into_iter().collect(),
            position: log.last(),
        })
    }

    /// Refuses a state that lacks acknowledged changes, or chunks other than the last checkpoint's.
    fn check_whole(&self, found: acked::Position, chunks: digest::Digest) -> Result<(), BackendError> {
        if let Some(acked) = self.lock_acked().as_ref().map(acked::Acked::position) {
            let (end, known) = (found.group, acked.group);
            if end < known {
                return Err(damaged(
                    &self.dir,
                    &format!("its log ends at group {end}, but group {known} was acknowledged"),
                ));
            }
            let (end, known) = (found.reserved, acked.reserved);
            if end < known {
                return Err(damaged(&self.dir, &format!("revisions are reserved up to {end}, but were up to {known}")));
            }
        }
        let written = self.meta.get(META_DIGEST).map_err(of_sled(&self.dir, "reading"))?;
        let written = match written {
            Some(bytes) => digest::Digest::read(&bytes),
            None if self.number(META_LEVEL)? != Some(LEVEL) => return Ok(()),
            None => None,
        };
        let written = written.ok_or_else(|| damaged(&self.dir, "the digest of its chunks is not whole"))?;
        if written != chunks {
            let (there, wanted) = (chunks.chunks, written.chunks);
            let what =
                format!("its chunks are not those of the last checkpoint: {there} are there, {wanted} were written");
            return Err(damaged(&self.dir, &what));
        }
        Ok(())
    }

    /// Returns when all that was written before is on disk.
    fn sync(&self) -> Result<(), BackendError> {
        self.db.flush().map_err(of_sled(&self.dir, "flushing"))?;
        rustix::fs::fdatasync(&self.file).map_err(at(&self.dir, "syncing"))
    }
}

impl Backend for Sled {
    fn load(&self) -> Result<Loaded, BackendError> {
        // Damage makes sled panic in places.
        catch_unwind(AssertUnwindSafe(|| self.load_whole()))
            .unwrap_or_else(|_| Err(damaged(&self.dir, "the database cannot be read")))
    }

    fn append(&self, group: &[store::Change]) -> Result<Appended, BackendError> {
        let payload = pieces::encode(group);
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        check_space(&self.dir, payload.len(), log.bytes())?;
        let position = log.append(&payload)?;
        self.sync()?;
        if let Some(acked) = self.lock_acked().as_mut() {
            acked.group(position)?;
        }
        Ok(Appended { position, bytes: payload.len() as u64 })
    }

    fn reserve(&self, revision: u64) -> Result<(), BackendError> {
        check_space(&self.dir, 0, self.log.lock().unwrap_or_else(PoisonError::into_inner).bytes())?;
        self.set_number(META_RESERVED, revision)?;
        self.sync()?;
        self.lock_acked().as_mut().map_or(Ok(()), |acked| acked.reserved(revision))
    }

    fn checkpoint(&self, snapshot: &Snapshot, dirty: &[Key], position: u64) -> Result<(), BackendError> {
        // Half of the reserve is the checkpoints' own: they must go on when appends no longer may.
        check_free(&self.dir, RESERVED_BYTES / 2)?;
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = chunks.write(snapshot, dirty)?;
        self.sync()?;
        let mut marker = sled::Batch::default();
        marker.insert(META_CHECKPOINT, &chunks.version().to_be_bytes());
        marker.insert(META_DROPPED, &position.to_be_bytes());
        marker.insert(META_DIGEST, chunks.digest().to_bytes());
        self.meta.apply_batch(marker).map_err(of_sled(&self.dir, "writing the checkpoint's marker"))?;
        chunks.remove(&replaced)?;
        drop(chunks);
        self.log.lock().unwrap_or_else(PoisonError::into_inner).drop_to(position)
    }

    fn alarm(&self) -> Option<String> {
        let blobs = self.dir.join("blobs");
        let any = std::fs::read_dir(&blobs).is_ok_and(|mut d| d.next().is_some());
        any.then(|| {
            format!(
                "{} is not empty: the database keeps part of the store in files that it does not sync, a power loss may damage them; report this",
                blobs.display()
            )
        })
    }
}

fn key_of(change: &store::Change) -> Key {
    Key::new(Kind::try_from(change.kind).unwrap_or_default(), change.namespace.clone(), change.name.clone())
}

fn at<E: std::error::Error + Send + Sync + 'static>(dir: &Path, what: &'static str) -> impl Fn(E) -> BackendError {
    let dir = dir.to_owned();
    move |e| BackendError::Io { what, dir: dir.clone(), source: Box::new(e) }
}

/// As [`at`], for what sled says: what it cannot read back is damage.
fn of_sled(dir: &Path, what: &'static str) -> impl Fn(sled::Error) -> BackendError {
    let dir = dir.to_owned();
    move |e| match e {
        sled::Error::Corruption { .. } => damaged(&dir, &format!("{what} met corrupt data")),
        sled::Error::ReportableBug(text) => damaged(&dir, &format!("{what} met what should not be: {text}")),
        sled::Error::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            damaged(&dir, &format!("{what} met the end of the file too early"))
        }
        e => at(&dir, what)(e),
    }
}

fn damaged(dir: &Path, what: &str) -> BackendError {
    BackendError::Damaged { dir: dir.to_owned(), what: what.to_owned() }
}

/// Refuses to write `payload_bytes` into the reserve; sled may write them several times before it frees old segments, and so it may
/// what a log of `log_bytes` holds, with the checkpoint that drops it.
fn check_space(dir: &Path, payload_bytes: usize, log_bytes: u64) -> Result<(), BackendError> {
    check_free(dir, RESERVED_BYTES + 4 * payload_bytes as u64 + 2 * log_bytes)
}

fn check_free(dir: &Path, reserved_bytes: u64) -> Result<(), BackendError> {
    let stat = rustix::fs::statvfs(dir).map_err(at(dir, "looking for free space"))?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free_bytes < reserved_bytes {
        return Err(BackendError::Full { dir: dir.to_owned(), free_bytes, reserved_bytes });
    }
    Ok(())
}

/// Applies records in batches that sled can bear, in order.
fn apply_in_batches(
    tree: &sled::Tree,
    records: impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
) -> Result<(), sled::Error> {
    let mut batch = sled::Batch::default();
    let mut count = 0;
    for (key, value) in records {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
        count += 1;
        if count == BATCH_RECORDS {
            tree.apply_batch(std::mem::take(&mut batch))?;
            count = 0;
        }
    }
    if count > 0 {
        tree.apply_batch(batch)?;
    }
    Ok(())
}
