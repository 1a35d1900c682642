//! Tar bytes to tree and layout: the part that writing and verifying share.

use crate::erofs::Plan;
use crate::error::{LayerError, Result};
use crate::tar::TarParser;
use crate::tree::Tree;

/// Parses a tar in passing and keeps what its index needs.
#[derive(Debug, Default)]
pub struct Indexer {
    parser: TarParser,
    tree: Tree,
}

impl Indexer {
    /// Takes the next bytes of the tar.
    ///
    /// # Errors
    /// [`LayerError::Tar`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let tree = &mut self.tree;
        self.parser.push(bytes, &mut |entry| tree.apply(entry))
    }

    /// Ends the tar, which had `tar_bytes`.
    ///
    /// # Errors
    /// [`LayerError::Tar`] if the archive is truncated or its layout impossible.
    pub fn finish(self, tar_bytes: u64) -> Result<(Tree, Plan), LayerError> {
        self.parser.finish()?;
        let mut tree = self.tree;
        tree.seal();
        let plan = Plan::new(&tree, tar_bytes)?;
        Ok((tree, plan))
    }
}
