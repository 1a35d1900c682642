//! The world around a manifest: the environment's variables, and files beside it.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};
use strata_manifest::Surroundings;
use strata_model::limits::MANIFEST_BYTES_MAX;

/// Where a manifest's text comes from.
pub struct Around<'p> {
    /// Absolute; `None` for stdin.
    directory: Option<String>,
    profiles: &'p [String],
}

impl<'p> Around<'p> {
    /// Of a file; relative paths in it are relative to its directory.
    pub fn file(path: &Path, profiles: &'p [String]) -> Self {
        let directory = path.parent().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
        let absolute = directory.and_then(|dir| fs::canonicalize(dir).ok());
        Self { directory: absolute.and_then(|dir| dir.to_str().map(str::to_owned)), profiles }
    }

    /// Of stdin: paths are relative to where ctl runs, but the text has no directory of its own.
    pub fn nowhere(profiles: &'p [String]) -> Self {
        Self { directory: None, profiles }
    }
}

impl Surroundings for Around<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        let path = match &self.directory {
            Some(directory) => Path::new(directory).join(path),
            // A text from a pipe gets no files that it does not name: no `.env`.
            None if path == ".env" => return Ok(None),
            None => PathBuf::from(path),
        };
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut bytes = Vec::new();
        file.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(format!("it has more than {} MiB", MANIFEST_BYTES_MAX >> 20));
        }
        Ok(Some(bytes))
    }

    fn directory(&self) -> Option<&str> {
        self.directory.as_deref()
    }

    fn profiles(&self) -> &[String] {
        self.profiles
    }
}
