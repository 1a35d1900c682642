//! The bounds of this crate. Those that other crates share are in `strata_model::limits`.

use std::time::Duration;

/// Layers of one image that download at the same time.
pub const LAYERS_PARALLEL: usize = 3;
/// Layers of all images of a node that download at the same time; more wait.
pub const DOWNLOADS_MAX: usize = 8;
/// Chunks between the network and the thread that writes a layer.
pub const CHUNKS_QUEUED: usize = 16;
/// Pauses before a broken download is taken up again where it was cut; progress begins the row anew.
pub const RESUME_PAUSES: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// How often one download is taken up again in all, however much progress is made in between.
pub const RESUMES_MAX: usize = 100;
/// Pauses before a question to a registry is asked again.
pub const ASK_PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];
/// To reach a registry.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until an answer's headers are there.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Without a byte in the middle of a body.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Redirects of one request.
pub const REDIRECTS_MAX: usize = 5;
/// Bytes of a token server's answer.
pub const TOKEN_ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an error answer that are read for its text.
pub const ERROR_ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Bytes of the registry auth file.
pub const AUTH_FILE_BYTES_MAX: u64 = 1 << 20;
/// Authorizations kept for reuse.
pub const AUTHORIZATIONS_KEPT: usize = 256;
/// Entries of an imported archive.
pub const ARCHIVE_ENTRIES_MAX: usize = 100_000;
/// Bytes of an imported archive once it is decompressed.
pub const ARCHIVE_BYTES_MAX: u64 = 256 << 30;
/// Images in one archive.
pub const ARCHIVE_IMAGES_MAX: usize = 64;
/// Symbolic links that are followed inside an archive for one name.
pub const ARCHIVE_LINKS_MAX: usize = 8;
/// Descriptors of one index.
pub const INDEX_ENTRIES_MAX: usize = 1024;
/// Indexes within indexes.
pub const INDEX_DEPTH_MAX: usize = 3;
/// How long a source that sent wrong bytes is asked last.
pub const DISTRUST: Duration = Duration::from_secs(600);
/// Sources that are remembered as having sent wrong bytes.
pub const DISTRUSTED_MAX: usize = 1024;
/// The window a zstd stream may ask for, as a power of two (128 MiB, what the zstd tool accepts by default).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Images whose root files are read at start.
pub const IMAGES_MAX: usize = 100_000;
/// Bytes of a layer that are read at once to be exported or pushed.
pub const EXPORT_BUFFER_BYTES: usize = 256 << 10;
/// One blob on its way to a registry.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);
/// What is younger than this is not pruned: the cluster may not have heard of it yet.
pub const PRUNE_AGE: Duration = Duration::from_secs(15);
