//! ADD unpacks local archives: they become layers of the builds' own store, and their content is copied like a directory's.

use std::io::{self, Read};

use strata_layer::LayerStore;
use strata_model::{Algorithm, Digest};

use super::sources::matching;
use crate::error::{BuildError, Result};
use crate::tree::{Tree, kind};

/// Bytes that are read to see what a file is: the first block of a tar.
const HEAD_BYTES: usize = 512;
/// Bytes of an archive that are held at once.
const PIECE_BYTES: usize = 256 << 10;

/// What one source of an ADD is.
pub(crate) enum Added {
    /// Something to copy: its path, without any pattern.
    Path(String),
    /// An archive, now a layer in the builds' store.
    Archive(Digest),
}

/// Looks at what a source of an ADD means, and takes archives in. `taken` is told of each layer, for it must go in the end.
///
/// # Errors
/// Compressions that are not known here, archives that break off, full disks.
pub(crate) fn look(tree: &Tree, pattern: &str, store: &LayerStore, taken: &mut Vec<Digest>) -> Result<Vec<Added>> {
    let mut added = Vec::new();
    for path in matching(tree, pattern)? {
        let shown = String::from_utf8(path.clone())
            .map_err(|_| BuildError::invalid(format!("the name {:?} is not UTF-8", String::from_utf8_lossy(&path))))?;
        let place = tree.resolve(&path, true)?;
        let is_file = place.stat.as_ref().is_some_and(|stat| kind(stat).is_file());
        match if is_file { open(tree, &place.path, &shown)? } else { None } {
            None => added.push(Added::Path(shown)),
            Some(archive) => {
                let digest = take(archive, store, &shown)?;
                taken.push(digest.clone());
                added.push(Added::Archive(digest));
            }
        }
    }
    Ok(added)
}

/// The tar in a file, decompressed, if there is one.
fn open(tree: &Tree, path: &[u8], shown: &str) -> Result<Option<Box<dyn Read>>> {
    let fail = |error: io::Error| BuildError::io("reading", shown, error);
    let head = head(&mut tree.file(path)?).map_err(fail)?;
    let file = tree.file(path)?;
    let plain: Box<dyn Read> = match head.as_slice() {
        head if is_tar(head) => return Ok(Some(Box::new(file))),
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(file).map_err(fail)?),
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            return Err(BuildError::invalid(format!(
                "{shown} is compressed with bzip2 or xz, which ADD does not unpack yet: compress it with gzip or zstd, or COPY it"
            )));
        }
        _ => return Ok(None),
    };
    // What is compressed but no tar is copied as it is.
    let mut plain = plain;
    let Ok(head) = self::head(&mut plain) else { return Ok(None) };
    Ok(is_tar(&head).then(|| Box::new(io::Cursor::new(head).chain(plain)) as Box<dyn Read>))
}

fn head(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    reader.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

fn take(mut archive: Box<dyn Read>, store: &LayerStore, shown: &str) -> Result<Digest> {
    let mut writer = store.writer(Algorithm::Sha256)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match archive.read(&mut piece).map_err(|error| BuildError::io("unpacking", shown, error))? {
            0 => break,
            got => writer.push(&piece[..got])?,
        }
    }
    Ok(writer.finish(None)?.digest)
}
