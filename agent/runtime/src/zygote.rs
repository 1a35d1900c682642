//! The node's zygote: the small process that pins the mount namespace of layer mounts and makes the pods' sandboxes.
//!
//! It outlives agents. [`enter`] finds or starts it and moves the calling process into its mount namespace. A file pins the namespace besides
//! (`pin.rs`), so a zygote that replaces a dead one finds it again even if there is no agent.

mod pin;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use strata_sys::packet;

use crate::client::{SHIM_SOCKET, pid_of};
use crate::error::{Error, Result, StartError};
use crate::wire::{self, reply, request};

/// Name of the zygote's socket in the node's state directory.
pub const ZYGOTE_SOCKET: &str = "zygote.sock";
/// How long the zygote may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Zygotes that are started until one's mount namespace can be pinned.
const PIN_TRIES: usize = 8;
/// Ids of one pod.
pub const IDS_PER_POD: u32 = 65_536;

/// A connection to the node's zygote.
#[derive(Clone, Debug)]
pub struct Zygote {
    connection: Arc<Mutex<Connection>>,
    /// Started just now, with a mount namespace of its own.
    is_new: bool,
    unpinned: Option<Arc<str>>,
    state_dir: Arc<Path>,
    program: Arc<Path>,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    pidfd: Option<OwnedFd>,
    next_id: u64,
}

/// What a sandbox shall be.
#[derive(Debug, Default)]
pub struct SandboxRequest {
    /// The pod's directory: its shim's socket is made there.
    pub pod_dir: PathBuf,
    /// Host name inside the pod.
    pub hostname: String,
    /// The host's id of the pod's id 0; [`IDS_PER_POD`] ids from there are the pod's.
    pub id_base: u32,
    /// Further sysctls (`net.ipv4.tcp_keepalive_time`, value). Only namespaced ones; the defaults for ping and low ports
    /// are always set.
    pub sysctls: Vec<(String, String)>,
    /// Join files (see [`crate::cgroup`]) for the shim itself; may be empty.
    pub cgroups: Vec<OwnedFd>,
}

/// A pod's namespaces with an idle shim in them.
#[derive(Debug)]
pub struct Sandbox {
    /// The shim's pid in this process's pid namespace.
    pub pid: u32,
    /// The shim; killing it kills the pod.
    pub pidfd: OwnedFd,
    /// The pod's user namespace, for id-mapped mounts.
    pub userns: OwnedFd,
    /// The pod's network namespace.
    pub netns: OwnedFd,
}

/// Finds the zygote of `state_dir` or starts `shim_path` as one, pins its mount namespace and moves the calling process into it.
///
/// To be called before the process has threads, or on a thread that has left the others' working directory (else setns
/// fails with EINVAL). The working directory is kept by path.
///
/// # Errors
/// If the zygote cannot be started or entered; root is needed.
pub fn enter(state_dir: &Path, shim_path: &Path) -> Result<Zygote> {
    let (mut zygote, mut namespace) = find_or_start(state_dir, shim_path)?;
    for tries_left in (0..PIN_TRIES).rev() {
        let pinned = pin::ensure(&zygote.state_dir, namespace.as_fd());
        zygote.unpinned = pinned.err().map(|e| e.to_string().into());
        if zygote.unpinned.is_none() || !zygote.is_new || tries_left == 0 {
            break;
        }
        // The kernel pins younger namespaces only, and tells the age by numbers that processors take in batches (6.18): another one may do.
        zygote.stop()?;
        (zygote, namespace) = find_or_start(state_dir, shim_path)?;
    }
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(|e| Error::io("entering the zygote's mount namespace (the process must have one thread)")(e.into()))?;
    std::env::set_current_dir(&cwd)
        .or_else(|_| std::env::set_current_dir("/"))
        .map_err(Error::io("returning to the working directory"))?;
    Ok(zygote)
}

/// [`enter`] without entering: for programs that mount nothing.
///
/// # Errors
/// As there.
pub fn attach(state_dir: &Path, shim_path: &Path) -> Result<Zygote> {
    Ok(find_or_start(state_dir, shim_path)?.0)
}

fn find_or_start(state_dir: &Path, shim_path: &Path) -> Result<(Zygote, OwnedFd)> {
    let state_dir = std::path::absolute(state_dir).map_err(Error::io("resolving the state directory"))?;
    let program = std::path::absolute(shim_path).map_err(Error::io("resolving the shim's path"))?;
    let mut is_new = false;
    let (connection, namespace) = match Connection::open(&state_dir) {
        Ok(found) => found,
        Err(_) => {
            let pinned = pin::find(&state_dir).map(|file| start(&state_dir, &program, &Mounts::Pinned(file)));
            match pinned {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "the pinned mount namespace cannot be entered: layers are mounted anew");
                    start(&state_dir, &program, &Mounts::New)?;
                    is_new = true;
                }
                None => {
                    start(&state_dir, &program, &Mounts::New)?;
                    is_new = true;
                }
            }
            Connection::open(&state_dir)?
        }
    };
    let connection = Arc::new(Mutex::new(connection));
    let zygote = Zygote { connection, is_new, unpinned: None, state_dir: state_dir.into(), program: program.into() };
    Ok((zygote, namespace))
}

/// Which mount namespace a zygote shall have.
enum Mounts {
    /// One of its own.
    New,
    /// The caller's: the zygote's that it replaces.
    Own,
    /// The one that this file pins.
    Pinned(PathBuf),
}

/// Runs the zygote and waits until it listens (it forks itself away, so the call returns at once).
fn start(state_dir: &Path, program: &Path, mounts: &Mounts) -> Result<()> {
    let failed = |message: String| Error::ZygoteStart { program: program.to_owned(), message };
    let mut command = Command::new(program);
    command.arg("zygote").arg("--socket").arg(state_dir).current_dir("/").env_clear();
    match mounts {
        Mounts::New => &mut command,
        Mounts::Own => command.arg("--keep-mounts"),
        Mounts::Pinned(file) => command.arg("--mounts").arg(file),
    };
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(())
}

impl Connection {
    /// Connects and exchanges versions; also returns the zygote's mount namespace.
    fn open(state_dir: &Path) -> Result<(Self, OwnedFd)> {
        let socket = packet::connect_in(state_dir, ZYGOTE_SOCKET).map_err(Error::io("connecting to the zygote"))?;
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, direction, Some(ANSWER_TIMEOUT))
                .map_err(|e| Error::io("setting a timeout")(e.into()))?;
        }
        let mut connection = Self { socket, pidfd: None, next_id: 1 };
        let hello = request::Request::Hello(wire::Hello { version: wire::VERSION });
        match connection.call(hello, &[])? {
            (reply::Reply::Zygote(_), fds) => {
                let [namespace, pidfd] =
                    <[OwnedFd; 2]>::try_from(fds).map_err(|_| protocol("no namespace and process"))?;
                connection.pidfd = Some(pidfd);
                Ok((connection, namespace))
            }
            (other, _) => Err(protocol(&format!("{other:?}"))),
        }
    }

    fn call(&mut self, request: request::Request, fds: &[BorrowedFd<'_>]) -> Result<(reply::Reply, Vec<OwnedFd>)> {
        let id = self.next_id;
        self.next_id += 1;
        let message = wire::Request { id, request: Some(request) }.encode_to_vec();
        let broken = |e: io::Error| match e.kind() {
            io::ErrorKind::WouldBlock => Error::Timeout { peer: "zygote".into(), seconds: ANSWER_TIMEOUT.as_secs() },
            _ => Error::io("talking to the zygote")(e),
        };
        packet::send(self.socket.as_fd(), &message, fds, true).map_err(broken)?;
        let mut buffer = vec![0; packet::MAX_MESSAGE_BYTES];
        loop {
            let mut received = Vec::new();
            let size = packet::receive(self.socket.as_fd(), &mut buffer, &mut received, true)
                .map_err(broken)?
                .ok_or_else(|| Error::Gone { peer: "zygote".into() })?;
            let reply = wire::Reply::decode(&buffer[..size]).map_err(|e| protocol(&e.to_string()))?;
            match reply.reply {
                Some(body) if reply.id == id => return Ok((body, received)),
                // The late answer to a request that was given up: what it carries is closed, its sandbox goes with its cgroup.
                Some(_) if reply.id < id => tracing::warn!("the zygote answered a request after its time"),
                _ => return Err(protocol("an answer to another request")),
            }
        }
    }
}

fn protocol(message: &str) -> Error {
    Error::Protocol { peer: "zygote".into(), message: message.to_owned() }
}

impl Zygote {
    /// Makes a sandbox: namespaces, /dev, /sys, loopback, and an idle shim that listens in the pod's directory.
    ///
    /// # Errors
    /// `Error::Start` names the step that failed. A zygote that has died is started again (in this process's mount
    /// namespace, so that layer mounts stay) and asked once more.
    pub async fn create_sandbox(&self, request: SandboxRequest) -> Result<Sandbox> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.create_sandbox_blocking(&request))
            .await
            .map_err(|e| Error::io("making a sandbox")(io::Error::other(e)))?
    }

    /// Why the mount namespace of layers could not be pinned, if so: all works, but if agent and zygote die at once, layers are mounted (and cached)
    /// a second time. An agent that is started in a mount namespace younger than its zygote's cannot pin it.
    #[must_use]
    pub fn unpinned(&self) -> Option<&str> {
        self.unpinned.as_deref()
    }

    /// The zygote's pid in this process's pid namespace.
    ///
    /// # Errors
    /// ESRCH if it has ended.
    pub fn pid(&self) -> Result<u32> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.pidfd.as_ref().map_or_else(|| Err(protocol("no process")), |fd| pid_of(fd.as_fd()))
    }

    /// Ends the zygote and waits for its end (decommissioning a node). Pods stay; layer mounts go with the last process
    /// of the mount namespace; its pin is removed if this process is where the agent was started.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stop(&self) -> Result<()> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pidfd) = &connection.pidfd else { return Ok(()) };
        match strata_sys::process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => return Err(Error::io("ending the zygote")(e)),
            _ => {}
        }
        let timeout = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        let mut ended = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut ended, Some(&timeout)))
            .map_err(|e| Error::io("waiting for the zygote's end")(e.into()))?;
        std::fs::remove_file(self.state_dir.join(ZYGOTE_SOCKET)).ok();
        pin::remove(&self.state_dir).map_err(Error::io("letting go of the zygote's mount namespace"))
    }

    /// [`Zygote::create_sandbox`] for callers that are not async.
    ///
    /// # Errors
    /// As there.
    pub fn create_sandbox_blocking(&self, request: &SandboxRequest) -> Result<Sandbox> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match self.try_create(&mut connection, request) {
            Err(Error::Gone { .. } | Error::Io { .. }) if !connection.is_alive() => {
                tracing::warn!("the zygote has gone; starting another");
                *connection = match Connection::open(&self.state_dir) {
                    Ok((found, _)) => found,
                    Err(_) => {
                        start(&self.state_dir, &self.program, &Mounts::Own)?;
                        Connection::open(&self.state_dir)?.0
                    }
                };
                self.try_create(&mut connection, request)
            }
            other => other,
        }
    }

    fn try_create(&self, connection: &mut Connection, request: &SandboxRequest) -> Result<Sandbox> {
        let listener = packet::listen_in(&request.pod_dir, SHIM_SOCKET)
            .map_err(Error::io(format!("making the shim's socket in {}", request.pod_dir.display())))?;
        let program =
            File::open(&self.program).map_err(Error::io(format!("opening the shim {}", self.program.display())))?;
        let mut fds = vec![listener.as_fd(), program.as_fd()];
        fds.extend(request.cgroups.iter().map(AsFd::as_fd));
        let sysctl = |(name, value): &(String, String)| wire::Sysctl { name: name.clone(), value: value.clone() };
        let body = request::Request::CreateSandbox(wire::CreateSandbox {
            hostname: request.hostname.clone(),
            id_base: request.id_base,
            id_count: IDS_PER_POD,
            sysctls: request.sysctls.iter().map(sysctl).collect(),
        });
        match connection.call(body, &fds)? {
            (reply::Reply::Sandbox(_), fds) => {
                let [pidfd, userns, netns] =
                    <[OwnedFd; 3]>::try_from(fds).map_err(|_| protocol("a sandbox without its descriptors"))?;
                Ok(Sandbox { pid: pid_of(pidfd.as_fd())?, pidfd, userns, netns })
            }
            (reply::Reply::Failure(failure), _) => Err(StartError::from(failure).into()),
            (other, _) => Err(protocol(&format!("{other:?}"))),
        }
    }
}

impl Connection {
    fn is_alive(&mut self) -> bool {
        self.call(request::Request::Hello(wire::Hello { version: wire::VERSION }), &[]).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_one() {
        let (ours, theirs) = packet::pair().unwrap();
        let mut connection = Connection { socket: ours, pidfd: None, next_id: 2 };
        // Request 1 timed out; its answer comes first.
        for (id, version) in [(1, 7), (2, 8)] {
            let body = reply::Reply::Zygote(wire::ZygoteState { version });
            let message = wire::Reply { id, reply: Some(body) }.encode_to_vec();
            packet::send(theirs.as_fd(), &message, &[], true).unwrap();
        }
        let hello = request::Request::Hello(wire::Hello { version: wire::VERSION });
        let (answer, _) = connection.call(hello, &[]).unwrap();
        assert!(matches!(answer, reply::Reply::Zygote(state) if state.version == 8), "{answer:?}");
    }
}
