//! One SEQPACKET connection in tokio: requests with ids, their answers, and events.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use strata_sys::packet;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Exit, SHIM_SOCKET, ShimEvent};
use crate::error::{Error, Result};
use crate::wire::{self, reply, request};

/// Events that may wait for the agent; one more ends the connection (nothing is lost: exits are told again).
const EVENTS: usize = 256;
/// How long a shim may take for an answer (a start waits for execve on a cold disk).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer with its descriptors, and for an exec the promise of its exit.
#[derive(Debug)]
pub(super) struct Answer {
    pub body: reply::Reply,
    pub fds: Vec<OwnedFd>,
    pub exit: Option<oneshot::Receiver<Exit>>,
}

#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    next_id: AtomicU64,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// Of type SEQPACKET: only its readiness and descriptor are used.
    socket: UnixStream,
    waiting: Mutex<Waiting>,
    peer: String,
}

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    execs: HashMap<u64, oneshot::Sender<Exit>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Connection {
    pub(super) fn open(pod_dir: &Path) -> Result<(Self, mpsc::Receiver<ShimEvent>)> {
        let peer = format!("the shim in {}", pod_dir.display());
        let connecting = || Error::io(format!("connecting to {peer}"));
        let socket = packet::connect_in(pod_dir, SHIM_SOCKET).map_err(connecting())?;
        rustix::io::ioctl_fionbio(&socket, true).map_err(|e| connecting()(e.into()))?;
        let socket = UnixStream::from_std(socket.into()).map_err(connecting())?;
        let shared = Arc::new(Shared { socket, waiting: Mutex::default(), peer });
        let (send, events) = mpsc::channel(EVENTS);
        let reader = tokio::spawn(read(shared.clone(), send));
        Ok((Self { shared, next_id: AtomicU64::new(1), reader }, events))
    }

    /// Sends a request with descriptors (closed here once sent) and waits for its answer.
    pub(super) async fn call(&self, request: request::Request, fds: Vec<OwnedFd>) -> Result<Answer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let message = wire::Request { id, request: Some(request) }.encode_to_vec();
        let (send, receive) = oneshot::channel();
        {
            let mut waiting = self.shared.lock();
            if waiting.closed {
                return Err(self.shared.gone());
            }
            waiting.answers.insert(id, send);
        }
        let exchange = async {
            self.shared.send(&message, &fds).await?;
            // Closing detached mounts waits for the kernel (an RCU grace period each): not on the way of the start.
            if !fds.is_empty() {
                drop(tokio::task::spawn_blocking(move || drop(fds)));
            }
            receive.await.map_err(|_| self.shared.gone())
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(|_| {
            Err(Error::Timeout { peer: self.shared.peer.clone(), seconds: ANSWER_TIMEOUT.as_secs() })
        });
        if answer.is_err() {
            self.shared.lock().answers.remove(&id);
        }
        answer
    }

    pub(super) fn protocol(&self, message: String) -> Error {
        Error::Protocol { peer: self.shared.peer.clone(), message }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> Error {
        Error::Gone { peer: self.peer.clone() }
    }

    async fn send(&self, message: &[u8], fds: &[OwnedFd]) -> Result<()> {
        let sent = self.socket.async_io(Interest::WRITABLE, || {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            packet::send(self.socket.as_fd(), message, &fds, false)
        });
        match sent.await {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                Err(self.gone())
            }
            Err(e) => Err(Error::io(format!("asking {}", self.peer))(e)),
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(wire::Reply, Vec<OwnedFd>)>> {
        let mut fds = Vec::new();
        let received = self
            .socket
            .async_io(Interest::READABLE, || packet::receive(self.socket.as_fd(), buffer, &mut fds, false))
            .await?;
        let Some(size) = received else { return Ok(None) };
        let reply = wire::Reply::decode(&buffer[..size]).map_err(io::Error::other)?;
        Ok(Some((reply, fds)))
    }
}

/// Reads answers and events until the connection ends.
async fn read(shared: Arc<Shared>, events: mpsc::Sender<ShimEvent>) {
    let mut buffer = vec![0; packet::MAX_MESSAGE_BYTES];
    loop {
        let (reply, fds) = match shared.receive(&mut buffer).await {
            Ok(Some(received)) => received,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(peer = shared.peer, %error, "reading from the shim");
                break;
            }
        };
        let Some(body) = reply.reply else { continue };
        match body {
            reply::Reply::Exited(exited) => {
                let exit = exited.exit.unwrap_or_default().into();
                if exited.exec != 0 {
                    if let Some(waiter) = shared.lock().execs.remove(&exited.exec) {
                        waiter.send(exit).ok();
                    }
                } else if events.try_send(ShimEvent::Exited { container: exited.container, exit }).is_err()
                    && !events.is_closed()
                {
                    tracing::warn!(peer = shared.peer, "the agent reads no events: ending the connection");
                    break;
                }
            }
            body => {
                let mut waiting = shared.lock();
                let exit = match &body {
                    reply::Reply::Started(started) if started.exec != 0 => {
                        let (send, receive) = oneshot::channel();
                        waiting.execs.insert(started.exec, send);
                        Some(receive)
                    }
                    _ => None,
                };
                if let Some(waiter) = waiting.answers.remove(&reply.id) {
                    waiter.send(Answer { body, fds, exit }).ok();
                }
            }
        }
    }
    {
        let mut waiting = shared.lock();
        waiting.closed = true;
        waiting.answers.clear();
        waiting.execs.clear();
    }
    events.send(ShimEvent::Gone).await.ok();
}
