//! The ends of an exec's streams on the agent's side: pipes or a terminal, never blocking.

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::{io, os::fd::OwnedFd};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
};

/// Bytes read at once.
const READ_BYTES: usize = 32 << 10;

/// What the process writes.
pub(crate) struct Reader(pipe::Receiver);

/// What it reads.
pub(super) struct Writer(pipe::Sender);

fn never_blocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = fcntl_getfl(&fd)?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

impl Reader {
    /// Takes a pipe's end or a terminal's master ("unchecked" only means that it need not be a pipe).
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        pipe::Receiver::from_owned_fd_unchecked(never_blocking(fd)?).map(Self)
    }

    /// Some bytes; none at the end. A terminal whose last process has gone answers with EIO: that is its end.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        match self.0.read_buf(&mut buffer).await {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(Vec::new()),
            Err(e) => Err(e),
            Ok(_) => Ok(buffer),
        }
    }
}

impl Writer {
    /// As [`Reader::new`].
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        pipe::Sender::from_owned_fd_unchecked(never_blocking(fd)?).map(Self)
    }

    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }
}
