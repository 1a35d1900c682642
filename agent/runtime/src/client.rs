//! The agent's side of a shim: one connection, requests and their answers, events.

mod connection;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result, StartError};
use crate::wire::{self, reply, request};
use connection::Connection;

/// Name of a shim's socket in its pod's directory.
pub const SHIM_SOCKET: &str = "shim.sock";

/// A connection to the shim of one pod. Cheap to clone; the newest connection to a shim ends older ones.
#[derive(Clone, Debug)]
pub struct ShimClient {
    connection: Arc<Connection>,
    events: Arc<Mutex<Option<mpsc::Receiver<ShimEvent>>>>,
}

/// What a shim said of itself when the connection was made.
#[derive(Debug)]
pub struct ShimState {
    /// The shim's pid in this process's pid namespace.
    pub pid: u32,
    /// The shim; killing it kills the pod.
    pub pidfd: OwnedFd,
    /// The pod's user namespace.
    pub userns: OwnedFd,
    /// The pod's network namespace.
    pub netns: OwnedFd,
    /// Its containers: running, or ended and not yet acknowledged.
    pub containers: Vec<ContainerState>,
}

/// One container as its shim knows it.
#[derive(Debug)]
pub struct ContainerState {
    /// Its name.
    pub name: String,
    /// While it runs.
    pub process: Option<Process>,
    /// Once it has ended.
    pub exit: Option<Exit>,
    /// Log bytes that were dropped because the disk was full.
    pub lost_log_bytes: u64,
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    /// Its pid in this process's pid namespace.
    pub pid: u32,
    /// Stays valid when the pid is used again.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; 128+N if a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Nanoseconds since the epoch.
    pub finished_ns: i64,
}

/// Something that happened in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShimEvent {
    /// A container ended. Told again on each new connection until [`ShimClient::acknowledge`].
    Exited {
        /// Its name.
        container: String,
        /// How.
        exit: Exit,
    },
    /// The connection ended: the shim died, or another agent took over. Always the last event.
    Gone,
}

/// What [`ShimClient::start`] needs.
#[derive(Debug)]
pub struct StartRequest {
    /// The container's name, unique in its pod.
    pub name: String,
    /// From [`crate::plan::plan_init`].
    pub plan: wire::Plan,
    /// Its root: a detached mount.
    pub overlay: OwnedFd,
    /// Join files of its cgroups.
    pub cgroups: Vec<OwnedFd>,
    /// Detached mounts for the plan's bind mounts, in their order.
    pub binds: Vec<OwnedFd>,
    /// Log files, opened for writing and appending ([`crate::logs::open`]).
    pub log_a: OwnedFd,
    /// The second one.
    pub log_b: OwnedFd,
    /// Bound of each of the two.
    pub log_limit_bytes: u64,
    /// Standard input; /dev/null if absent.
    pub stdin: Option<OwnedFd>,
    /// The shim keeps the writing end of the container's standard input (with a terminal: its master) for [`ShimClient::attach`].
    pub keeps_stdin: bool,
}

/// What [`ShimClient::exec`] needs.
#[derive(Debug)]
pub struct ExecRequest {
    /// In which container.
    pub container: String,
    /// Command and arguments; searched in the container's PATH.
    pub args: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// The container's if absent.
    pub cwd: Option<String>,
    /// The container's if absent.
    pub user: Option<ExecUser>,
    /// Terminal or descriptors.
    pub stdio: ExecStdio,
}

/// Who an exec runs as, inside the pod's user namespace.
#[derive(Debug, Clone)]
pub struct ExecUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Where an exec's data goes: never through the shim.
#[derive(Debug)]
pub enum ExecStdio {
    /// A terminal of the container; its master comes back in [`Exec::terminal`].
    Terminal {
        /// Its height.
        rows: u16,
        /// Its width.
        columns: u16,
    },
    /// These descriptors.
    Pipes {
        /// Read by the process.
        stdin: OwnedFd,
        /// Written by it.
        stdout: OwnedFd,
        /// Written by it.
        stderr: OwnedFd,
    },
}

/// A process started by [`ShimClient::exec`].
#[derive(Debug)]
pub struct Exec {
    /// It; signals go through its pidfd.
    pub process: Process,
    /// The terminal's master ([`resize`](crate::Exec::resize)).
    pub terminal: Option<OwnedFd>,
    /// Resolves when it ends; an error if the connection ends first.
    pub exit: oneshot::Receiver<Exit>,
}

impl Exec {
    /// Tells the terminal its new size; nothing without a terminal.
    ///
    /// # Errors
    /// The kernel's.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.terminal.as_ref().map_or(Ok(()), |master| {
            strata_sys::process::set_terminal_size(master.as_fd(), rows, columns)
                .map_err(Error::io("resizing a terminal"))
        })
    }
}

impl Process {
    /// Sends a signal; ESRCH once it has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn signal(&self, signal: i32) -> Result<()> {
        strata_sys::process::pidfd_signal(self.pidfd.as_fd(), signal)
            .map_err(Error::io(format!("signalling pid {}", self.pid)))
    }

    /// Kills it and what else is in its process group: an exec's process leads one of its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill_group(&self) -> Result<()> {
        strata_sys::process::pidfd_signal_group(self.pidfd.as_fd(), 9)
            .map_err(Error::io(format!("killing the process group of pid {}", self.pid)))
    }

    fn from_pidfd(pidfd: OwnedFd) -> Result<Self> {
        Ok(Self { pid: pid_of(pidfd.as_fd())?, pidfd })
    }
}

/// The pid behind a pidfd in the pid namespace of this process's /proc (proc_pid_fdinfo(5)).
pub(crate) fn pid_of(pidfd: BorrowedFd<'_>) -> Result<u32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = std::fs::read_to_string(&path).map_err(Error::io(format!("reading {path}")))?;
    info.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<u32>().ok())
        .filter(|pid| *pid > 0)
        .ok_or_else(|| Error::io("looking up a process that has ended")(io::Error::from_raw_os_error(libc::ESRCH)))
}

impl From<wire::Exit> for Exit {
    fn from(exit: wire::Exit) -> Self {
        Self { code: exit.code, signal: (exit.signal != 0).then_some(exit.signal), finished_ns: exit.finished_ns }
    }
}

impl ShimClient {
    /// Connects to the shim of the pod in `pod_dir` and learns its state.
    ///
    /// # Errors
    /// `Error::Io` with ENOENT (no shim was ever made) or ECONNREFUSED (it has died); `Error::Protocol`.
    pub async fn connect(pod_dir: &Path) -> Result<(Self, ShimState)> {
        let (connection, events) = Connection::open(pod_dir)?;
        let hello = request::Request::Hello(wire::Hello { version: wire::VERSION });
        let answer = connection.call(hello, Vec::new()).await?;
        let state = match answer.body {
            reply::Reply::Shim(state) => state,
            other => return Err(connection.protocol(format!("{other:?}"))),
        };
        let mut fds = answer.fds.into_iter();
        let mut next = || fds.next().ok_or_else(|| connection.protocol("too few descriptors".into()));
        let (pidfd, userns, netns) = (next()?, next()?, next()?);
        let mut containers = Vec::with_capacity(state.containers.len());
        for c in state.containers {
            // A container that ended since is told by an event.
            let process = if c.running { Process::from_pidfd(next()?).ok() } else { None };
            containers.push(ContainerState {
                name: c.name,
                process,
                exit: c.exit.map(Exit::from),
                lost_log_bytes: c.lost_log_bytes,
            });
        }
        let pid = pid_of(pidfd.as_fd())?;
        let client = Self { connection: Arc::new(connection), events: Arc::new(Mutex::new(Some(events))) };
        Ok((client, ShimState { pid, pidfd, userns, netns, containers }))
    }

    /// The pod's events: a bounded stream, to be taken once per connection (None afterwards).
    #[must_use]
    pub fn events(&self) -> Option<mpsc::Receiver<ShimEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Starts a container and returns once its program executes.
    ///
    /// # Errors
    /// `Error::Start` with the step and errno.
    pub async fn start(&self, request: StartRequest) -> Result<Process> {
        let mut fds = vec![request.overlay, request.log_a, request.log_b];
        let cgroups = u32::try_from(request.cgroups.len()).unwrap_or(u32::MAX);
        fds.extend(request.cgroups);
        fds.extend(request.binds);
        let has_stdin = request.stdin.is_some();
        fds.extend(request.stdin);
        let body = request::Request::Start(wire::Start {
            name: request.name,
            plan: Some(request.plan),
            log_limit_bytes: request.log_limit_bytes,
            cgroups,
            has_stdin,
            keeps_stdin: request.keeps_stdin,
        });
        let answer = self.connection.call(body, fds).await?;
        match answer.body {
            reply::Reply::Started(_) => {
                let pidfd = answer.fds.into_iter().next().ok_or_else(|| self.connection.protocol("no pidfd".into()))?;
                // A program that has already ended has no pid any more; its exit comes as an event.
                let pid = pid_of(pidfd.as_fd()).unwrap_or(0);
                Ok(Process { pid, pidfd })
            }
            other => Err(self.unexpected(other)),
        }
    }

    /// Runs another process in a container, with the container's limits, capabilities and filter.
    ///
    /// # Errors
    /// As [`ShimClient::start`].
    pub async fn exec(&self, request: ExecRequest) -> Result<Exec> {
        let (tty, rows, columns, fds) = match request.stdio {
            ExecStdio::Terminal { rows, columns } => (true, rows, columns, Vec::new()),
            ExecStdio::Pipes { stdin, stdout, stderr } => (false, 0, 0, vec![stdin, stdout, stderr]),
        };
        let (uid, gid, groups) =
            request.user.map_or((None, None, Vec::new()), |u| (Some(u.uid), Some(u.gid), u.groups));
        let body = request::Request::Exec(wire::Exec {
            container: request.container,
            args: request.args,
            env: request.env,
            cwd: request.cwd.unwrap_or_default(),
            tty,
            rows: rows.into(),
            columns: columns.into(),
            uid,
            gid,
            groups,
        });
        let answer = self.connection.call(body, fds).await?;
        match (answer.body, answer.exit) {
            (reply::Reply::Started(_), Some(exit)) => {
                let mut fds = answer.fds.into_iter();
                let pidfd = fds.next().ok_or_else(|| self.connection.protocol("no pidfd".into()))?;
                let pid = pid_of(pidfd.as_fd()).unwrap_or(0);
                Ok(Exec { process: Process { pid, pidfd }, terminal: fds.next(), exit })
            }
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// The writing end of a container's standard input, or its terminal's master. It may be had any number of times, by later
    /// agents too.
    ///
    /// # Errors
    /// `Error::Start` if no such container runs, it was started without one, or it was closed.
    pub async fn attach(&self, container: &str) -> Result<OwnedFd> {
        let request = request::Request::Attach(wire::Attach { container: container.to_owned(), close: false });
        let answer = self.connection.call(request, Vec::new()).await?;
        match answer.body {
            reply::Reply::Done(_) => {
                answer.fds.into_iter().next().ok_or_else(|| self.connection.protocol("no descriptor".into()))
            }
            other => Err(self.unexpected(other)),
        }
    }

    /// Makes the shim let go of the writing end: the container reads its end once those of [`ShimClient::attach`] are closed.
    ///
    /// # Errors
    /// `Error::Start` if no such container runs.
    pub async fn close_stdin(&self, container: &str) -> Result<()> {
        self.done(request::Request::Attach(wire::Attach { container: container.to_owned(), close: true })).await
    }

    /// Sends a signal to the first process of a container. SIGKILL ends all of it.
    ///
    /// # Errors
    /// `Error::Start` with ESRCH if no such container runs.
    pub async fn signal(&self, container: &str, signal: i32) -> Result<()> {
        self.done(request::Request::Signal(wire::Signal { container: container.to_owned(), signal })).await
    }

    /// Says that a container's exit is recorded: the shim forgets it.
    ///
    /// # Errors
    /// Only those of the connection.
    pub async fn acknowledge(&self, container: &str) -> Result<()> {
        self.done(request::Request::Acknowledge(wire::Acknowledge { container: container.to_owned(), exec: 0 })).await
    }

    /// Ends the shim and with it every process of the pod. The answer may be lost with the shim: that is success.
    ///
    /// # Errors
    /// Only a timeout; wait on [`ShimState::pidfd`] to know that all is gone.
    pub async fn shutdown(&self) -> Result<()> {
        match self.done(request::Request::Shutdown(wire::Shutdown {})).await {
            Err(Error::Gone { .. }) => Ok(()),
            other => other,
        }
    }

    async fn done(&self, request: request::Request) -> Result<()> {
        match self.connection.call(request, Vec::new()).await?.body {
            reply::Reply::Done(_) => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    fn unexpected(&self, body: reply::Reply) -> Error {
        match body {
            reply::Reply::Failure(failure) => StartError::from(failure).into(),
            other => self.connection.protocol(format!("{other:?}")),
        }
    }
}
