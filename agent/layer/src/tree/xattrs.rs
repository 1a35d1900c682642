//! Extended attributes in the form EROFS keeps them: entries of name index, name and value, each padded to 4 bytes.

use crate::limits::{MAX_XATTR_NAME_BYTES, MAX_XATTR_TOTAL_BYTES, MAX_XATTR_VALUE_BYTES};

/// Attributes of one file.
#[derive(Debug, Default)]
pub struct Encoded {
    /// The entries.
    pub bytes: Box<[u8]>,
    /// Whether `trusted.overlay.opaque=y` was among them.
    pub opaque: bool,
}

/// Name prefixes with their index (`EROFS_XATTR_INDEX_*`). The access control lists are whole names.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// The entry that makes a directory opaque to overlayfs: `trusted.overlay.opaque=y`.
pub const OPAQUE_ENTRY: [u8; 20] = *b"\x0e\x04\x01\x00overlay.opaquey\x00";

/// The entry `trusted.overlay.origin` without a value, "copied up, from where is unknown". overlayfs lists a directory that only one layer
/// has without looking for whiteouts, unless it carries this: the removed names would be listed.
pub const ORIGIN_ENTRY: [u8; 20] = *b"\x0e\x04\x00\x00overlay.origin\x00\x00";

/// Encodes attributes.
///
/// Attributes in overlayfs's own name spaces never come through: a redirect or metacopy in a layer would let its maker show files
/// that are not his. Names of other systems, which Linux would not store, are dropped.
pub fn encode(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<Encoded, String> {
    let mut bytes = Vec::new();
    let mut opaque = false;
    for (name, value) in xattrs {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            opaque |= name == b"trusted.overlay.opaque" && value == b"y";
            continue;
        }
        let Some((rest, index)) = split(name) else { continue };
        if rest.len() > MAX_XATTR_NAME_BYTES - 8 || value.len() > MAX_XATTR_VALUE_BYTES {
            return Err(format!(
                "attribute of {} bytes name and {} bytes value, the limits are {MAX_XATTR_NAME_BYTES} and {MAX_XATTR_VALUE_BYTES}",
                name.len(),
                value.len()
            ));
        }
        if matches!(index, 2 | 3) && !is_acl(value) {
            return Err("access control list is malformed".into());
        }
        bytes.extend_from_slice(&[u8::try_from(rest.len()).unwrap_or(u8::MAX), index]);
        bytes.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        if bytes.len() > MAX_XATTR_TOTAL_BYTES {
            return Err(format!("attributes of more than {MAX_XATTR_TOTAL_BYTES} bytes"));
        }
    }
    Ok(Encoded { bytes: bytes.into(), opaque })
}

fn split(name: &[u8]) -> Option<(&[u8], u8)> {
    PREFIXES.iter().find_map(|&(prefix, index)| {
        let rest = name.strip_prefix(prefix)?;
        let whole = matches!(index, 2 | 3);
        (rest.is_empty() == whole).then_some((rest, index))
    })
}

/// `struct posix_acl_xattr_header` (version 2) and entries of 8 bytes.
fn is_acl(value: &[u8]) -> bool {
    value.len() >= 4 && value[..4] == [2, 0, 0, 0] && (value.len() - 4).is_multiple_of(8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn overlay_attributes_are_dropped_and_opaque_is_honoured() {
        let list = |names: &[&str]| names.iter().map(|n| (n.as_bytes().to_vec(), b"y".to_vec())).collect::<Vec<_>>();
        let dropped =
            encode(&list(&["trusted.overlay.redirect", "user.overlay.metacopy", "trusted.overlay.opaque", "os2.x"]));
        let dropped = dropped.unwrap();
        assert!(dropped.opaque && dropped.bytes.is_empty());
        let kept = encode(&list(&["trusted.overlayx", "user.a", "security.capability"])).unwrap();
        assert!(!kept.opaque);
        assert_eq!(&kept.bytes[..16], b"\x08\x04\x01\x00overlayxy\0\0\0");
        assert!(encode(&[(b"user.big".to_vec(), vec![0; 65_536])]).is_err());
        assert!(encode(&list(&["system.posix_acl_access"])).is_err());
    }
}
