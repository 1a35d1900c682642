//! Paths of entries and the names that mean a whiteout (OCI image spec, layer.md, "Whiteouts").

use crate::limits::{MAX_NAME_BYTES, MAX_PATH_BYTES};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Splits a path into its names; empty for the root. Leading slashes and `.` are dropped.
pub fn split(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    if path.len() > MAX_PATH_BYTES {
        return Err(format!("path of {} bytes, the limit is {MAX_PATH_BYTES}", path.len()));
    }
    let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    for part in &parts {
        // The classic way out of the target directory (CVE-2001-1267 and its many successors).
        if *part == b".." {
            return Err("path holds '..'".into());
        }
        if part.len() > MAX_NAME_BYTES {
            return Err(format!("name of {} bytes, the limit is {MAX_NAME_BYTES}", part.len()));
        }
        if part.contains(&0) {
            return Err("path holds a NUL".into());
        }
    }
    Ok(parts)
}

/// What the last name of a path means.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// Itself.
    Name,
    /// The name is removed from the layers below.
    Whiteout(&'a [u8]),
    /// All names of its directory are removed from the layers below.
    Opaque,
    /// Bookkeeping of AUFS, of no meaning here.
    Ignored,
}

/// Judges a name below its parents.
pub fn meaning<'a>(name: &'a [u8], parents: &[&[u8]]) -> Result<Meaning<'a>, String> {
    if parents.iter().any(|part| part.starts_with(WHITEOUT_META)) {
        return Ok(Meaning::Ignored);
    }
    if parents.iter().any(|part| part.starts_with(WHITEOUT)) {
        return Err("path leads through the name of a whiteout".into());
    }
    if name == OPAQUE {
        return Ok(Meaning::Opaque);
    }
    if name.starts_with(WHITEOUT_META) {
        return Ok(Meaning::Ignored);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Meaning::Name),
        // ".wh..." would otherwise be a whiteout of "..".
        Some(b"" | b"." | b"..") => Err("whiteout of no name, '.' or '..'".into()),
        Some(hidden) => Ok(Meaning::Whiteout(hidden)),
    }
}
