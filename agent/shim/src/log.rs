//! A container's output into its two log files, in the CRI format, bounded.
//!
//! The container never waits: what the disk cannot take is dropped and counted.

mod time;

pub use time::now_ns;

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, fstat, ftruncate};
use rustix::io::Errno;

/// Longest text of one line of the file; longer ones are written in parts, as the CRI has it.
const PART_BYTES: usize = 16 * 1024;
/// Read from a stream at once.
const READ_BYTES: usize = 64 * 1024;
/// Least bound of a file: one part with its head.
const MIN_LIMIT_BYTES: u64 = 32 * 1024;

/// The two files, used by turns.
pub struct LogFiles {
    files: [OwnedFd; 2],
    current: usize,
    size: u64,
    limit: u64,
    lost: u64,
}

/// One output of a container.
pub struct Stream {
    source: OwnedFd,
    name: &'static [u8],
    line: Vec<u8>,
    /// Somebody may be at the other side: what has no line's end yet (a prompt) is written as a part at once.
    prompt: bool,
}

/// What reading a stream came to.
#[derive(PartialEq, Eq)]
pub enum Progress {
    /// There may be more.
    More,
    /// Nothing for now.
    Idle,
    /// The last writer has gone.
    Ended,
}

impl LogFiles {
    /// Goes on in the file that was written last.
    pub fn new(a: OwnedFd, b: OwnedFd, limit: u64) -> rustix::io::Result<Self> {
        let (first, second) = (fstat(&a)?, fstat(&b)?);
        // Writing to anything else may block, and with the shim every container of the pod.
        if [&first, &second].iter().any(|s| !FileType::from_raw_mode(s.st_mode).is_file()) {
            return Err(Errno::INVAL);
        }
        let newer = (second.st_mtime, second.st_mtime_nsec) > (first.st_mtime, first.st_mtime_nsec);
        let current = usize::from(second.st_size > 0 && (newer || first.st_size == 0));
        let size = if current == 0 { first.st_size } else { second.st_size };
        let size = u64::try_from(size).unwrap_or(0);
        Ok(Self { files: [a, b], current, size, limit: limit.max(MIN_LIMIT_BYTES), lost: 0 })
    }

    /// Bytes of output that were dropped.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Appends whole lines; both files never hold more than the limit.
    fn append(&mut self, lines: &[u8]) {
        if self.size + lines.len() as u64 > self.limit {
            let other = 1 - self.current;
            if ftruncate(&self.files[other], 0).is_err() {
                self.lost += lines.len() as u64;
                return;
            }
            (self.current, self.size) = (other, 0);
        }
        let file = &self.files[self.current];
        let mut rest = lines;
        while !rest.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(file, rest)) {
                Ok(written) if written > 0 => rest = &rest[written..],
                _ => {
                    // The disk is full: no half lines.
                    self.lost += lines.len() as u64;
                    ftruncate(file, self.size).ok();
                    return;
                }
            }
        }
        self.size += lines.len() as u64;
    }
}

impl Stream {
    /// Of a non-blocking descriptor.
    pub fn new(source: OwnedFd, stderr: bool, prompt: bool) -> Self {
        Self { source, name: if stderr { b" stderr " } else { b" stdout " }, line: Vec::new(), prompt }
    }

    /// The descriptor to wait on.
    pub fn source(&self) -> &OwnedFd {
        &self.source
    }

    /// Reads once and writes the lines that are complete.
    pub fn pump(&mut self, log: &mut LogFiles) -> Progress {
        let mut buffer = [0; READ_BYTES];
        match rustix::io::retry_on_intr(|| rustix::io::read(self.source.as_fd(), &mut buffer)) {
            Ok(size) if size > 0 => {
                self.take(&buffer[..size], log);
                Progress::More
            }
            Err(Errno::AGAIN) => {
                if self.prompt {
                    self.finish(log);
                }
                Progress::Idle
            }
            // A terminal's master says EIO when the last slave has closed.
            _ => {
                self.finish(log);
                Progress::Ended
            }
        }
    }

    fn take(&mut self, mut data: &[u8], log: &mut LogFiles) {
        let stamp = time::now();
        let mut lines = Vec::new();
        while !data.is_empty() {
            let room = PART_BYTES - self.line.len();
            let end = data.iter().take(room + 1).position(|b| *b == b'\n');
            let (text, tag, next) = match end {
                Some(end) => (&data[..end], b"F ", &data[end + 1..]),
                None if data.len() >= room => (&data[..room], b"P ", &data[room..]),
                None => {
                    self.line.extend_from_slice(data);
                    break;
                }
            };
            let whole = stamp.len() + self.name.len() + tag.len() + self.line.len() + text.len() + 1;
            if lines.len() + whole > MIN_LIMIT_BYTES as usize {
                log.append(&lines);
                lines.clear();
            }
            for piece in [&stamp, self.name, tag, &self.line, text, b"\n"] {
                lines.extend_from_slice(piece);
            }
            self.line.clear();
            data = next;
        }
        if !lines.is_empty() {
            log.append(&lines);
        }
        if self.line.capacity() > PART_BYTES / 4 && self.line.is_empty() {
            self.line = Vec::new();
        }
    }

    /// Writes what never got its line's end, as a part.
    pub fn finish(&mut self, log: &mut LogFiles) {
        if !self.line.is_empty() {
            let mut line = time::now().to_vec();
            for piece in [self.name, b"P ", &self.line, b"\n"] {
                line.extend_from_slice(piece);
            }
            log.append(&line);
            self.line = Vec::new();
        }
    }
}

#[cfg(test)]
#[path = "log/tests.rs"]
mod tests;
