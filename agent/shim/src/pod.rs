//! Process 1 of a pod: one poll loop over the agent's connection, the containers' output and their ends.

mod agent;
mod container;
mod exec;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::door::Door;
use crate::wire;
use container::Container;
use exec::Exec;

/// Containers of one pod, ended ones that no agent has acknowledged included; their pidfds fit one message.
const MAX_CONTAINERS: usize = 28;
/// Bytes of a container's name; the state of all of them fits one message.
const NAME_BYTES_MAX: usize = 253;
/// Execs that run at once.
const MAX_EXECS: usize = 128;

/// Everything the shim knows.
pub struct Pod {
    agent: Option<OwnedFd>,
    containers: Vec<Container>,
    execs: Vec<Exec>,
    /// Of starts and execs, from 1.
    next_number: u64,
    buffer: Vec<u8>,
}

/// What a poll entry is about.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Agent,
    Output(usize, usize),
    ContainerEnd(usize),
    ExecEnd(usize),
}

/// Serves until Shutdown.
pub fn run() -> io::Result<()> {
    let mut door = Door::new(strata_sys::process::inherited_fd(crate::sandbox::LISTENER)?);
    let mut pod = Pod { agent: None, containers: Vec::new(), execs: Vec::new(), next_number: 1, buffer: Vec::new() };
    loop {
        let ready = pod.wait(&door)?;
        door.reopen();
        for source in ready {
            match source {
                Source::Output(container, stream) => pod.containers[container].pump(stream),
                Source::ContainerEnd(container) => {
                    if let Some(exit) = pod.containers[container].pidfd().and_then(collect) {
                        pod.containers[container].end(exit);
                        pod.tell_container(container);
                    }
                }
                Source::ExecEnd(exec) => {
                    if let Some(exit) = collect(pod.execs[exec].pidfd()) {
                        pod.execs[exec].exit = Some(exit);
                        pod.tell_exec(exec);
                    }
                }
                Source::Agent => {
                    if pod.serve_agent() == agent::Next::Shutdown {
                        return Ok(());
                    }
                }
                Source::Listener => {
                    if let Some(connection) = door.accept() {
                        // The newest agent is the right one.
                        pod.agent = Some(connection);
                    }
                }
            }
        }
        // Told, or nobody left to tell.
        let connected = pod.agent.is_some();
        pod.execs.retain(|e| e.exit.is_none() || (connected && !e.told));
        pod.containers.iter_mut().for_each(Container::forget_ended_streams);
    }
}

impl Pod {
    /// Waits until something can be done. Ends come after outputs, so that a container's last words are read first.
    fn wait(&self, door: &Door) -> io::Result<Vec<Source>> {
        let mut entries: Vec<(Source, &OwnedFd)> = Vec::new();
        for (index, container) in self.containers.iter().enumerate() {
            entries.extend(container.streams().map(|(stream, fd)| (Source::Output(index, stream), fd)));
        }
        for (index, container) in self.containers.iter().enumerate() {
            entries.extend(container.pidfd().map(|fd| (Source::ContainerEnd(index), fd)));
        }
        entries.extend(
            self.execs
                .iter()
                .enumerate()
                .filter(|(_, e)| e.exit.is_none())
                .map(|(i, e)| (Source::ExecEnd(i), e.pidfd())),
        );
        // Requests last: they may remove what the indices above name.
        entries.extend(self.agent.iter().map(|fd| (Source::Agent, fd)));
        entries.extend(door.listener().map(|fd| (Source::Listener, fd)));
        let mut fds: Vec<PollFd<'_>> = entries.iter().map(|(_, fd)| PollFd::new(*fd, PollFlags::IN)).collect();
        rustix::io::retry_on_intr(|| poll(&mut fds, door.timeout().as_ref()))?;
        Ok(entries
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|((source, _), _)| *source)
            .collect())
    }
}

/// Reaps the process behind a pidfd, if it has ended.
fn collect(pidfd: &OwnedFd) -> Option<wire::Exit> {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
    let signal = status.terminating_signal().unwrap_or(0);
    let code = status.exit_status().unwrap_or(128 + signal);
    Some(wire::Exit { code, signal, finished_ns: crate::log::now_ns() })
}
