//! One agent per state directory.

use rustix::fs::{FlockOperation, flock};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error("another agent uses {}: stop it, or set another state_dir", .0.display())]
    Taken(PathBuf),
    /// It cannot be made or opened.
    #[error("opening {}: {source}; the agent needs root and a writable state_dir", path.display())]
    Open {
        /// What.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Makes the state directory (mode 0700 where it is new) and locks it for the life of the answer, which the kernel ends with
/// the process however it dies.
///
/// # Errors
/// [`LockError`].
pub fn take(state_dir: &Path) -> Result<File, LockError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = state_dir.join("agent.lock");
    let open = |source| LockError::Open { path: path.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(open)?;
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(open)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Taken(state_dir.to_owned())),
        Err(e) => Err(open(e.into())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_agents_never_share_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path()).unwrap();
        assert!(matches!(take(dir.path()), Err(LockError::Taken(_))));
        drop(first);
        take(dir.path()).unwrap();
    }
}
