//! The agent's requests, and what is told without being asked.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use prost::Message;
use strata_sys::packet;
use strata_sys::process::pidfd_signal;

use super::{MAX_CONTAINERS, MAX_EXECS, NAME_BYTES_MAX, Pod, container, exec};
use crate::wire::{self, Step, reply, request};
use crate::zygote::failure;

/// What the loop does after a request.
#[derive(PartialEq, Eq)]
pub enum Next {
    Continue,
    Shutdown,
}

type Answer = (reply::Reply, Vec<OwnedFd>);

impl Pod {
    /// Serves one request. A connection that breaks or is not read is dropped: exits are told to the next one.
    pub(super) fn serve_agent(&mut self) -> Next {
        let Some(connection) = self.agent.take() else { return Next::Continue };
        match self.serve(&connection) {
            Ok(Some(next)) => {
                self.agent = Some(connection);
                next
            }
            Ok(None) | Err(_) => Next::Continue,
        }
    }

    fn serve(&mut self, connection: &OwnedFd) -> io::Result<Option<Next>> {
        let mut fds = Vec::new();
        self.buffer.resize(packet::MAX_MESSAGE_BYTES, 0);
        let received = packet::receive(connection.as_fd(), &mut self.buffer, &mut fds, false)?;
        let Some(size) = received else { return Ok(None) };
        let decoded = wire::Request::decode(&self.buffer[..size]);
        // An idle shim holds no buffer.
        self.buffer = Vec::new();
        let Ok(request) = decoded else { return Ok(None) };
        let is_hello = matches!(request.request, Some(request::Request::Hello(_)));
        let mut next = Next::Continue;
        let (body, fds) = match request.request {
            Some(request::Request::Hello(_)) => self.state().unwrap_or_else(|e| {
                refused(e.raw_os_error().unwrap_or(0), "the shim lives but cannot show its namespaces")
            }),
            Some(request::Request::Start(wanted)) => self.start(wanted, fds),
            Some(request::Request::Exec(wanted)) => self.exec(wanted, fds),
            Some(request::Request::Signal(wanted)) => self.signal(&wanted),
            Some(request::Request::Attach(wanted)) => self.attach(&wanted),
            Some(request::Request::Acknowledge(wanted)) => {
                self.containers.retain(|c| c.name != wanted.container || c.exit.is_none());
                done()
            }
            Some(request::Request::Shutdown(_)) => {
                next = Next::Shutdown;
                done()
            }
            _ => refused(0, "this shim does not know the request; the agent is of a later release"),
        };
        send(connection, request.id, body, &fds)?;
        if is_hello {
            for index in 0..self.containers.len() {
                if let Some(body) = self.exit_of(index) {
                    send(connection, 0, body, &[])?;
                }
            }
        }
        Ok(Some(next))
    }

    fn state(&self) -> io::Result<Answer> {
        let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
        let mut fds = vec![own, File::open("/proc/self/ns/user")?.into(), File::open("/proc/self/ns/net")?.into()];
        for pidfd in self.containers.iter().filter_map(|c| c.pidfd()).take(packet::MAX_FDS - 3) {
            fds.push(pidfd.try_clone()?);
        }
        let containers = self.containers.iter().map(container::Container::state).collect();
        Ok((reply::Reply::Shim(wire::ShimState { version: wire::VERSION, containers }), fds))
    }

    fn start(&mut self, wanted: wire::Start, fds: Vec<OwnedFd>) -> Answer {
        if wanted.name.len() > NAME_BYTES_MAX {
            return refused(22, format!("a container's name has at most {NAME_BYTES_MAX} bytes"));
        }
        if self.containers.iter().any(|c| c.name == wanted.name && c.exit.is_none()) {
            return refused(17, format!("a container {:?} runs already", wanted.name));
        }
        self.containers.retain(|c| c.name != wanted.name);
        if self.containers.len() >= MAX_CONTAINERS {
            return refused(7, format!("a pod has at most {MAX_CONTAINERS} containers"));
        }
        let run = self.take_number();
        let started = container::start(wanted, fds, run).and_then(|c| {
            Ok((
                c.pidfd().and_then(|fd| fd.try_clone().ok()).ok_or_else(|| container::refuse("no descriptor left"))?,
                c,
            ))
        });
        match started {
            Ok((pidfd, container)) => {
                self.containers.push(container);
                (reply::Reply::Started(wire::Started { exec: 0 }), vec![pidfd])
            }
            Err((failed, message)) => (failure(failed.step, failed.errno, message), Vec::new()),
        }
    }

    fn exec(&mut self, wanted: wire::Exec, fds: Vec<OwnedFd>) -> Answer {
        if self.execs.len() >= MAX_EXECS {
            return refused(7, format!("a pod runs at most {MAX_EXECS} execs at once"));
        }
        let number = self.take_number();
        let Some(container) = self.containers.iter().find(|c| c.name == wanted.container && c.exit.is_none()) else {
            return refused(3, format!("no container {:?} runs", wanted.container));
        };
        match exec::start(container, wanted, fds, number) {
            Ok((exec, terminal)) => {
                let Ok(pidfd) = exec.pidfd().try_clone() else { return refused(24, "no descriptor left") };
                self.execs.push(exec);
                (
                    reply::Reply::Started(wire::Started { exec: number }),
                    std::iter::once(pidfd).chain(terminal).collect(),
                )
            }
            Err((failed, message)) => (failure(failed.step, failed.errno, message), Vec::new()),
        }
    }

    /// Hands out the writing end of a container's standard input, or lets go of it.
    fn attach(&mut self, wanted: &wire::Attach) -> Answer {
        let running = self.containers.iter_mut().find(|c| c.name == wanted.container && c.exit.is_none());
        let Some(container) = running else {
            return refused(3, format!("no container {:?} runs", wanted.container));
        };
        if wanted.close {
            container.stdin = None;
            return done();
        }
        match container.stdin.as_ref().map(OwnedFd::try_clone) {
            Some(Ok(end)) => (reply::Reply::Done(wire::Done {}), vec![end]),
            Some(Err(e)) => refused(e.raw_os_error().unwrap_or(0), "no descriptor left"),
            None => refused(
                9,
                format!("container {:?} has no open standard input (`stdin: true`, not closed yet)", wanted.container),
            ),
        }
    }

    fn signal(&self, wanted: &wire::Signal) -> Answer {
        let mut found = false;
        for container in self.containers.iter().filter(|c| wanted.container.is_empty() || c.name == wanted.container) {
            let Some(pidfd) = container.pidfd() else { continue };
            match pidfd_signal(pidfd.as_fd(), wanted.signal) {
                Ok(()) => found = true,
                Err(e) => return refused(e.raw_os_error().unwrap_or(0), "sending the signal"),
            }
        }
        if found || wanted.container.is_empty() {
            done()
        } else {
            refused(3, format!("no container {:?} runs", wanted.container))
        }
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    fn exit_of(&self, index: usize) -> Option<reply::Reply> {
        let container = self.containers.get(index)?;
        let exit = container.exit?;
        Some(reply::Reply::Exited(wire::Exited {
            container: container.name.clone(),
            exec: 0,
            exit: Some(exit),
            run: container.run,
        }))
    }

    /// Tells the agent, if there is one, that a container has ended.
    pub(super) fn tell_container(&mut self, index: usize) {
        if let Some(body) = self.exit_of(index) {
            self.tell(body);
        }
    }

    /// The same for an exec, which is told once.
    pub(super) fn tell_exec(&mut self, index: usize) {
        let exec = &mut self.execs[index];
        exec.told = true;
        let body = wire::Exited { container: exec.container.clone(), exec: exec.number, exit: exec.exit, run: 0 };
        self.tell(reply::Reply::Exited(body));
    }

    fn tell(&mut self, body: reply::Reply) {
        if let Some(connection) = &self.agent
            && send(connection, 0, body, &[]).is_err()
        {
            self.agent = None;
        }
    }
}

fn done() -> Answer {
    (reply::Reply::Done(wire::Done {}), Vec::new())
}

fn refused(errno: i32, why: impl Into<String>) -> Answer {
    (failure(Step::Request, errno, why.into()), Vec::new())
}

fn send(connection: &OwnedFd, id: u64, body: reply::Reply, fds: &[OwnedFd]) -> io::Result<()> {
    let message = wire::Reply { id, reply: Some(body) }.encode_to_vec();
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    packet::send(connection.as_fd(), &message, &fds, false)
}
