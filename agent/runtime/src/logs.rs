//! A container's log: two files that its shim writes by turns, in the CRI format, and the way to read them in order.
//!
//! A line is `<RFC 3339 with nanoseconds> stdout|stderr F|P <text>`; P: the text goes on in the next line of its stream.
//! Each file is bounded; when one is full the other is emptied and written, so of the oldest lines a part is dropped.

mod tail;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::error::{Error, Result};

/// Default bound of each of the two files.
pub const DEFAULT_LIMIT_BYTES: u64 = 10 << 20;
/// Entries that may wait for a reader.
const QUEUE: usize = 256;
/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(100);

/// One line, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// RFC 3339 with nine digits of nanoseconds, UTC: sorts as text.
    pub time: String,
    /// Whether it came from standard error.
    pub stderr: bool,
    /// The line goes on in the next entry of its stream.
    pub partial: bool,
    /// Without the line's end.
    pub text: Vec<u8>,
}

impl Entry {
    /// What the container wrote: the text, with the line's end unless it goes on.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.text.clone();
        if !self.partial {
            bytes.push(b'\n');
        }
        bytes
    }

    /// Reads one line of a log file. None if it is not of the format (a line cut by a crash).
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let stderr = match stream {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        let partial = match tag {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self { time: String::from_utf8(time.to_vec()).ok()?, stderr, partial, text: text.to_vec() })
    }
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Only the last so many lines (of those that are there).
    pub tail: Option<usize>,
    /// Go on with new lines until this is true (the container has ended) and everything is read.
    pub follow: Option<watch::Receiver<bool>>,
}

/// The two files of a container's log in `dir`.
#[must_use]
pub fn paths(dir: &Path, container: &str) -> [PathBuf; 2] {
    ["a", "b"].map(|which| dir.join(format!("{container}.{which}.log")))
}

/// Opens, or makes, the two files for [`crate::StartRequest`] (mode 0600, appending).
///
/// # Errors
/// The kernel's, naming the file.
pub fn open(dir: &Path, container: &str) -> Result<[File; 2]> {
    use std::os::unix::fs::OpenOptionsExt;
    let [a, b] = paths(dir, container);
    let open = |path: PathBuf| {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
        file.map_err(Error::io(format!("opening the log {}", path.display())))
    };
    Ok([open(a)?, open(b)?])
}

/// Reads a container's log in order: a bounded stream that ends at the last line, or when following as the options say.
/// Dropping the receiver ends the reading.
#[must_use]
pub fn read(dir: &Path, container: &str, options: ReadOptions) -> mpsc::Receiver<Result<Entry>> {
    let (send, receive) = mpsc::channel(QUEUE);
    let paths = paths(dir, container);
    tokio::spawn(async move {
        let name = paths[0].display().to_string();
        if let Err(e) = run(&paths, options, &send).await {
            send.send(Err(Error::io(format!("reading the log {name}"))(e))).await.ok();
        }
    });
    receive
}

async fn run(paths: &[PathBuf; 2], options: ReadOptions, send: &mpsc::Sender<Result<Entry>>) -> io::Result<()> {
    let mut follow = options.follow;
    let mut cursor = tail::Cursor::open(paths, options.tail).await?;
    loop {
        // Seen before the read: what was written until then is read below.
        let ended = follow.as_ref().is_none_or(|f| *f.borrow());
        while let Some(lines) = cursor.next_block().await? {
            for line in lines {
                let Some(entry) = Entry::parse(&line) else { continue };
                if send.send(Ok(entry)).await.is_err() {
                    return Ok(());
                }
            }
        }
        let Some(watch) = follow.as_mut().filter(|_| !ended) else { return Ok(()) };
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = send.closed() => return Ok(()),
            changed = watch.changed() => if changed.is_err() { follow = None },
        }
    }
}

#[cfg(test)]
#[path = "logs/tests.rs"]
mod tests;
