//! One entry's header blocks: a PAX extended header where needed, then the ustar header.

use super::{EntryKind, EntryMeta};
use crate::tar::BLOCK;

/// The largest number in a ustar field of 8 bytes.
const MAX_OCTAL_8: u64 = 0o7_777_777;
/// The largest in one of 12 bytes.
const MAX_OCTAL_12: u64 = 0o77_777_777_777;
/// Bytes of a name that the ustar header itself can hold.
const NAME_BYTES: usize = 100;

/// A PAX record and its value.
type Record = (Vec<u8>, Vec<u8>);

/// The records that make the next file a sparse one, PAX 1.0; they carry its path.
pub(super) fn sparse_records(path: &[u8], size: u64) -> Vec<Record> {
    vec![
        (b"GNU.sparse.major".to_vec(), b"1".to_vec()),
        (b"GNU.sparse.minor".to_vec(), b"0".to_vec()),
        (b"GNU.sparse.name".to_vec(), path.to_vec()),
        (b"GNU.sparse.realsize".to_vec(), size.to_string().into_bytes()),
    ]
}

/// All header blocks of an entry with `size` bytes of data; `more` records are added to those that its fields need.
pub(super) fn encode(path: &[u8], kind: EntryKind<'_>, meta: &EntryMeta, size: u64, more: &[Record]) -> Vec<u8> {
    let mut name = if path.is_empty() { b"./".to_vec() } else { path.to_vec() };
    if kind == EntryKind::Directory && !name.ends_with(b"/") {
        name.push(b'/');
    }
    let link = match kind {
        EntryKind::Symlink(target) | EntryKind::HardLink(target) => target,
        _ => &[],
    };
    let mut records = more.to_vec();
    let sparse = !more.is_empty();
    if name.len() > NAME_BYTES && !sparse {
        records.push((b"path".to_vec(), name.clone()));
    }
    if link.len() > NAME_BYTES {
        records.push((b"linkpath".to_vec(), link.to_vec()));
    }
    if size > MAX_OCTAL_12 {
        records.push((b"size".to_vec(), size.to_string().into_bytes()));
    }
    for (key, id) in [("uid", meta.uid), ("gid", meta.gid)] {
        if u64::from(id) > MAX_OCTAL_8 {
            records.push((key.into(), id.to_string().into_bytes()));
        }
    }
    let plain_time = u64::try_from(meta.mtime).ok().filter(|time| *time <= MAX_OCTAL_12);
    if meta.mtime_ns != 0 || plain_time.is_none() {
        records.push((b"mtime".to_vec(), time(meta.mtime, meta.mtime_ns)));
    }
    for (key, value) in &meta.xattrs {
        records.push(([b"SCHILY.xattr.".as_slice(), key].concat(), value.clone()));
    }
    let mut blocks = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        let about = EntryMeta { mode: 0o644, ..EntryMeta::default() };
        blocks.extend_from_slice(&ustar(b"././@PaxHeader", b'x', &[], &about, body.len() as u64, (0, 0)));
        blocks.extend_from_slice(&body);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    }
    let (flag, device) = match kind {
        EntryKind::Directory => (b'5', (0, 0)),
        EntryKind::EmptyFile => (b'0', (0, 0)),
        EntryKind::Symlink(_) => (b'2', (0, 0)),
        EntryKind::HardLink(_) => (b'1', (0, 0)),
        EntryKind::CharDevice(major, minor) => (b'3', (major, minor)),
        EntryKind::BlockDevice(major, minor) => (b'4', (major, minor)),
        EntryKind::Fifo => (b'6', (0, 0)),
    };
    blocks.extend_from_slice(&ustar(&name, flag, link, meta, size, device));
    blocks
}

/// `length key=value\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Seconds with a fraction, as PAX writes times before 1970 too: -5 s and 250,000,000 ns are -4.75.
fn time(seconds: i64, nanoseconds: u32) -> Vec<u8> {
    let text = match (seconds, nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds, ns) if seconds >= 0 => format!("{seconds}.{ns:09}"),
        (seconds, ns) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - ns),
    };
    text.into_bytes()
}

fn ustar(name: &[u8], flag: u8, link: &[u8], meta: &EntryMeta, size: u64, device: (u32, u32)) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put_bytes(&mut block[..NAME_BYTES], name);
    put_octal(&mut block[100..108], u64::from(meta.mode & 0o7777));
    put_octal(&mut block[108..116], u64::from(meta.uid).min(MAX_OCTAL_8));
    put_octal(&mut block[116..124], u64::from(meta.gid).min(MAX_OCTAL_8));
    put_octal(&mut block[124..136], size.min(MAX_OCTAL_12));
    put_octal(&mut block[136..148], u64::try_from(meta.mtime).unwrap_or(0).min(MAX_OCTAL_12));
    block[156] = flag;
    put_bytes(&mut block[157..257], link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    put_octal(&mut block[329..337], u64::from(device.0));
    put_octal(&mut block[337..345], u64::from(device.1));
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    put_octal(&mut block[148..155], sum);
    block
}

/// As much as fits; what is longer is in a PAX record.
fn put_bytes(field: &mut [u8], bytes: &[u8]) {
    let fits = bytes.len().min(field.len());
    field[..fits].copy_from_slice(&bytes[..fits]);
}

/// Zero-filled octal digits, ended by a NUL.
fn put_octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let text = format!("{number:0digits$o}");
    field[..digits].copy_from_slice(&text.as_bytes()[text.len() - digits..]);
    field[digits] = 0;
}
