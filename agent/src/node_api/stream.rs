//! Streams of the node API as the readers and writers of a thread that blocks.

use std::io::{self, Read, Write};
use strata_model::limits::CHUNK_BYTES;
use strata_proto::node::DataChunk;
use tokio::sync::mpsc;
use tonic::Status;

/// Takes bytes and sends them in chunks. A receiver that has gone is a broken pipe.
pub(crate) struct Outgoing {
    sender: mpsc::Sender<Result<DataChunk, Status>>,
    buffer: Vec<u8>,
}

impl Outgoing {
    pub(crate) fn new(sender: mpsc::Sender<Result<DataChunk, Status>>) -> Self {
        Self { sender, buffer: Vec::new() }
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.buffer);
        let sent = self.sender.blocking_send(Ok(DataChunk { data }));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes it any more"))
    }
}

/// Gives bytes that come in chunks.
pub(crate) struct Incoming<B> {
    chunks: mpsc::Receiver<io::Result<B>>,
    current: Option<B>,
    at: usize,
}

impl<B: AsRef<[u8]>> Incoming<B> {
    pub(crate) fn new(chunks: mpsc::Receiver<io::Result<B>>) -> Self {
        Self { chunks, current: None, at: 0 }
    }
}

impl<B: AsRef<[u8]>> Read for Incoming<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(chunk) = &self.current {
                let rest = &chunk.as_ref()[self.at..];
                if !rest.is_empty() {
                    let count = rest.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&rest[..count]);
                    self.at += count;
                    return Ok(count);
                }
            }
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => (self.current, self.at) = (Some(chunk?), 0),
            }
        }
    }
}
