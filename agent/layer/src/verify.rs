//! Reading a layer file again: hash of the tar, and every byte of the index against the tar.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use strata_model::Digest;

use crate::erofs::{HEADER_BYTES, Identity, LayerHeader, Sink, TarSource};
use crate::error::{LayerError, Result};
use crate::hash::Hasher;
use crate::index::Indexer;
use crate::writer::FileSource;

/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Checks a layer file.
pub(crate) fn verify(file: &File, path: &Path, digest: &Digest, header: &LayerHeader) -> Result<()> {
    let source = FileSource { file, path };
    let mut hash = Hasher::new(digest.algorithm());
    let mut indexer = Indexer::default();
    let mut indexed = Ok(());
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    while at < header.tar_bytes {
        let now = usize::try_from(header.tar_bytes - at).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
        source.read_tar(&mut buffer[..now], at)?;
        hash.update(&buffer[..now]);
        // The hash speaks first: damaged bytes mostly break the parser too.
        indexed = indexed.and_then(|()| indexer.push(&buffer[..now]));
        at += now as u64;
    }
    let actual = hash.finish();
    if actual != *digest {
        return Err(LayerError::DigestMismatch { expected: digest.clone(), actual });
    }
    indexed?;
    let (tree, plan) = indexer.finish(header.tar_bytes)?;
    let mut sink = Comparison { file, path, at: 0 };
    sink.put(&plan.header(Identity { digest, tar_bytes: header.tar_bytes }))?;
    sink.at = HEADER_BYTES + header.tar_bytes;
    plan.write(&tree, &source, &mut sink)
}

/// Compares instead of writing.
struct Comparison<'a> {
    file: &'a File,
    path: &'a Path,
    at: u64,
}

impl Comparison<'_> {
    fn expect(&mut self, bytes: &[u8]) -> Result<()> {
        let mut found = vec![0; bytes.len()];
        self.file
            .read_exact_at(&mut found, self.at)
            .map_err(|error| LayerError::io("reading layer file", self.path, error))?;
        if found != bytes {
            let why = format!("its index differs from what its tar gives, near byte {}", self.at);
            return Err(LayerError::Damaged { path: self.path.to_owned(), why: why.into() });
        }
        self.at += bytes.len() as u64;
        Ok(())
    }
}

impl Sink for Comparison<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.expect(bytes)
    }

    fn zeros_to(&mut self, offset: u64) -> Result<()> {
        while self.at < offset {
            let now = usize::try_from(offset - self.at).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            self.expect(&vec![0; now])?;
        }
        Ok(())
    }
}
