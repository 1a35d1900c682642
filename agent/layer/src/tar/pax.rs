//! PAX extended headers (POSIX pax, "pax Extended Header"), with the extensions of GNU tar and star that images use.

use super::sparse::Region;
use crate::limits::{MAX_PATH_BYTES, MAX_SPARSE_REGIONS};

/// The records of one extended header, as far as they mean something here. Unknown keywords are ignored, as POSIX asks.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Pax {
    /// `path`.
    pub path: Option<Vec<u8>>,
    /// `linkpath`.
    pub link: Option<Vec<u8>>,
    /// `size`, bytes of data in the archive.
    pub size: Option<u64>,
    /// `uid`.
    pub uid: Option<i64>,
    /// `gid`.
    pub gid: Option<i64>,
    /// `mtime`: seconds, rounded down, and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// `SCHILY.xattr.*`: full name and value, in order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// `GNU.sparse.*`.
    pub sparse: PaxSparse,
}

/// The `GNU.sparse.*` records of GNU tar's PAX formats 0.0, 0.1 and 1.0.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct PaxSparse {
    /// `major`.
    pub major: Option<u64>,
    /// `minor`.
    pub minor: Option<u64>,
    /// `name`: the file's path (the header has a made-up one).
    pub name: Option<Vec<u8>>,
    /// `realsize` or `size`: the logical size.
    pub real_size: Option<u64>,
    /// The map of 0.0 (`offset`, `numbytes` repeated) or 0.1 (`map`).
    pub map: Option<Vec<Region>>,
    /// An `offset` that waits for its `numbytes`.
    open: Option<u64>,
}

impl Pax {
    /// Adds all records of a header's body.
    ///
    /// # Errors
    /// What is wrong with a record.
    pub fn add(&mut self, mut body: &[u8], global: bool) -> Result<(), String> {
        while !body.is_empty() {
            let (key, value, rest) = split_record(body)?;
            body = rest;
            self.set(key, value, global)
                .map_err(|why| format!("PAX record {:?}: {why}", String::from_utf8_lossy(key)))?;
        }
        if self.sparse.open.is_some() {
            return Err("PAX record \"GNU.sparse.offset\" without its numbytes".into());
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8], global: bool) -> Result<(), &'static str> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            return self.set_xattr(name, value);
        }
        let per_file = matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.");
        if global && per_file {
            return Err("belongs to one file and cannot be global");
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.set(key, value);
        }
        // An empty value takes an earlier record back.
        let some = !value.is_empty();
        match key {
            b"path" => self.path = some.then(|| text(value)).transpose()?,
            b"linkpath" => self.link = some.then(|| text(value)).transpose()?,
            b"size" => self.size = some.then(|| decimal(value)).transpose()?,
            b"uid" => self.uid = some.then(|| signed(value)).transpose()?,
            b"gid" => self.gid = some.then(|| signed(value)).transpose()?,
            b"mtime" => self.mtime = some.then(|| time(value)).transpose()?,
            _ => {}
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if name.is_empty() || name.contains(&0) {
            return Err("attribute name is empty or holds a NUL");
        }
        // Setting a name twice leaves the last value.
        self.xattrs.retain(|(old, _)| old != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }

    /// These records over `global` ones.
    pub fn over(mut self, global: &Self) -> Self {
        self.uid = self.uid.or(global.uid);
        self.gid = self.gid.or(global.gid);
        self.mtime = self.mtime.or(global.mtime);
        let mut xattrs = global.xattrs.clone();
        xattrs.retain(|(name, _)| self.xattrs.iter().all(|(own, _)| own != name));
        xattrs.append(&mut self.xattrs);
        self.xattrs = xattrs;
        self
    }
}

impl PaxSparse {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"name" => self.name = Some(text(value)?),
            b"size" | b"realsize" => self.real_size = Some(decimal(value)?),
            b"offset" if self.open.is_some() => return Err("comes twice without numbytes between"),
            b"offset" => self.open = Some(decimal(value)?),
            b"numbytes" => {
                let offset = self.open.take().ok_or("comes without an offset")?;
                push(self.map.get_or_insert_default(), Region { offset, bytes: decimal(value)? })?;
            }
            b"map" => {
                let numbers = value.split(|&b| b == b',').filter(|n| !n.is_empty()).map(decimal);
                let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
                let mut map = Vec::new();
                for pair in numbers.chunks(2) {
                    let [offset, bytes] = *pair else { return Err("has an odd number of numbers") };
                    push(&mut map, Region { offset, bytes })?;
                }
                self.map = Some(map);
            }
            // numblocks only announces the length of the map.
            _ => {}
        }
        Ok(())
    }
}

fn push(map: &mut Vec<Region>, region: Region) -> Result<(), &'static str> {
    if map.len() >= MAX_SPARSE_REGIONS {
        return Err("sparse map has more regions than the limit of 1048576");
    }
    map.push(region);
    Ok(())
}

/// A record's key and value, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits `length key=value\n` off the front. The length counts the whole record, its own digits included.
fn split_record(body: &[u8]) -> Result<Split<'_>, String> {
    let bad = || "PAX header has a record that is not 'length key=value'".to_owned();
    let space = body.iter().take(21).position(|&b| b == b' ').ok_or_else(bad)?;
    let length = usize::try_from(decimal(&body[..space]).map_err(|_| bad())?).map_err(|_| bad())?;
    if length > body.len() || length < space + 3 {
        return Err(bad());
    }
    let (record, rest) = body.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(bad)?;
    let equals = record.iter().position(|&b| b == b'=').ok_or_else(bad)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    if key.is_empty() || key.contains(&0) { Err(bad()) } else { Ok((key, value, rest)) }
}

fn text(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    if value.contains(&0) {
        return Err("holds a NUL");
    }
    if value.len() > MAX_PATH_BYTES {
        return Err("is longer than the limit of 4096 bytes");
    }
    Ok(value.to_vec())
}

/// Decimal digits, nothing else.
pub fn decimal(value: &[u8]) -> Result<u64, &'static str> {
    const WHY: &str = "is not a decimal number";
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(WHY);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(WHY)
}

fn signed(value: &[u8]) -> Result<i64, &'static str> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let value = i64::try_from(decimal(digits)?).map_err(|_| "is out of range")?;
    Ok(if negative { -value } else { value })
}

/// Seconds with an optional fraction, rounded down to nanoseconds: -1.5 is second -2 and 500,000,000 ns.
fn time(value: &[u8]) -> Result<(i64, u32), &'static str> {
    let mut parts = value.splitn(2, |&b| b == b'.');
    let whole = parts.next().unwrap_or_default();
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("is not a time");
    }
    let negative = whole.starts_with(b"-");
    let seconds = signed(whole)?;
    let digit = |at: usize| fraction.get(at).map_or(0, |&b| u32::from(b - b'0'));
    let nanos = (0..9).fold(0u32, |value, at| value * 10 + digit(at));
    let more = fraction.iter().skip(9).any(|&b| b != b'0');
    Ok(match (negative, nanos + u32::from(negative && more)) {
        (true, 1_000_000_000) => (seconds - 1, 0),
        (true, nanos @ 1..) => (seconds - 1, 1_000_000_000 - nanos),
        (_, nanos) => (seconds, nanos),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times() {
        for (text, expect) in [
            ("1", Ok((1, 0))),
            ("1.5", Ok((1, 500_000_000))),
            ("1.123456789999", Ok((1, 123_456_789))),
            ("-1.5", Ok((-2, 500_000_000))),
            ("-0.25", Ok((-1, 750_000_000))),
            ("-0.9999999999", Ok((-1, 0))),
            ("16725225600.000000001", Ok((16_725_225_600, 1))),
            ("1.x", Err("is not a time")),
            ("", Err("is not a decimal number")),
            ("1e3", Err("is not a decimal number")),
        ] {
            assert_eq!(time(text.as_bytes()), expect, "{text}");
        }
    }

    #[test]
    fn records() {
        let mut pax = Pax::default();
        pax.add(b"11 path=ab\n29 SCHILY.xattr.user.k=a\nb=c\n9 uid=07\n", false).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"ab"[..]));
        assert_eq!(pax.xattrs, [(b"user.k".to_vec(), b"a\nb=c".to_vec())]);
        assert_eq!(pax.uid, Some(7));
        for bad in
            [&b"11 path=a\0\n"[..], b"99 path=a\n", b"path=a\n", b"5 =a\n", b"4 a\n", b"10 path=ab", b"+9 a=bcd\n"]
        {
            assert!(Pax::default().add(bad, false).is_err(), "{bad:?}");
        }
        assert!(Pax::default().add(b"11 path=ab\n", true).is_err());
    }
}
