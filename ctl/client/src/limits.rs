//! The bounds of the client's calls.

use std::time::Duration;

/// The deadline of a call with one answer.
pub const UNARY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much longer than its grace a restart may take.
pub const RESTART_TIMEOUT: Duration = Duration::from_secs(90);
/// The longest wait for the next portion of a list.
pub const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest wait for a stream to begin: logs, exec, watch.
pub const STREAM_START_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait for the answer to an import after the last byte was sent.
pub const IMPORT_TIMEOUT: Duration = Duration::from_secs(600);
/// Objects of one list.
pub const LIST_OBJECTS_MAX: usize = 2_000_000;
/// Messages that wait to be sent on an exec or import stream.
pub const OUTGOING_MAX: usize = 16;
