//! The two directories of a store, `STATE/layers` and `STATE/mnt`, held open.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, flock, openat, unlinkat};
use rustix::io::Errno;

use crate::erofs::{HEADER_BYTES, LayerHeader};
use crate::error::{LayerError, Result};
use crate::writer::TEMPORARY;

#[derive(Debug)]
struct Inner {
    layers: OwnedFd,
    layers_path: PathBuf,
    mounts: OwnedFd,
    mounts_path: PathBuf,
}

/// The directories; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Directories(Arc<Inner>);

impl Directories {
    /// Makes the directories if need be and removes what dead writers left.
    pub fn open(state: &Path) -> Result<Self> {
        let state = std::path::absolute(state).map_err(|error| LayerError::io("finding", state, error))?;
        let (layers, layers_path) = make(state.join("layers"))?;
        let (mounts, mounts_path) = make(state.join("mnt"))?;
        let directories = Self(Arc::new(Inner { layers, layers_path, mounts, mounts_path }));
        directories.sweep()?;
        Ok(directories)
    }

    pub fn layers(&self) -> BorrowedFd<'_> {
        self.0.layers.as_fd()
    }

    pub fn mounts(&self) -> BorrowedFd<'_> {
        self.0.mounts.as_fd()
    }

    pub fn layer_path(&self, name: &str) -> PathBuf {
        self.0.layers_path.join(name)
    }

    pub fn mount_path(&self, name: &str) -> PathBuf {
        self.0.mounts_path.join(name)
    }

    /// All names in the directory of layers.
    pub fn layer_names(&self) -> Result<Vec<String>> {
        let fail = |error| LayerError::io("listing", self.layer_path(""), error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0.layers).map_err(fail)? {
            if let Ok(name) = entry.map_err(fail)?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Removes half-written files whose writer is gone: a living one holds a lock on its file.
    fn sweep(&self) -> Result<()> {
        for name in self.layer_names()?.iter().filter(|name| name.starts_with(TEMPORARY)) {
            let file = match self.open_layer(name) {
                Ok(file) => file,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(LayerError::io("opening", self.layer_path(name), error)),
            };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                unlinkat(&self.0.layers, name, AtFlags::empty())
                    .map_err(|error| LayerError::io("removing half-written", self.layer_path(name), error))?;
                tracing::info!(path = %self.layer_path(name).display(), "removed a half-written layer file");
            }
        }
        Ok(())
    }

    /// Opens a file of the directory of layers for reading.
    pub fn open_layer(&self, name: &str) -> Result<File, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(&self.0.layers, name, flags, Mode::empty()).map(File::from)
    }

    /// The header of a layer file; `None` if there is no such file or it is not a whole layer file.
    pub fn read_header(&self, name: &str) -> Result<Option<(File, LayerHeader)>> {
        let path = || self.layer_path(name);
        let file = match self.open_layer(name) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(LayerError::io("opening", path(), error)),
        };
        let len = file.metadata().map_err(|error| LayerError::io("inspecting", path(), error))?.len();
        let mut block = [0; HEADER_BYTES as usize];
        let parsed = if len < HEADER_BYTES {
            Err("it is shorter than a header")
        } else {
            file.read_exact_at(&mut block, 0).map_err(|error| LayerError::io("reading", path(), error))?;
            LayerHeader::parse(&block)
        };
        match parsed {
            Ok(header) if header.file_bytes == len => Ok(Some((file, header))),
            Ok(_) => Ok(self.ignore(name, "its size is not the one it was written with")),
            Err(why) => Ok(self.ignore(name, why)),
        }
    }

    fn ignore<T>(&self, name: &str, why: &str) -> Option<T> {
        tracing::warn!(path = %self.layer_path(name).display(), why, "a damaged layer file is ignored; the layer will be fetched again");
        None
    }
}

fn make(path: PathBuf) -> Result<(OwnedFd, PathBuf)> {
    std::fs::create_dir_all(&path).map_err(|error| LayerError::io("making", &path, error))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, &path, flags, Mode::empty()).map_err(|error| LayerError::io("opening", &path, error))?;
    Ok((fd, path))
}
