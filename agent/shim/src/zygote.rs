//! The zygote: pins the mount namespace in which the agent attaches layer mounts, and makes sandboxes on request.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use prost::Message;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use strata_sys::packet;
use strata_sys::process::{Namespaces, Side, clone_process, exit_now, ignore_children, unshare_mounts};

use crate::door::Door;
use crate::sandbox;
use crate::wire::{self, Step, reply, request};

/// Name of the socket in the node's state directory.
const SOCKET: &str = "zygote.sock";
/// Bytes of the text of a failure.
const MESSAGE_BYTES_MAX: usize = 4_096;
/// Connections at once; an agent needs one, a restarted one a second.
const MAX_CONNECTIONS: usize = 8;

/// The mount namespace of a zygote.
pub enum Mounts<'a> {
    /// A new one that still receives the host's mounts.
    New,
    /// The caller's: this zygote replaces a dead one.
    Own,
    /// The one that this file is: zygote and agent have died.
    Of(&'a Path),
}

/// Listens in `dir`, leaves the caller's session, and serves until killed. The calling process ends once it listens.
pub fn run(dir: &Path, mounts: Mounts<'_>) -> io::Result<()> {
    match mounts {
        Mounts::New => {
            unshare_mounts()?;
            mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        }
        Mounts::Own => {}
        Mounts::Of(file) => move_into_link_name_space(File::open(file)?.as_fd(), Some(LinkNameSpaceType::Mount))?,
    }
    let listener = packet::listen_in(dir, SOCKET)?;
    if let Side::Parent(..) = clone_process(Namespaces::NONE)? {
        return Ok(());
    }
    let result = serve(listener);
    exit_now(i32::from(result.is_err()))
}

fn serve(listener: OwnedFd) -> io::Result<()> {
    rustix::process::setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for number in 0..3 {
        strata_sys::process::place_fd(null.as_fd(), number)?;
    }
    ignore_children()?;
    let mut connections: Vec<OwnedFd> = Vec::new();
    let mut buffer = vec![0; packet::MAX_MESSAGE_BYTES];
    let mut door = Door::new(listener);
    loop {
        let mut ready: Vec<PollFd<'_>> =
            connections.iter().chain(door.listener()).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        rustix::io::retry_on_intr(|| poll(&mut ready, door.timeout().as_ref()))?;
        let ready: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        let calls = connections.len();
        let mut index = 0;
        connections.retain(|connection| {
            index += 1;
            !ready[index - 1] || answer(connection, &mut buffer).unwrap_or(false)
        });
        door.reopen();
        if ready.get(calls) == Some(&true)
            && let Some(connection) = door.accept()
        {
            if connections.len() == MAX_CONNECTIONS {
                connections.remove(0);
            }
            connections.push(connection);
        }
    }
}

/// Answers one request. False: the connection is over.
fn answer(connection: &OwnedFd, buffer: &mut [u8]) -> io::Result<bool> {
    let mut fds = Vec::new();
    let Some(size) = packet::receive(connection.as_fd(), buffer, &mut fds, false)? else { return Ok(false) };
    let Ok(request) = wire::Request::decode(&buffer[..size]) else { return Ok(false) };
    let (body, fds) = match request.request {
        Some(request::Request::Hello(_)) => {
            let namespace = File::open("/proc/self/ns/mnt")?.into();
            let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
            (reply::Reply::Zygote(wire::ZygoteState { version: wire::VERSION }), vec![namespace, own])
        }
        Some(request::Request::CreateSandbox(wanted)) => match sandbox::create(&wanted, fds) {
            Ok(made) => (reply::Reply::Sandbox(wire::Sandbox {}), made.into_fds()),
            Err((failed, message)) => (failure(failed.step, failed.errno, message), Vec::new()),
        },
        _ => (failure(Step::Request, 0, "a zygote makes sandboxes only".into()), Vec::new()),
    };
    let message = wire::Reply { id: request.id, reply: Some(body) }.encode_to_vec();
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    packet::send(connection.as_fd(), &message, &fds, false)?;
    Ok(true)
}

/// A failure as a reply. A message that is too long for the peer is cut: an answer that cannot be sent would end the connection.
pub fn failure(step: Step, errno: i32, mut message: String) -> reply::Reply {
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    reply::Reply::Failure(wire::Failure { step: step.into(), errno, message })
}
