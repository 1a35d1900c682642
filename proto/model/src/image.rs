//! Image names and what a pinned image consists of.

use crate::{Digest, Invalid};
use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use core::fmt;

/// A normalised image reference: registry, repository and tag or digest, as docker normalises (`a/b` is `docker.io/a/b:latest`).
/// Source: `distribution/reference` grammar.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    registry: String,
    repository: String,
    tag: String,
    digest: Option<Digest>,
}

impl ImageName {
    /// Parses and normalises.
    ///
    /// # Errors
    /// [`Invalid`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let bad = |why| Invalid::new("image name", text, why);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(digest.parse::<Digest>().map_err(|_| bad("behind '@' sha256:<64 hex digits> is expected"))?),
            ),
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((before, after)) if !after.contains('/') => (before, Some(after)),
            _ => (rest, None),
        };
        let (registry, repository) = match rest.split_once('/') {
            Some((first, more)) if first.contains(['.', ':']) || first == "localhost" => {
                (first.to_owned(), more.to_owned())
            }
            Some(_) => ("docker.io".to_owned(), rest.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{rest}")),
        };
        let part_ok = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
                && part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        if repository.len() > 255 || !repository.split('/').all(part_ok) {
            return Err(bad("a repository has parts of a-z, 0-9, '.', '_' and '-' separated by '/'"));
        }
        if registry.len() > 255
            || !registry.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
        {
            return Err(bad("a registry is HOST or HOST:PORT"));
        }
        let tag_ok = |tag: &str| {
            !tag.is_empty()
                && tag.len() <= 128
                && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
                && !tag.starts_with(['.', '-'])
        };
        let tag = match tag {
            Some(tag) if tag_ok(tag) => tag.to_owned(),
            Some(_) => return Err(bad("a tag has at most 128 letters, digits, '.', '_' and '-'")),
            None if digest.is_some() => String::new(),
            None => "latest".to_owned(),
        };
        Ok(Self { registry, repository, tag, digest })
    }

    /// Host and optional port of the registry, "docker.io" by default.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }
    /// The repository within the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }
    /// The tag; "" when only a digest was given.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }
    /// The digest, if the name pins one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag)?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layer {
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of its layer file, or of the compressed blob until some node has it.
    pub size_bytes: u64,
}

/// An image whose tag was resolved: what an agent needs to get it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PinnedImage {
    /// The normalised name.
    pub name: ImageName,
    /// Of the index or manifest.
    pub digest: Digest,
    /// Whether a registry can be asked for it; else only nodes have it.
    pub from_registry: bool,
    /// Bottom first.
    pub layers: Vec<Layer>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, want) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:v2", "localhost:5000/x:v2"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            (
                "r.example/x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "r.example/x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ),
        ] {
            assert_eq!(ImageName::parse(text).map(|n| n.to_string()), Ok(want.into()), "{text}");
        }
        for text in ["", "UPPER", "a//b", "a:", "a@sha256:12", "-x", "a:b:c:d", "x/../y", "a b"] {
            assert!(ImageName::parse(text).is_err(), "{text}");
        }
    }
}
