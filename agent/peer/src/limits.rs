//! The bounds of this crate. A chunk's size is `strata_model::limits::CHUNK_BYTES`.

use std::time::Duration;

/// Layers and blobs that a node sends at the same time.
pub const STREAMS_MAX: usize = 16;
/// Until a peer begins to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole manifest or config.
pub const BLOB_TIMEOUT: Duration = Duration::from_secs(20);
/// For the controller's answer to "who has it".
pub const LOCATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Peers whose channels are kept.
pub const CHANNELS_KEPT: usize = 256;
/// Holders of one answer that are used; the rest would not be tried anyway.
pub const HOLDERS_MAX: usize = 32;
