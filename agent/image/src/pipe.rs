//! From an async producer to a thread that reads: a bounded queue of chunks.

use crate::limits::CHUNKS_QUEUED;
use bytes::{Buf as _, Bytes};
use std::io;
use tokio::sync::mpsc;

enum Piece {
    Data(Bytes),
    End,
}

/// The end that is written to. Dropped without [`PipeWriter::finish`], the reader sees an error, never an early end.
#[derive(Debug)]
pub struct PipeWriter(mpsc::Sender<Piece>);

/// The end that is read, on a thread that may block.
#[derive(Debug)]
pub struct PipeReader {
    pieces: mpsc::Receiver<Piece>,
    chunk: Bytes,
    ended: bool,
}

/// The reader is gone; it has the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reader has stopped")]
pub struct ReaderGone;

/// Makes a pipe of at most [`CHUNKS_QUEUED`] chunks.
#[must_use]
pub fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, pieces) = mpsc::channel(CHUNKS_QUEUED);
    (PipeWriter(sender), PipeReader { pieces, chunk: Bytes::new(), ended: false })
}

impl PipeWriter {
    /// Hands over a chunk; waits while the queue is full.
    ///
    /// # Errors
    /// [`ReaderGone`] when nobody reads any more.
    pub async fn send(&self, chunk: Bytes) -> Result<(), ReaderGone> {
        self.0.send(Piece::Data(chunk)).await.map_err(|_| ReaderGone)
    }

    /// Says that all has been sent.
    ///
    /// # Errors
    /// [`ReaderGone`] when nobody reads any more.
    pub async fn finish(self) -> Result<(), ReaderGone> {
        self.0.send(Piece::End).await.map_err(|_| ReaderGone)
    }
}

impl io::Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Data(chunk)) => self.chunk = chunk,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the sender has given up")),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
