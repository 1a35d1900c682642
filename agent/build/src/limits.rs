//! The bounds of a build.

use std::time::Duration;

/// The largest context, in bytes of its tar, where the node's settings say nothing.
pub const CONTEXT_BYTES_DEFAULT: u64 = 4 << 30;
/// The largest Dockerfile, in bytes.
pub const DOCKERFILE_BYTES_MAX: usize = 1 << 20;
/// The largest `.dockerignore`, in bytes.
pub const IGNORE_BYTES_MAX: u64 = 1 << 20;
/// Steps of one Dockerfile, triggers of its base images included.
pub const STEPS_MAX: usize = 2_000;
/// Bytes of one word after its variables are expanded.
pub const WORD_BYTES_MAX: usize = 64 << 10;
/// Entries that one COPY or ADD may write.
pub const COPY_ENTRIES_MAX: usize = 1_000_000;
/// Symbolic links that are followed for one path (as path_resolution(7)).
pub const LINKS_MAX: usize = 40;
/// How deep directories of a source may be nested.
pub const DEPTH_MAX: usize = 256;
/// The longest RUN.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(3600);
/// Entries of the layer cache; the oldest go.
pub const CACHE_ENTRIES_MAX: usize = 10_000;
/// Output of a RUN that waits for a slow reader, in pieces; the container waits, too.
pub const EVENTS_WAITING_MAX: usize = 64;
/// Lines of a failed RUN's output that its error repeats.
pub const ERROR_LINES: usize = 20;
/// Builds of one node at the same time; more are refused.
pub const BUILDS_AT_ONCE: usize = 4;
