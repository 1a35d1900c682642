//! Into a container: local files, or stdin, as a tar.

use super::{Args, last_name, parent};
use crate::{
    exit::{Exit, Failure},
    session::Session,
};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::{
    io::{self, Write},
    os::fd::AsFd as _,
    path::Path,
};
use strata_archive::{Owners, PackOptions, Place, pack};
use strata_client::{Client, ContainerRef, ErrorKind};
use strata_model::limits::CHUNK_BYTES;
use tokio::{io::AsyncReadExt as _, sync::mpsc};

/// Pieces of the stream that wait for the network.
const PIECES_WAITING: usize = 16;
/// Links that are followed for one path.
const LINKS_MAX: usize = 8;

/// The first entry of a tar.
pub struct First {
    pub kind: tar::EntryType,
    pub target: Option<String>,
}

/// Reads the first header of a tar, which may have a long name before it.
pub fn first_entry(begin: &[u8]) -> io::Result<First> {
    let mut archive = tar::Archive::new(begin);
    let entry = archive.entries()?.next().ok_or_else(|| io::Error::other("it is empty"))??;
    let target = entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned());
    Ok(First { kind: entry.header().entry_type(), target })
}

/// What a path of a container is; `None` if it is not there.
async fn look(session: &Session, of: &ContainerRef, path: &str) -> Result<Option<First>, Failure> {
    let doing = format!("look at {path} in pod {}", of.pod);
    let mut begin = Vec::new();
    let mut chunks = match session.client.copy_out(of, path).await {
        Err(e) if e.kind == ErrorKind::NotFound && e.message.starts_with("NotFound:") => return Ok(None),
        chunks => chunks?,
    };
    loop {
        match chunks.message().await.map_err(|s| Client::stream_error(&doing, &s)) {
            Ok(Some(chunk)) => begin.extend_from_slice(&chunk.data),
            Ok(None) => break,
            Err(e) if e.kind == ErrorKind::NotFound && e.message.starts_with("NotFound:") => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        if let Ok(first) = first_entry(&begin) {
            return Ok(Some(first));
        }
    }
    first_entry(&begin).map(Some).map_err(|e| Failure::failed(format!("cannot {doing}: {e}")))
}

/// The path that a path of a container means when it is a link.
pub async fn followed(session: &Session, of: &ContainerRef, path: &str) -> Result<String, Failure> {
    Ok(resolve(session, of, path).await?.0)
}

async fn resolve(session: &Session, of: &ContainerRef, path: &str) -> Result<(String, Option<First>), Failure> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let found = look(session, of, &path).await?;
        match found.as_ref().and_then(|f| f.target.as_ref()).filter(|_| is_link(found.as_ref())) {
            Some(target) if target.starts_with('/') => path.clone_from(target),
            Some(target) => path = format!("{}/{target}", parent(&path).trim_end_matches('/')),
            None => return Ok((path, found)),
        }
    }
    Err(Failure::failed(format!("{path} leads through more than {LINKS_MAX} links")))
}

fn is_link(first: Option<&First>) -> bool {
    first.is_some_and(|f| f.kind == tar::EntryType::Symlink)
}

/// Local files, by docker's rules; the number of entries made.
pub async fn send(args: &Args, session: &Session, from: &str, to: &ContainerRef, path: &str) -> Result<u64, Failure> {
    let cannot = |e: io::Error| {
        let exit = if e.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        Failure::new(exit, format!("cannot read {from}: {e}"))
    };
    let name = last_name(from);
    // A final slash follows a link, as everywhere.
    let follow = args.follow_link || from.ends_with('/');
    let about = if follow { std::fs::metadata(from) } else { std::fs::symlink_metadata(from) }.map_err(cannot)?;
    let is_directory = about.is_dir();
    let real_from = if follow { std::fs::canonicalize(from).map_err(cannot)? } else { from.into() };
    let real_from = real_from.to_string_lossy();
    let (real, there) = resolve(session, to, path).await?;
    let (directory, called) = match there.map(|f| f.kind == tar::EntryType::Directory) {
        Some(true) => (real, name.to_owned()),
        Some(false) if is_directory => {
            return Err(Failure::failed(format!("cannot copy a directory over {path}, which is none")));
        }
        Some(false) if path.ends_with('/') => return Err(Failure::failed(format!("{path} is no directory"))),
        None if !is_directory && path.ends_with('/') => {
            return Err(Failure::new(Exit::NotFound, format!("there is no directory {path} in pod {}", to.pod)));
        }
        _ => (parent(&real).to_owned(), last_name(&real).to_owned()),
    };
    let (above, source) = match last_name(&real_from) {
        "" => (real_from.to_string(), ".".to_owned()),
        name => (parent(&real_from).to_owned(), name.to_owned()),
    };
    let root = openat(CWD, Path::new(&above), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| cannot(e.into()))?;
    let owners = if args.archive { Owners::Same } else { Owners::Nobody };
    let (sender, receiver) = mpsc::channel(PIECES_WAITING);
    let work = tokio::task::spawn_blocking(move || {
        let mut out = Pieces { sender: sender.clone(), buffer: Vec::new() };
        let options = PackOptions { owners, name: Some(called.into_bytes()) };
        let packed = pack(&Place::directory(root.as_fd()), source.as_bytes(), options, &mut out);
        if let Err(e) = &packed {
            sender.blocking_send(Err(io::Error::other(e.to_string()))).ok();
        }
        packed
    });
    let sent = session.client.copy_in(to, &directory, receiver).await;
    let packed = work.await.map_err(|_| Failure::failed("the copy was interrupted"))?;
    match (sent, packed) {
        (Ok(entries), Ok(_)) => Ok(entries),
        // What the cluster says counts more than that it took no more.
        (Err(e), _) => Err(e.into()),
        (_, Err(e)) => Err(Failure::failed(format!("cannot read {from}: {e}"))),
    }
}

/// Stdin, unpacked in a directory of the container.
pub async fn unpack(session: &Session, to: &ContainerRef, path: &str) -> Result<u64, Failure> {
    let (sender, receiver) = mpsc::channel(PIECES_WAITING);
    let feed = async move {
        let mut stdin = tokio::io::stdin();
        loop {
            let mut piece = Vec::with_capacity(CHUNK_BYTES);
            let read = (&mut stdin).take(CHUNK_BYTES as u64).read_to_end(&mut piece).await;
            let end = matches!(read, Ok(0));
            let failed = read.is_err();
            if end || sender.send(read.map(|_| piece)).await.is_err() || failed {
                return;
            }
        }
    };
    let (_, sent) = tokio::join!(feed, session.client.copy_in(to, path, receiver));
    Ok(sent?)
}

/// Takes a tar and sends it in pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
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
        let sent = self.sender.blocking_send(Ok(std::mem::take(&mut self.buffer)));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the cluster takes no more"))
    }
}
