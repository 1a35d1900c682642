//! What can go wrong with images.

use std::{io, path::PathBuf, sync::Arc};
use strata_layer::LayerError;
use strata_model::Digest;

/// The result of this crate's operations.
pub type Result<T, E = ImageError> = std::result::Result<T, E>;

/// An error of this crate: what was being done, to what, and what to do about it. Cheap to clone, because everybody who
/// waits for one download gets the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// Name, tag or digest is unknown where it was asked for.
    #[error("{what} is not known to {from}; check the name and the tag")]
    NotFound {
        /// The image or blob.
        what: String,
        /// Who was asked.
        from: String,
    },
    /// Credentials are missing, wrong or not enough.
    #[error("{from} refuses {what}: {detail}; check the entry for it in the registry auth file")]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// Who was asked.
        from: String,
        /// The answer.
        detail: String,
    },
    /// No answer, a broken connection, or an answer that says "later".
    #[error("{from} cannot give {what} now: {detail}; check that it is up and reachable from this node")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// Who was asked.
        from: String,
        /// Why not.
        detail: String,
    },
    /// A peer does not answer, or breaks off.
    #[error("{from} cannot give {what} now: {detail}; another node or the registry is asked")]
    PeerUnreachable {
        /// What was asked for.
        what: String,
        /// Who was asked.
        from: String,
        /// Why not.
        detail: String,
    },
    /// A peer serves as many as it may.
    #[error("{from} is busy and cannot give {what} now; it is tried again later")]
    Busy {
        /// What was asked for.
        what: String,
        /// Who was asked.
        from: String,
    },
    /// The content is not what its digest promised. Nothing of it was kept.
    #[error("{what} from {from} has digest {actual}, expected {expected}; it was not kept, fetch it from elsewhere")]
    DigestMismatch {
        /// Image, blob or layer.
        what: String,
        /// Who sent it.
        from: String,
        /// What was asked for.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// The content is cut off, too long, or does not decompress.
    #[error("{what} from {from} is damaged: {detail}; it was not kept, push or export it again")]
    Corrupt {
        /// Image, blob or layer.
        what: String,
        /// Who sent it.
        from: String,
        /// What is wrong.
        detail: String,
    },
    /// The disk is full. What was begun has been removed.
    #[error("no space left on this node while {doing}; free space below the node's state directory")]
    DiskFull {
        /// What was being done.
        doing: String,
    },
    /// A manifest, index or config beyond its bound.
    #[error("{what} from {from} is larger than {max_bytes} bytes; it is no image that can run here")]
    TooLarge {
        /// What was being read.
        what: String,
        /// Who sent it.
        from: String,
        /// The bound.
        max_bytes: u64,
    },
    /// Not an image, or an image of a kind that is not supported.
    #[error("{what} has media type {media_type:?}, which is not supported; use an OCI or Docker schema 2 image")]
    UnsupportedMediaType {
        /// Image or layer.
        what: String,
        /// What it says it is.
        media_type: String,
    },
    /// The image is made for other machines.
    #[error("{what} is not made for {wanted} but for {offered}; use an image for this platform")]
    UnsupportedPlatform {
        /// The image.
        what: String,
        /// This node's platform.
        wanted: String,
        /// The image's platforms.
        offered: String,
    },
    /// The image's documents, or an archive, contradict the specification.
    #[error("{what} is not valid: {detail}; build or export it again")]
    Invalid {
        /// Image, document or archive.
        what: String,
        /// What is wrong.
        detail: String,
    },
    /// An archive that carries no name, or a name that does not fit.
    #[error("the archive cannot be named: {detail}")]
    NameNeeded {
        /// What is missing and how to give it.
        detail: String,
    },
    /// Nobody has it.
    #[error("no node in reach has {what}; {hint}")]
    NoSource {
        /// Image or layer.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// The image is not on this node.
    #[error("image {0} is not on this node; pull or import it first")]
    Missing(Digest),
    /// The image cannot be removed now.
    #[error("image {0} is in use on this node; remove what uses it first")]
    InUse(Digest),
    /// Settings that cannot be read.
    #[error("{what} cannot be used: {detail}")]
    Settings {
        /// Which file or setting.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// An operation on a file failed.
    #[error("{doing} {} failed: {source}", path.display())]
    Io {
        /// What was being done, as in "writing".
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A layer could not be written or read.
    #[error("layer from {from}: {source}")]
    Layer {
        /// Who sent it.
        from: String,
        /// What the layer store says.
        source: Arc<LayerError>,
    },
    /// The work was given up because nobody waits for it any more.
    #[error("fetching {what} was given up; ask again")]
    Cancelled {
        /// Image or layer.
        what: String,
    },
}

impl ImageError {
    /// A stable word for status fields and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::Missing(_) => "ImageNotFound",
            Self::Unauthorized { .. } => "Unauthorized",
            Self::Unreachable { .. } => "RegistryUnreachable",
            Self::PeerUnreachable { .. } => "PeerUnreachable",
            Self::Busy { .. } => "PeerBusy",
            Self::DigestMismatch { .. } => "DigestMismatch",
            Self::Corrupt { .. } => "Corrupt",
            Self::DiskFull { .. } => "DiskFull",
            Self::TooLarge { .. } => "ManifestTooLarge",
            Self::UnsupportedMediaType { .. } => "UnsupportedMediaType",
            Self::UnsupportedPlatform { .. } => "UnsupportedPlatform",
            Self::Invalid { .. } => "InvalidImage",
            Self::NameNeeded { .. } => "NameNeeded",
            Self::NoSource { .. } => "ImageNowhere",
            Self::InUse(_) => "ImageInUse",
            Self::Settings { .. } => "InvalidSettings",
            Self::Io { .. } => "ImageIo",
            Self::Layer { source, .. } => source.reason(),
            Self::Cancelled { .. } => "Cancelled",
        }
    }

    /// Whether the sender is to blame: it answered, with something that it should not have sent.
    #[must_use]
    pub fn blames_sender(&self) -> bool {
        match self {
            Self::DigestMismatch { .. } | Self::Corrupt { .. } | Self::TooLarge { .. } => true,
            Self::Layer { source, .. } => matches!(**source, LayerError::Tar { .. }),
            _ => false,
        }
    }

    /// Whether another source may do better; false for faults of this node.
    #[must_use]
    pub fn worth_another_source(&self) -> bool {
        !matches!(self, Self::DiskFull { .. } | Self::Io { .. } | Self::Cancelled { .. })
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_full(&source) {
            Self::DiskFull { doing: format!("{doing} {}", path.display()) }
        } else {
            Self::Io { doing, path, source: Arc::new(source) }
        }
    }

    pub(crate) fn invalid(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), detail: detail.into() }
    }

    /// Translates what the layer store said about bytes that `from` sent.
    pub(crate) fn layer(from: &str, what: &str, error: LayerError) -> Self {
        match error {
            LayerError::NoSpace { doing, path } => Self::DiskFull { doing: format!("{doing} {}", path.display()) },
            LayerError::DigestMismatch { expected, actual } => {
                Self::DigestMismatch { what: what.into(), from: from.into(), expected, actual }
            }
            LayerError::Io { source, doing, path } => Self::io(doing, path, source),
            error => Self::Layer { from: from.into(), source: Arc::new(error) },
        }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
