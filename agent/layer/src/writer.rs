//! One layer file being written.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, RenameFlags, flock, fsync, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use strata_model::{Algorithm, Digest};

use crate::directories::Directories;
use crate::erofs::{HEADER_BYTES, Identity, Sink, TarSource};
use crate::error::{LayerError, Result};
use crate::hash::Hasher;
use crate::index::Indexer;

/// How a file that is being written is named; the store sweeps such names when it opens.
pub(crate) const TEMPORARY: &str = ".writing-";

/// Bytes collected before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// How much is written before the kernel is asked to bring it to the disk: the sync at the end then waits for little.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The diff ID.
    pub digest: Digest,
    /// Bytes of the tar.
    pub tar_bytes: u64,
    /// Bytes of the layer file.
    pub file_bytes: u64,
    /// Entries of the tar.
    pub entries: usize,
    /// Whether the store had the layer already; then the new file was dropped.
    pub existed: bool,
}

/// Takes the uncompressed tar of one layer in arbitrary pieces (`std::io::Write`) and publishes it.
///
/// Until [`LayerWriter::finish`] has returned nothing is visible as a layer; dropping the writer removes what was written. Every byte
/// counts for the diff ID, what follows the archive's end included.
pub struct LayerWriter {
    directories: Directories,
    name: String,
    file: File,
    buffer: Vec<u8>,
    /// Bytes of the tar on disk (without the buffer).
    written: u64,
    /// Of these, bytes that are on their way to the disk.
    pushed_out: u64,
    hash: Hasher,
    algorithm: Algorithm,
    indexer: Indexer,
    failed: bool,
    renamed: bool,
}

impl std::fmt::Debug for LayerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerWriter").field("name", &self.name).field("written", &self.written).finish_non_exhaustive()
    }
}

impl LayerWriter {
    pub(crate) fn new(directories: Directories, name: String, algorithm: Algorithm) -> Result<Self> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(directories.layers(), &name, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| LayerError::io("creating", directories.layer_path(&name), error))?;
        let writer = Self {
            name,
            file: file.into(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
            pushed_out: 0,
            hash: Hasher::new(algorithm),
            algorithm,
            indexer: Indexer::default(),
            failed: false,
            renamed: false,
            directories,
        };
        // The lock tells a sweeping store that the file has a living writer.
        flock(&writer.file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| LayerError::io("locking", writer.path(), error))?;
        Ok(writer)
    }

    /// Bytes of tar taken so far.
    #[must_use]
    pub fn tar_bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Takes the next piece, as `write_all` does, with this crate's error.
    ///
    /// # Errors
    /// [`LayerError::Tar`], [`LayerError::NoSpace`] or [`LayerError::Io`]; the writer is of no use afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.failed {
            return Err(LayerError::Poisoned);
        }
        let result = self.take(bytes);
        self.failed = result.is_err();
        result
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.indexer.push(bytes)?;
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.write_buffer()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            return self.write_out(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn write_buffer(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.write_out(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        result
    }

    fn write_out(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, HEADER_BYTES + self.written)
            .map_err(|error| LayerError::io("writing layer file", self.path(), error))?;
        self.written += bytes.len() as u64;
        let ready = self.written - self.pushed_out;
        if ready >= WRITEBACK_BYTES {
            strata_sys::writeback::start(self.file.as_fd(), HEADER_BYTES + self.pushed_out, ready)
                .map_err(|error| LayerError::io("writing layer file", self.path(), error))?;
            self.pushed_out = self.written;
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.directories.layer_path(&self.name)
    }

    /// Verifies the diff ID, writes the index, makes all durable and gives the file its name.
    ///
    /// # Errors
    /// [`LayerError::DigestMismatch`] if the content is not the expected one; else as [`LayerWriter::push`]. Nothing was published.
    pub fn finish(self, expected: Option<&Digest>) -> Result<Published> {
        self.finish_as(expected, None)
    }

    /// As [`LayerWriter::finish`], under another name than the digest's.
    pub(crate) fn finish_as(mut self, expected: Option<&Digest>, name: Option<&str>) -> Result<Published> {
        if self.failed {
            return Err(LayerError::Poisoned);
        }
        self.write_buffer()?;
        let digest = self.digest(expected)?;
        if let Some(expected) = expected.filter(|&expected| *expected != digest) {
            return Err(LayerError::DigestMismatch { expected: expected.clone(), actual: digest });
        }
        let entries;
        let tar_bytes = self.written;
        let file_bytes = {
            let (tree, plan) = std::mem::take(&mut self.indexer).finish(tar_bytes)?;
            entries = tree.entries();
            let path = self.path();
            let source = FileSource { file: &self.file, path: &path };
            let mut sink = FileSink { file: &self.file, path: &path, at: HEADER_BYTES + tar_bytes, buffer: Vec::new() };
            plan.write(&tree, &source, &mut sink)?;
            sink.flush()?;
            let sync = || self.file.sync_data().map_err(|error| LayerError::io("syncing", &path, error));
            self.file.set_len(plan.file_bytes).map_err(|error| LayerError::io("sizing", &path, error))?;
            sync()?;
            let header = plan.header(Identity { digest: &digest, tar_bytes });
            self.file.write_all_at(&header, 0).map_err(|error| LayerError::io("writing layer file", &path, error))?;
            sync()?;
            plan.file_bytes
        };
        let existed = self.publish(name.unwrap_or(&digest.file_name()))?;
        Ok(Published { digest, tar_bytes, file_bytes, entries, existed })
    }

    /// The digest in the algorithm of the expected one; read again if another was assumed.
    fn digest(&mut self, expected: Option<&Digest>) -> Result<Digest> {
        let wanted = expected.map_or(self.algorithm, Digest::algorithm);
        if wanted == self.algorithm {
            return Ok(self.hash.clone().finish());
        }
        let mut hash = Hasher::new(wanted);
        let path = self.path();
        let source = FileSource { file: &self.file, path: &path };
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = 0;
        while at < self.written {
            let now = usize::try_from(self.written - at).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            source.read_tar(&mut buffer[..now], at)?;
            hash.update(&buffer[..now]);
            at += now as u64;
        }
        Ok(hash.finish())
    }

    /// Gives the file its name; true if a sound file had it already.
    fn publish(&mut self, name: &str) -> Result<bool> {
        let layers = self.directories.layers();
        let named = match renameat_with(layers, &self.name, layers, name, RenameFlags::NOREPLACE) {
            // A file that is there may be mounted: it stays, for the same bytes under a new inode would be cached twice.
            Err(Errno::EXIST) if self.directories.read_header(name)?.is_some() => return Ok(true),
            // A damaged one is replaced; some file systems lack the flag.
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => renameat(layers, &self.name, layers, name),
            named => named,
        };
        named.map_err(|error| LayerError::io("publishing", self.directories.layer_path(name), error))?;
        self.renamed = true;
        fsync(layers).map_err(|error| LayerError::io("syncing", self.directories.layer_path(""), error))?;
        Ok(false)
    }
}

impl Write for LayerWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LayerWriter {
    fn drop(&mut self) {
        if !self.renamed
            && let Err(error) = unlinkat(self.directories.layers(), &self.name, AtFlags::empty())
        {
            tracing::warn!(path = %self.path().display(), %error, "a half-written layer file stays until the next start");
        }
    }
}

/// Reads the tar back from the layer file.
pub(crate) struct FileSource<'a> {
    pub file: &'a File,
    pub path: &'a Path,
}

impl TarSource for FileSource<'_> {
    fn read_tar(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(buffer, HEADER_BYTES + offset)
            .map_err(|error| LayerError::io("reading layer file", self.path, error))
    }
}

/// Writes the index in big pieces; long runs of zeros become holes.
struct FileSink<'a> {
    file: &'a File,
    path: &'a Path,
    /// Where the buffer's first byte belongs.
    at: u64,
    buffer: Vec<u8>,
}

impl FileSink<'_> {
    fn flush(&mut self) -> Result<()> {
        self.file
            .write_all_at(&self.buffer, self.at)
            .map_err(|error| LayerError::io("writing layer file", self.path, error))?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Sink for FileSink<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn zeros_to(&mut self, offset: u64) -> Result<()> {
        let gap = offset.saturating_sub(self.at + self.buffer.len() as u64);
        if gap <= HEADER_BYTES {
            self.buffer.resize(self.buffer.len() + usize::try_from(gap).unwrap_or(0), 0);
            return Ok(());
        }
        self.flush()?;
        self.at = offset;
        Ok(())
    }
}
