//! What can go wrong with layers.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use strata_model::Digest;

/// An error of this crate: what was being done, to what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The tar breaks a rule of its format or of this crate.
    #[error("layer tar is not acceptable at byte {offset}, entry {entry:?}: {why}; rebuild or re-export the image")]
    Tar {
        /// Offset in the uncompressed stream, in bytes.
        offset: u64,
        /// The entry's path, lossy, cut to 200 characters; "" if it is not known yet.
        entry: String,
        /// The rule that is broken.
        why: Cow<'static, str>,
    },
    /// The stream is not what its digest promised. Nothing was published.
    #[error("layer content has digest {actual}, expected {expected}; fetch it again")]
    DigestMismatch {
        /// What the image's configuration names.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// A stored layer file is damaged.
    #[error("layer file {} is damaged: {why}; remove it and fetch the layer again", path.display())]
    Damaged {
        /// The layer file.
        path: PathBuf,
        /// What does not fit.
        why: Cow<'static, str>,
    },
    /// The layer is not in this store.
    #[error("layer {0} is not on this node; fetch it first")]
    Missing(Digest),
    /// The layer cannot be removed now.
    #[error("layer {0} is mounted and in use; remove the containers that use it first")]
    InUse(Digest),
    /// The disk is full. What was begun has been removed.
    #[error("no space left while {doing} {}; free space on that file system", path.display())]
    NoSpace {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
    },
    /// An operation on a file failed.
    #[error("{doing} {} failed: {source}", path.display())]
    Io {
        /// What was being done, as in "writing".
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a mount.
    #[error("{doing} {} failed: {source}{kernel}", path.display())]
    Mount {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The kernel's own words, "" or beginning with " (".
        kernel: String,
        /// The error number.
        source: io::Error,
    },
    /// Neither way to mount a layer file works here.
    #[error(
        "this kernel cannot mount layer files from {}: from the file: {file}; over a loop device: {loop_device}; \
         use a kernel with EROFS (CONFIG_EROFS_FS), 6.12 or later, or 6.4 or later with loop devices",
        path.display()
    )]
    Unsupported {
        /// The directory of layers that was probed.
        path: PathBuf,
        /// Why the mount straight from the file failed.
        file: String,
        /// Why the mount over a loop device failed.
        loop_device: String,
    },
    /// The user namespace given for a container cannot own its files.
    #[error("user namespace has no mapping for id 0, so it cannot own the files of {}; map id 0", path.display())]
    RootUnmapped {
        /// The container's writable directory.
        path: PathBuf,
    },
    /// More layers than the kernel can stack.
    #[error("image has {count} layers, the kernel stacks at most {max}; squash it")]
    TooManyLayers {
        /// Layers asked for.
        count: usize,
        /// Layers possible.
        max: usize,
    },
    /// overlayfs refers from a writable layer to a lower one; a layer file cannot.
    #[error("{} refers to a layer below, so its writable layer cannot be sealed; it was mounted by something else than Strata", path.display())]
    Unsealable {
        /// The file or directory in the upper directory.
        path: PathBuf,
    },
    /// The writer has failed before.
    #[error("layer writer has failed before; begin again with a new one")]
    Poisoned,
}

/// The result of this crate's operations.
pub type Result<T, E = LayerError> = std::result::Result<T, E>;

impl LayerError {
    /// A stable word for status fields and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Tar { .. } => "LayerMalformed",
            Self::DigestMismatch { .. } => "LayerDigestMismatch",
            Self::Damaged { .. } => "LayerDamaged",
            Self::Missing(_) => "LayerMissing",
            Self::InUse(_) => "LayerInUse",
            Self::NoSpace { .. } => "NoSpace",
            Self::Io { .. } | Self::Poisoned => "LayerIo",
            Self::Mount { .. } => "LayerMountFailed",
            Self::Unsupported { .. } => "LayerMountUnsupported",
            Self::RootUnmapped { .. } => "UserNamespaceUnmapped",
            Self::Unsealable { .. } => "LayerUnsealable",
            Self::TooManyLayers { .. } => "TooManyLayers",
        }
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.into(), source.into());
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if full { Self::NoSpace { doing, path } } else { Self::Io { doing, path, source } }
    }

    pub(crate) fn tar(offset: u64, entry: &[u8], why: impl Into<Cow<'static, str>>) -> Self {
        let entry = String::from_utf8_lossy(entry).chars().take(200).collect();
        Self::Tar { offset, entry, why: why.into() }
    }
}
