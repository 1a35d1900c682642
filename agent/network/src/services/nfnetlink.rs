//! Requests to the kernel's netfilter over netlink (netlink(7), linux/netfilter/nfnetlink.h): the few that `nft` is too slow or has no words for.

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt},
};
use std::{io, os::fd::OwnedFd, time::Duration};

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of one read; the kernel fills a dump's parts up to 32 KiB.
const READ_BYTES: usize = 64 << 10;

const REQUEST: u16 = 0x1;
/// NLM_F_ACK.
pub(super) const ACK: u16 = 0x4;
/// NLM_F_ROOT | NLM_F_MATCH.
pub(super) const DUMP: u16 = 0x300;
const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
/// nlmsghdr.
const HEADER_BYTES: usize = 16;
/// nfgenmsg.
const FAMILY_BYTES: usize = 4;
/// NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const TYPE_MASK: u16 = 0x3fff;

/// A connection to netfilter in the calling thread's network namespace.
pub(super) struct Netfilter(OwnedFd);

impl Netfilter {
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self(socket))
    }

    /// Asks, and hands the attributes of each message of the answer to `take`. `kind` is subsystem and message, `family` that of addresses.
    pub fn ask(
        &self,
        kind: u16,
        flags: u16,
        family: u8,
        attributes: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let length = HEADER_BYTES + FAMILY_BYTES + attributes.len();
        let mut message = Vec::with_capacity(length);
        message.extend(u32::try_from(length).map_err(io::Error::other)?.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend([family, 0, 0, 0]);
        message.extend(attributes);
        send(&self.0, &message, SendFlags::empty())?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let (count, _) = recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = &buffer[..count];
            while let Some((kind, body, next)) = message_of(rest) {
                match kind {
                    TYPE_DONE => return Ok(()),
                    TYPE_ERROR => return error_of(body),
                    _ => take(body.get(FAMILY_BYTES..).unwrap_or_default()),
                }
                rest = next;
            }
            if flags & (DUMP | ACK) == 0 {
                return Ok(());
            }
        }
    }
}

/// Type and body of the first message, and what follows.
fn message_of(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER_BYTES..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn error_of(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(-code).into()) }
}

/// Types and contents of attributes.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

/// One attribute, padded. `nested` says that it holds attributes.
pub(super) fn attribute(kind: u16, nested: bool, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(content.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend((kind | if nested { 0x8000 } else { 0 }).to_ne_bytes());
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
