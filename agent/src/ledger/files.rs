//! Files that are replaced atomically.

use super::reserve::Reserve;
use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

/// Half-written files begin with this; whoever finds one may delete it.
pub const HALF_WRITTEN: &str = ".new-";
/// Directories on their way out begin with this.
pub const ON_ITS_WAY_OUT: &str = ".gone-";

/// What the ledger does to the disk, step by step; a test may make any step the last one.
#[derive(Debug, Default)]
pub struct Files {
    /// What writes may use when the disk is full.
    pub(super) reserve: Option<Reserve>,
    #[cfg(test)]
    pub(crate) steps_left: Option<std::sync::atomic::AtomicUsize>,
}

impl Files {
    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        match &self.steps_left {
            Some(left) if left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_err() => {
                Err(io::Error::other("power cut"))
            }
            _ => Ok(()),
        }
    }
    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    /// Runs a write, with the reserve's help if the disk is full.
    fn roomy<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match &self.reserve {
            Some(reserve) => reserve.with(write),
            None => write(),
        }
    }

    /// Replaces `dir/name`: a reader sees the old content or the new, never a part. `durable`: it survives a power cut.
    ///
    /// # Errors
    /// The old content stays.
    pub fn replace(&self, dir: &Path, name: &str, content: &[u8], durable: bool) -> io::Result<()> {
        self.stage(dir, name, content, durable)?;
        self.publish(dir, name)?;
        if durable { self.sync_dir(dir) } else { Ok(()) }
    }

    /// The first half of [`Files::replace`]: the new content is there under its temporary name. `durable`: it is on disk.
    ///
    /// # Errors
    /// The old content stays.
    pub fn stage(&self, dir: &Path, name: &str, content: &[u8], durable: bool) -> io::Result<()> {
        self.roomy(|| {
            self.step()?;
            let mut file = fs::File::create(temporary(dir, name))?;
            self.step()?;
            file.write_all(content)?;
            if durable {
                self.step()?;
                file.sync_all()?;
            }
            Ok(())
        })
    }

    /// The second half: the name. It is durable once the directory is synced, which one sync does for many names.
    ///
    /// # Errors
    /// The old content stays.
    pub fn publish(&self, dir: &Path, name: &str) -> io::Result<()> {
        self.step()?;
        self.roomy(|| fs::rename(temporary(dir, name), dir.join(name)))
    }

    /// Makes what was renamed or created in the directory durable.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        fs::File::open(dir)?.sync_all()
    }

    /// Makes a directory (and those above it).
    ///
    /// # Errors
    /// The system's.
    pub fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        self.roomy(|| fs::create_dir_all(dir))
    }

    /// Takes a directory out of sight at once, then deletes it. One that is not there is fine.
    ///
    /// # Errors
    /// The system's; what is left is swept by [`Files::sweep`].
    pub fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(()) };
        let hidden = parent.join(format!("{ON_ITS_WAY_OUT}{}", name.to_string_lossy()));
        self.step()?;
        match fs::rename(dir, &hidden) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if hidden.exists() => {
                // Left by an earlier removal that was cut short.
                tracing::debug!("removing {} again: {e}", dir.display());
                fs::remove_dir_all(&hidden)?;
                fs::rename(dir, &hidden)?;
            }
            other => other?,
        }
        self.step()?;
        fs::remove_dir_all(&hidden)
    }

    /// Deletes what was half-written or half-deleted in a directory.
    ///
    /// # Errors
    /// The system's.
    pub fn sweep(&self, dir: &Path) -> io::Result<()> {
        for path in names(dir)?.into_iter().map(|n| dir.join(n)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(HALF_WRITTEN) {
                fs::remove_file(&path)?;
            } else if name.starts_with(ON_ITS_WAY_OUT) {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }
}

fn temporary(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{HALF_WRITTEN}{name}"))
}

/// Reads a file; `None` if there is none.
///
/// # Errors
/// The system's.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Names in a directory, none if it is not there.
///
/// # Errors
/// The system's.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut names: Vec<String> =
        entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned())).collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Where things are in a state directory.
#[derive(Debug, Clone)]
pub struct Layout {
    /// STATE.
    pub state: PathBuf,
}

impl Layout {
    /// STATE/ledger.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.state.join("ledger")
    }
    /// STATE/ledger/templates.
    #[must_use]
    pub fn templates(&self) -> PathBuf {
        self.ledger().join("templates")
    }
    /// STATE/pods.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }
    /// `STATE/pods/<uid>`.
    #[must_use]
    pub fn pod(&self, uid: &strata_model::Uid) -> PathBuf {
        self.pods().join(uid.as_str())
    }
}
