//! Out of a container: a tar into local files, or to stdout.

use super::{Args, last_name, parent, remote::first_entry};
use crate::{
    exit::{Exit, Failure},
    output,
    session::Session,
};
use rustix::fs::{Mode, OFlags, open};
use std::{
    io::{Cursor, Read},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};
use strata_archive::{Owners, Place, Rename, UnpackOptions, unpack};
use strata_client::{Client, ContainerRef};
use strata_proto::node::DataChunk;
use tokio::sync::mpsc;
use tonic::Streaming;

/// Pieces of the stream that wait for the disk.
const PIECES_WAITING: usize = 16;

/// The stream as it is.
pub async fn stream(session: &Session, from: &ContainerRef, path: &str) -> Result<(), Failure> {
    let doing = format!("copy {path} out of pod {}", from.pod);
    let mut chunks = session.client.copy_out(from, path).await?;
    while let Some(chunk) = chunks.message().await.map_err(|s| Client::stream_error(&doing, &s))? {
        output::print_bytes(&chunk.data)?;
    }
    Ok(())
}

/// Into files, by docker's rules.
pub async fn receive(args: &Args, session: &Session, from: &ContainerRef, path: &str, to: &str) -> Result<(), Failure> {
    let name = last_name(path);
    let path = if args.follow_link { super::remote::followed(session, from, path).await? } else { path.to_owned() };
    let doing = format!("copy {path} out of pod {}", from.pod);
    let mut chunks = session.client.copy_out(from, &path).await?;
    // The first header tells whether it is a directory; nothing is made here before.
    let mut begin = Vec::new();
    let first = loop {
        match next(&mut chunks, &doing).await? {
            Some(data) => begin.extend_from_slice(&data),
            None => return Err(Failure::failed(format!("cannot {doing}: the stream ended before it began"))),
        }
        if let Ok(first) = first_entry(&begin) {
            break first;
        }
    };
    let (into, rename) = decide(last_name(&path), name, first.kind == tar::EntryType::Directory, to)?;
    let owners = if args.archive { Owners::Same } else { Owners::Nobody };
    let (sender, receiver) = mpsc::channel::<std::io::Result<Vec<u8>>>(PIECES_WAITING);
    let work = tokio::task::spawn_blocking(move || {
        let input = Cursor::new(begin).chain(Pieces { receiver, current: Cursor::new(Vec::new()) });
        unpack(&Place::directory(into.as_fd()), b".", &UnpackOptions { owners, rename }, input)
    });
    let mut broken = None;
    loop {
        match next(&mut chunks, &doing).await {
            Ok(Some(data)) => {
                if sender.send(Ok(data)).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(failure) => {
                sender.send(Err(std::io::Error::other("it was broken off"))).await.ok();
                broken = Some(failure);
                break;
            }
        }
    }
    drop(sender);
    let unpacked = work.await.map_err(|_| Failure::failed("the copy was interrupted"))?;
    if let Some(failure) = broken {
        return Err(failure);
    }
    let (entries, left_out) = unpacked.map_err(|e| Failure::failed(format!("cannot copy to {to}: {e}")))?;
    if !args.quiet {
        let devices = if left_out > 0 { format!(", {left_out} devices left out") } else { String::new() };
        output::talk(&format!("{entries} files and directories copied to {to}{devices}"));
    }
    Ok(())
}

async fn next(chunks: &mut Streaming<DataChunk>, doing: &str) -> Result<Option<Vec<u8>>, Failure> {
    let chunk = chunks.message().await.map_err(|s| Client::stream_error(doing, &s))?;
    Ok(chunk.map(|c| c.data))
}

/// The directory to unpack in, and what the copy is called there.
///
/// `from` is how its entries are named in the archive ("" = from `.` on), `name` how the path was called.
fn decide(from: &str, name: &str, is_directory: bool, to: &str) -> Result<(OwnedFd, Option<Rename>), Failure> {
    let about = std::fs::metadata(to);
    // What a link leads to is overwritten, not the link.
    let real = if about.is_ok() { std::fs::canonicalize(to).unwrap_or_else(|_| to.into()) } else { to.into() };
    let real = real.to_string_lossy();
    let from = if from.is_empty() { b".".to_vec() } else { from.as_bytes().to_vec() };
    let called = |to: &str| Rename { from: from.clone(), to: to.as_bytes().to_vec() };
    match about {
        Ok(about) if about.is_dir() => Ok((open_dir(to)?, Some(called(name)))),
        Ok(_) if is_directory => Err(Failure::failed(format!("cannot copy a directory over {to}, which is none"))),
        Ok(_) if to.ends_with('/') => Err(Failure::failed(format!("{to} is no directory"))),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::failed(format!("cannot look at {to}: {e}"))),
        Err(_) if !is_directory && to.ends_with('/') => {
            Err(Failure::new(Exit::NotFound, format!("there is no directory {to}")))
        }
        found => {
            let directory = open_dir(parent(&real))?;
            if is_directory && found.is_err() {
                std::fs::create_dir(to).map_err(|e| Failure::failed(format!("cannot make {to}: {e}")))?;
                return Ok((open_dir(to)?, Some(called(""))));
            }
            Ok((directory, Some(called(last_name(&real)))))
        }
    }
}

fn open_dir(path: &str) -> Result<OwnedFd, Failure> {
    let opened = open(Path::new(path), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|e| {
        let exit = if e == rustix::io::Errno::NOENT { Exit::NotFound } else { Exit::Failed };
        Failure::new(exit, format!("cannot open directory {path}: {}", std::io::Error::from(e)))
    })
}

/// What comes through a channel, as a reader.
struct Pieces {
    receiver: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    current: Cursor<Vec<u8>>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let count = self.current.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.current = Cursor::new(piece?),
            }
        }
    }
}
