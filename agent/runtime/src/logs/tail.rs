//! Where a reader stands in the two files of a log.

use std::collections::VecDeque;
use std::io::{self, SeekFrom};
use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Read at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// A line is at most a 16 KiB part and its head; more than this is no line of ours and is skipped.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// Most lines that can be asked for from the end.
const MAX_TAIL: usize = 1_000_000;

pub(super) struct Cursor {
    paths: [PathBuf; 2],
    /// The file being read: its index, handle, offset, and the time of its first line (which names its filling).
    place: Option<Place>,
    /// A line whose end is not there yet.
    rest: Vec<u8>,
}

struct Place {
    which: usize,
    file: File,
    offset: u64,
    first: Vec<u8>,
}

impl Cursor {
    /// Stands at the oldest line, or before the last `tail` ones.
    pub(super) async fn open(paths: &[PathBuf; 2], tail: Option<usize>) -> io::Result<Self> {
        let mut cursor = Self { paths: paths.clone(), place: None, rest: Vec::new() };
        cursor.place = cursor.oldest().await?;
        if let Some(lines) = tail {
            cursor.skip_to_tail(lines.min(MAX_TAIL)).await?;
        }
        Ok(cursor)
    }

    /// The next whole lines; None at the end (for now).
    pub(super) async fn next_block(&mut self) -> io::Result<Option<Vec<Vec<u8>>>> {
        if self.place.is_none() {
            self.place = self.oldest().await?;
        }
        loop {
            let Some(place) = &mut self.place else { return Ok(None) };
            // The writer came round and emptied this file: what is in the other one is older than what is here now.
            if place.file.metadata().await?.len() < place.offset {
                let lost = place.which;
                self.rest.clear();
                let first = std::mem::take(&mut place.first);
                self.place = match self.newer_than(1 - lost, &first).await? {
                    Some(other) => Some(other),
                    None => self.newer_than(lost, &first).await?,
                };
                if self.place.is_none() {
                    return Ok(None);
                }
                continue;
            }
            let mut block = vec![0; BLOCK_BYTES];
            let size = place.file.read(&mut block).await?;
            if size > 0 {
                place.offset += size as u64;
                self.rest.extend_from_slice(&block[..size]);
                return Ok(Some(self.take_lines()));
            }
            let (which, first) = (place.which, place.first.clone());
            let Some(other) = self.newer_than(1 - which, &first).await? else { return Ok(None) };
            // The writer has moved on; anything it wrote here before that is read first.
            if let Some(place) = &self.place
                && place.file.metadata().await?.len() > place.offset
            {
                continue;
            }
            self.rest.clear();
            self.place = Some(other);
        }
    }

    fn take_lines(&mut self) -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = self.rest.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        self.rest = lines.pop().unwrap_or_default();
        if self.rest.len() > MAX_LINE_BYTES {
            self.rest.clear();
        }
        lines
    }

    async fn oldest(&self) -> io::Result<Option<Place>> {
        Ok(match (self.newer_than(0, b"").await?, self.newer_than(1, b"").await?) {
            (Some(a), Some(b)) if b.first < a.first => Some(b),
            (Some(a), _) => Some(a),
            (None, b) => b,
        })
    }

    /// The start of a file, if its first line is whole and later than `time`.
    async fn newer_than(&self, which: usize, time: &[u8]) -> io::Result<Option<Place>> {
        let mut file = match File::open(&self.paths[which]).await {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut head = [0; 40];
        let mut size = 0;
        while size < head.len() {
            match file.read(&mut head[size..]).await? {
                0 => break,
                more => size += more,
            }
        }
        let first = head[..size].split(|b| *b == b' ').next().unwrap_or_default().to_vec();
        if first.len() >= size || first.as_slice() <= time {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0)).await?;
        Ok(Some(Place { which, file, offset: 0, first }))
    }

    /// Walks through all that is there, remembering where the last `lines` whole lines began.
    async fn skip_to_tail(&mut self, lines: usize) -> io::Result<()> {
        let mut starts: VecDeque<(usize, Vec<u8>, u64)> = VecDeque::new();
        let mut fresh = true;
        loop {
            let position = self.place.as_ref().map(|p| (p.which, p.first.clone(), p.offset - self.rest.len() as u64));
            let before = position.clone();
            let Some(block) = self.next_block().await? else { break };
            let Some(place) = &self.place else { break };
            // A block never spans two files; a change of file starts at its beginning.
            let mut at = match before {
                Some((which, first, offset)) if which == place.which && first == place.first => offset,
                _ => 0,
            };
            for line in block {
                if fresh {
                    if starts.len() == lines {
                        starts.pop_front();
                    }
                    if lines > 0 {
                        starts.push_back((place.which, place.first.clone(), at));
                    }
                }
                fresh = line.splitn(4, |b| *b == b' ').nth(2) != Some(b"P");
                at += line.len() as u64 + 1;
            }
        }
        if let Some((which, first, offset)) = starts.front().cloned()
            && let Some(mut place) = self.newer_than(which, b"").await?
            && place.first == first
        {
            place.file.seek(SeekFrom::Start(offset)).await?;
            place.offset = offset;
            self.place = Some(place);
            self.rest.clear();
        }
        Ok(())
    }
}
