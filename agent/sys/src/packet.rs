//! SEQPACKET unix sockets: one message a packet, descriptors as SCM_RIGHTS (unix(7)).
//!
//! Addresses are limited to 108 bytes, so sockets are bound and reached through a descriptor of their directory.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recvmsg, sendmsg,
    socket_with, socketpair,
};

/// Longest message, in bytes; a socket's default send buffer holds it.
pub const MAX_MESSAGE_BYTES: usize = 160 * 1024;
/// Most descriptors in one message.
pub const MAX_FDS: usize = 64;
/// Connections waiting to be accepted.
const BACKLOG: i32 = 16;

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn address(dir: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?)
}

fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes a listening socket `name` in `dir`; a file of that name is replaced.
pub fn listen_in(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    let dir = open_dir(dir)?;
    match rustix::fs::unlinkat(&dir, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let socket = new_socket()?;
    // The file takes the socket's mode (unix(7)): only the owner may connect.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    bind(&socket, &address(dir.as_fd(), name)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Connects to the socket `name` in `dir`: ENOENT if it was never made, ECONNREFUSED if nobody listens any more.
pub fn connect_in(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    let dir = open_dir(dir)?;
    let socket = new_socket()?;
    connect(&socket, &address(dir.as_fd(), name)?)?;
    Ok(socket)
}

/// Two connected sockets.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message with descriptors; never raises SIGPIPE. With `wait` false a full socket is EAGAIN.
pub fn send(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>], wait: bool) -> io::Result<()> {
    if message.len() > MAX_MESSAGE_BYTES || fds.len() > MAX_FDS {
        return Err(Errno::MSGSIZE.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE.into());
    }
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(message)], &mut control, flags))?;
    Ok(())
}

/// Receives one message into `buffer` and its descriptors (close-on-exec) into `fds`. `Ok(None)`: the peer is gone.
///
/// A message or a list of descriptors that was cut is EMSGSIZE: it is never half used.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    wait: bool,
) -> io::Result<Option<usize>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = if wait { RecvFlags::CMSG_CLOEXEC } else { RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT };
    let got = match rustix::io::retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)) {
        Err(Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE.into());
    }
    Ok((got.bytes > 0).then_some(got.bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_message_carries_its_descriptors() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"hello", &[a.as_fd(), b.as_fd()], true).unwrap();
        let (mut buffer, mut fds) = ([0; 16], Vec::new());
        assert_eq!(receive(b.as_fd(), &mut buffer, &mut fds, true).unwrap(), Some(5));
        assert_eq!((&buffer[..5], fds.len()), (&b"hello"[..], 2));
        drop(fds);
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut buffer, &mut Vec::new(), true).unwrap(), None);
    }

    #[test]
    fn a_long_message_is_refused_not_cut() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), &[1; 100], &[], true).unwrap();
        let error = receive(b.as_fd(), &mut [0; 10], &mut Vec::new(), true).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        assert!(send(a.as_fd(), &vec![0; MAX_MESSAGE_BYTES + 1], &[], true).is_err());
    }

    #[test]
    fn a_deep_directory_holds_a_socket() {
        let dir = std::env::temp_dir().join(format!("strata-packet-{}", std::process::id())).join("d".repeat(120));
        std::fs::create_dir_all(&dir).unwrap();
        let listener = listen_in(&dir, "s").unwrap();
        assert_eq!(rustix::fs::stat(dir.join("s")).unwrap().st_mode & 0o777, 0o600);
        connect_in(&dir, "s").unwrap();
        drop(listener);
        assert_eq!(connect_in(&dir, "s").unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
        std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }
}
