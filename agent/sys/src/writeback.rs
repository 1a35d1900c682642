//! Asking the kernel to begin writing dirty pages, so that a later sync has little left to wait for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Begins to write the dirty pages of a range and returns at once (sync_file_range(2), `SYNC_FILE_RANGE_WRITE`). It promises nothing:
/// durability still needs fdatasync.
///
/// # Errors
/// `EIO`, `ENOSPC` from earlier writes; `ESPIPE` for what is no file; `EINVAL` for ranges beyond `i64`.
pub fn start(file: BorrowedFd<'_>, offset: u64, bytes: u64) -> io::Result<()> {
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the call takes a borrowed descriptor and numbers only.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
