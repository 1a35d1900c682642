//! What a Compose file refers to outside of itself. The crate reads nothing on its own: whoever calls it lends it the world.

/// Variables, files and choices around a manifest.
pub trait Surroundings {
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;

    /// The content of a file, `None` if there is none. A relative path is relative to the manifest's directory.
    ///
    /// # Errors
    /// Why it cannot be read, for people: too large, no permission.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String>;

    /// The absolute path of the manifest's directory; `None` for a text that is no file.
    fn directory(&self) -> Option<&str>;

    /// The names of the profiles that are asked for.
    fn profiles(&self) -> &[String];
}

/// No variables, no files, no profiles.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Surroundings for Nowhere {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn read(&self, _: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }

    fn directory(&self) -> Option<&str> {
        None
    }

    fn profiles(&self) -> &[String] {
        &[]
    }
}
