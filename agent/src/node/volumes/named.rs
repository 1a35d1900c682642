//! Named volumes of this node: directories that outlive pods.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};
use strata_layer::remove_tree;
use strata_model::{Invalid, check_name};

const VOLUMES: &str = "volumes";
/// What is on its way out begins so.
const ON_ITS_WAY_OUT: &str = ".gone-";
/// Before it is whole a volume's name begins so.
const HALF_MADE: &str = ".new-";

/// The directory of a volume, made at its first use. Any user of a container may write in a new one; it is the volume's own from then on.
pub(in crate::node) fn ensure_named(state_dir: &Path, namespace: &str, name: &str) -> io::Result<PathBuf> {
    let path = path_of(state_dir, namespace, name)?;
    if path.is_dir() {
        return Ok(path);
    }
    let above = path.parent().unwrap_or(state_dir);
    // Files keep plain ids, so a program may belong to the host's root and say setuid: nobody else gets here.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
    let half = above.join(format!("{HALF_MADE}{name}"));
    match fs::DirBuilder::new().mode(0o700).create(&half) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    fs::set_permissions(&half, fs::Permissions::from_mode(0o777))?;
    match fs::rename(&half, &path) {
        // Two pods at once: the other one was faster.
        Err(_) if path.is_dir() => {}
        renamed => renamed?,
    }
    fs::File::open(above)?.sync_all()?;
    Ok(path)
}

/// Removes a volume with all that is in it. One that is not there is fine.
///
/// # Errors
/// What is left is out of sight, and goes the next time.
pub(in crate::node) fn remove_named(state_dir: &Path, namespace: &str, name: &str) -> io::Result<()> {
    let path = path_of(state_dir, namespace, name)?;
    let above = state_dir.join(VOLUMES);
    let hidden = above.join(format!("{ON_ITS_WAY_OUT}{}", uuid::Uuid::new_v4()));
    match fs::rename(&path, &hidden) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return sweep_named(state_dir),
        Err(e) => return Err(e),
    }
    fs::File::open(path.parent().unwrap_or(&above))?.sync_all()?;
    sweep_named(state_dir)
}

/// Finishes removals that were cut short.
pub(in crate::node) fn sweep_named(state_dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(state_dir.join(VOLUMES)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(ON_ITS_WAY_OUT) {
            remove_tree(&entry.path()).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// Names that are no names of objects lead nowhere.
fn path_of(state_dir: &Path, namespace: &str, name: &str) -> io::Result<PathBuf> {
    let bad = |e: Invalid| io::Error::new(io::ErrorKind::InvalidInput, e.to_string());
    check_name("namespace", namespace).map_err(bad)?;
    check_name("volume name", name).map_err(bad)?;
    Ok(state_dir.join(VOLUMES).join(namespace).join(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn volumes_are_made_once_and_removed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = ensure_named(dir.path(), "default", "data").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        assert_eq!(fs::metadata(dir.path().join("volumes")).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("x"), "1").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(ensure_named(dir.path(), "default", "data").unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o750);
        for bad in ["", "..", "a/b", ".gone-x", "A"] {
            assert!(ensure_named(dir.path(), "default", bad).is_err(), "{bad:?}");
            assert!(remove_named(dir.path(), bad, "data").is_err(), "{bad:?}");
        }
        // A removal that was cut short is finished.
        fs::rename(&path, dir.path().join("volumes/.gone-1")).unwrap();
        remove_named(dir.path(), "default", "data").unwrap();
        assert_eq!(fs::read_dir(dir.path().join("volumes")).unwrap().count(), 1);
        remove_named(dir.path(), "default", "data").unwrap();
    }

    #[test]
    fn however_deep() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = ensure_named(dir.path(), "default", "data").unwrap();
        for _ in 0..200 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("leaf"), "x").unwrap();
        remove_named(dir.path(), "default", "data").unwrap();
        assert_eq!(fs::read_dir(dir.path().join("volumes/default")).unwrap().count(), 0);
    }
}
