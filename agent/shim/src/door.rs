//! The listening socket of a zygote or shim: takes connections also when descriptors run out, and never spins on one that it cannot take.

use std::os::fd::OwnedFd;

use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

/// How long nobody is let in after a connection that could not be taken, milliseconds.
const PAUSE_MS: i64 = 100;

/// A listening socket with one descriptor in reserve.
pub struct Door {
    listener: OwnedFd,
    spare: Option<OwnedFd>,
    closed: bool,
}

impl Door {
    /// Of a listening socket.
    pub fn new(listener: OwnedFd) -> Self {
        let mut door = Self { listener, spare: None, closed: false };
        door.refill();
        door
    }

    /// What to wait on; nothing for a while after a connection that could not be taken.
    pub fn listener(&self) -> Option<&OwnedFd> {
        (!self.closed).then_some(&self.listener)
    }

    /// How long to wait at most.
    pub fn timeout(&self) -> Option<Timespec> {
        self.closed.then_some(Timespec { tv_sec: 0, tv_nsec: PAUSE_MS * 1_000_000 })
    }

    /// To be called after each wait.
    pub fn reopen(&mut self) {
        self.closed = false;
        self.refill();
    }

    /// Takes a connection that waits. The one before it is to be closed first where only the newest counts.
    pub fn accept(&mut self) -> Option<OwnedFd> {
        let mut accepted = accept_with(&self.listener, SocketFlags::CLOEXEC);
        if matches!(accepted, Err(Errno::MFILE | Errno::NFILE)) && self.spare.take().is_some() {
            accepted = accept_with(&self.listener, SocketFlags::CLOEXEC);
        }
        // It still waits, so asking again at once would only burn time.
        self.closed = accepted.is_err();
        accepted.ok()
    }

    fn refill(&mut self) {
        if self.spare.is_none() {
            self.spare = rustix::io::fcntl_dupfd_cloexec(&self.listener, 0).ok();
        }
    }
}
