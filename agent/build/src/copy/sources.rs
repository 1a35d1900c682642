//! Which files the sources of a COPY mean.

use rustix::fs::Stat;
use strata_model::ignore::{self, IgnoreRules};

use super::Source;
use crate::error::{BuildError, Result};
use crate::tree::{Tree, join, kind};

static NO_RULES: IgnoreRules = IgnoreRules::none();

/// Something that is copied.
pub(super) enum Found<'a> {
    /// What is in this directory.
    Directory { tree: &'a Tree, path: Vec<u8>, ignore: &'a IgnoreRules, archive: bool },
    /// A file or another thing, under the name it was asked by.
    Other { tree: &'a Tree, path: Vec<u8>, name: Vec<u8>, stat: Stat },
    /// A text under a name.
    Text(String, String),
}

/// Finds all, in the order of the sources; what a pattern matches is in the order of names.
pub(super) fn find<'a>(sources: &[Source<'a>]) -> Result<Vec<Found<'a>>> {
    let mut found = Vec::new();
    for source in sources {
        match source {
            Source::Text(name, text) => found.push(Found::Text(name.clone(), text.clone())),
            Source::Archive(tree) => {
                found.push(Found::Directory { tree, path: Vec::new(), ignore: &NO_RULES, archive: true });
            }
            Source::Path { tree, path, literal, ignore } => {
                let paths = if *literal { vec![path.as_bytes().to_vec()] } else { matching(tree, path)? };
                let before = found.len();
                for path in &paths {
                    found.extend(one(tree, path, ignore)?);
                }
                if found.len() == before {
                    let hint = if ignore.is_empty() { "" } else { " (or the .dockerignore leaves it out)" };
                    return Err(BuildError::invalid(format!("{path:?} is not in {}{hint}", tree.name())));
                }
            }
        }
    }
    Ok(found)
}

/// The thing at a path; a link is followed, as docker does for sources that are named.
fn one<'a>(tree: &'a Tree, path: &[u8], ignore: &'a IgnoreRules) -> Result<Option<Found<'a>>> {
    let ignored = |path: &[u8]| !ignore.is_empty() && ignore.ignores(&String::from_utf8_lossy(path));
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_vec();
    let place = tree.resolve(path, true)?;
    let Some(stat) = place.stat else { return Ok(None) };
    if kind(&stat).is_dir() {
        if !place.path.is_empty() && ignored(&place.path) && !ignore.has_exceptions() {
            return Ok(None);
        }
        return Ok(Some(Found::Directory { tree, path: place.path, ignore, archive: false }));
    }
    if ignored(path) || ignored(&place.path) {
        return Ok(None);
    }
    Ok(Some(Found::Other { tree, path: place.path, name, stat }))
}

/// The paths that a pattern matches (filepath.Match, part by part); a plain path is itself.
pub(super) fn matching(tree: &Tree, pattern: &str) -> Result<Vec<Vec<u8>>> {
    let mut paths = vec![Vec::new()];
    for part in ignore::clean(pattern).split('/').filter(|part| !part.is_empty()) {
        if !ignore::is_pattern(part) {
            let name = ignore::unescape(part);
            paths.iter_mut().for_each(|path| *path = join(path, name.as_bytes()));
            continue;
        }
        let mut next = Vec::new();
        for path in &paths {
            let place = tree.resolve(path, true)?;
            if !place.is_directory() {
                continue;
            }
            let names = tree.list(&place.path)?;
            let fits = names.into_iter().filter(|name| ignore::match_part(part, &String::from_utf8_lossy(name)));
            next.extend(fits.map(|name| join(path, &name)));
        }
        paths = next;
    }
    Ok(paths)
}
