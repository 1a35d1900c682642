//! Another process in a running container.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};
use strata_sys::packet;
use strata_sys::process::{Namespaces, Side, clone_process, pidfd_signal};

use super::container::{Container, Refusal, about, reap, refuse};
use crate::child::{self, Streams, Vectors};
use crate::launch::Identity;
use crate::outcome::{self, At, Failed};
use crate::wire::{self, Step};

/// An exec that runs, or has ended and is not told.
pub struct Exec {
    pub number: u64,
    pub container: String,
    pub exit: Option<wire::Exit>,
    pub told: bool,
    pidfd: OwnedFd,
}

impl Exec {
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }
}

/// Starts a process in `container`, with its limits, capabilities and filter; gives the terminal's master, if any.
pub fn start(
    container: &Container,
    wanted: wire::Exec,
    fds: Vec<OwnedFd>,
    number: u64,
) -> Result<(Exec, Option<OwnedFd>), Refusal> {
    let target = container.pidfd().ok_or_else(|| refuse("the container has ended"))?;
    let plainly = |f: Failed| (f, String::new());
    let streams = match (wanted.tty, <[OwnedFd; 3]>::try_from(fds)) {
        (true, _) => {
            let side = |n: u32| u16::try_from(n).unwrap_or(0);
            Streams::Terminal(side(wanted.rows), side(wanted.columns))
        }
        (false, Ok([stdin, stdout, stderr])) => Streams::Files { stdin: Some(stdin), stdout, stderr },
        (false, Err(_)) => return Err(refuse("three descriptors are needed")),
    };
    let plan = plan_of(container, wanted);
    let identity = Identity::new(&plan).map_err(refuse)?;
    let vectors = Vectors::new(&identity);
    let (status, theirs) = packet::pair().at(Step::Clone).map_err(plainly)?;
    let own = File::open("/proc/self/ns/pid").at(Step::Namespace).map_err(plainly)?;
    move_into_thread_name_spaces(target.as_fd(), ThreadNameSpaceType::PROCESS_ID)
        .at(Step::Namespace)
        .map_err(plainly)?;
    let side = clone_process(Namespaces::NONE);
    if let Ok(Side::Child) = side {
        drop(status);
        child::run_exec(target.as_fd(), &identity, &vectors, &streams, &container.cgroups, &theirs);
    }
    // Only children are made in the other namespace; the next container must not be one of them.
    let back = move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID));
    let pidfd = match side.at(Step::Clone).map_err(plainly)? {
        Side::Parent(_, pidfd) => pidfd,
        Side::Child => return Err(refuse("unreachable")),
    };
    drop((theirs, streams));
    match back.at(Step::Namespace).and_then(|()| outcome::wait(&status)) {
        Ok(terminal) => {
            Ok((Exec { number, container: container.name.clone(), exit: None, told: false, pidfd }, terminal))
        }
        Err(failed) => {
            pidfd_signal(pidfd.as_fd(), 9).ok();
            reap(&pidfd);
            Err((failed, about(failed, &plan)))
        }
    }
}

/// The container's plan with what the exec wants otherwise. A user other than root holds no capabilities, as execve has it.
fn plan_of(container: &Container, wanted: wire::Exec) -> wire::Plan {
    let mut plan = container.plan.clone();
    for entry in wanted.env {
        let name = entry.split('=').next().unwrap_or_default().len() + 1;
        plan.env.retain(|old| old.get(..name) != entry.get(..name));
        plan.env.push(entry);
    }
    plan.args = wanted.args;
    if !wanted.cwd.is_empty() {
        plan.cwd = wanted.cwd;
    }
    if let Some(uid) = wanted.uid {
        plan.uid = uid;
        plan.gid = wanted.gid.unwrap_or(0);
        plan.groups = wanted.groups;
        if let Some(capabilities) = &mut plan.capabilities {
            let held = if uid == 0 { capabilities.bounding } else { 0 };
            (capabilities.effective, capabilities.permitted) = (held, held);
        }
    }
    plan.oom_score_adj = None;
    plan
}
