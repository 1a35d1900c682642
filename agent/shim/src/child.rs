//! The child between clone and execve: a walk through what was made ready. No allocation, no lock, no decision.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, openat};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, chdir, set_dumpable_behavior, setsid, umask};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces, set_no_new_privs};
use strata_sys::process::{
    CStrArray, close_on_exec_from, execve, exit_now, place_fd, reset_signals, set_groups, set_ids, set_rlimit,
    set_terminal_size, take_terminal, unshare_cgroups,
};
use strata_sys::{caps, seccomp};

use crate::launch::{Identity, Launch};
use crate::outcome::{self, At, Failed, Outcome};
use crate::rootfs;
use crate::terminal;
use crate::wire::Step;

/// The standard streams.
pub enum Streams {
    /// A terminal of the container with its size (rows, columns; 0 = leave it).
    Terminal(u16, u16),
    /// These; stdin absent is /dev/null.
    Files { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
}

/// The arrays of execve, made before the clone.
pub struct Vectors<'a> {
    pub args: CStrArray<'a>,
    pub env: CStrArray<'a>,
}

impl<'a> Vectors<'a> {
    /// Of an identity.
    pub fn new(identity: &'a Identity) -> Self {
        Self { args: CStrArray::new(&identity.args), env: CStrArray::new(&identity.env) }
    }
}

/// What a container's first process does. Never returns.
pub fn run_first(
    launch: &Launch,
    identity: &Identity,
    vectors: &Vectors<'_>,
    streams: &Streams,
    cgroups: &[OwnedFd],
    status: &OwnedFd,
) -> ! {
    let Err(failed) = first(launch, identity, vectors, streams, cgroups, status);
    outcome::report(status.as_fd(), failed);
    exit_now(1)
}

fn first(
    launch: &Launch,
    identity: &Identity,
    vectors: &Vectors<'_>,
    streams: &Streams,
    cgroups: &[OwnedFd],
    status: &OwnedFd,
) -> Outcome<std::convert::Infallible> {
    join(cgroups)?;
    unshare_cgroups().at(Step::Namespace)?;
    if let Some(adjustment) = &identity.oom_score_adj {
        let file = openat(CWD, c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .at(Step::Limits)?;
        rustix::io::write(&file, adjustment).at(Step::Limits)?;
    }
    let null = openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Device)?;
    setsid().at(Step::Terminal)?;
    rootfs::enter(launch, |root| place_streams(streams, Some(null.as_fd()), root, identity, status))?;
    become_and_execute(identity, vectors)
}

/// What an exec does, in the pid namespace of its container already. Never returns.
pub fn run_exec(
    container: BorrowedFd<'_>,
    identity: &Identity,
    vectors: &Vectors<'_>,
    streams: &Streams,
    cgroups: &[OwnedFd],
    status: &OwnedFd,
) -> ! {
    let Err(failed) = exec(container, identity, vectors, streams, cgroups, status);
    outcome::report(status.as_fd(), failed);
    exit_now(1)
}

fn exec(
    container: BorrowedFd<'_>,
    identity: &Identity,
    vectors: &Vectors<'_>,
    streams: &Streams,
    cgroups: &[OwnedFd],
    status: &OwnedFd,
) -> Outcome<std::convert::Infallible> {
    // CVE class (CVE-2019-5736): until execve the container must not reach the shim's program through /proc/PID/exe.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Namespace)?;
    join(cgroups)?;
    move_into_thread_name_spaces(container, ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::CONTROL_GROUP)
        .at(Step::Namespace)?;
    setsid().at(Step::Terminal)?;
    let root =
        openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(Step::Namespace)?;
    place_streams(streams, None, root.as_fd(), identity, status)?;
    become_and_execute(identity, vectors)
}

/// v1 `tasks` and v2 `cgroup.procs` take "0" for the writer; the credentials of the agent's open(2) count.
fn join(cgroups: &[OwnedFd]) -> Outcome {
    for (index, file) in cgroups.iter().enumerate() {
        rustix::io::write(file, b"0").at_index(Step::JoinCgroup, index)?;
    }
    Ok(())
}

fn place_streams(
    streams: &Streams,
    null: Option<BorrowedFd<'_>>,
    root: BorrowedFd<'_>,
    identity: &Identity,
    status: &OwnedFd,
) -> Outcome {
    match streams {
        Streams::Terminal(rows, columns) => {
            let (master, slave) = terminal::open(root, identity.uid).at(Step::Terminal)?;
            if *rows != 0 && *columns != 0 {
                set_terminal_size(master.as_fd(), *rows, *columns).at(Step::Terminal)?;
            }
            take_terminal(slave.as_fd()).at(Step::Terminal)?;
            outcome::report_terminal(status.as_fd(), master.as_fd()).at(Step::Terminal)?;
            for number in 0..3 {
                place_fd(slave.as_fd(), number).at(Step::Terminal)?;
            }
        }
        Streams::Files { stdin, stdout, stderr } => {
            if null.is_some() {
                // The log pipes are the container's: its user may open /dev/stdout.
                for pipe in [stdout, stderr] {
                    fchown(pipe, Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid))).ok();
                }
            }
            let stdin = stdin.as_ref().map(AsFd::as_fd).or(null).ok_or(Errno::BADF).at(Step::Terminal)?;
            for (number, fd) in [(0, stdin), (1, stdout.as_fd()), (2, stderr.as_fd())] {
                place_fd(fd, number).at(Step::Terminal)?;
            }
        }
    }
    Ok(())
}

fn become_and_execute(identity: &Identity, vectors: &Vectors<'_>) -> Outcome<std::convert::Infallible> {
    for (index, (resource, soft, hard)) in identity.rlimits.iter().enumerate() {
        set_rlimit(*resource, *soft, *hard).at_index(Step::Limits, index)?;
    }
    umask(Mode::from_raw_mode(identity.umask));
    chdir(identity.cwd.as_c_str()).at(Step::WorkingDirectory)?;
    let c = &identity.capabilities;
    caps::limit_bounding(c.bounding).at(Step::Capabilities)?;
    // Without no_new_privs the filter needs CAP_SYS_ADMIN, which goes below.
    if !identity.no_new_privileges && !identity.seccomp.is_empty() {
        seccomp::install(&identity.seccomp).at(Step::Seccomp)?;
    }
    caps::keep_across_setuid().at(Step::Capabilities)?;
    set_groups(&identity.groups).at(Step::Identity)?;
    set_ids(identity.uid, identity.gid).at(Step::Identity)?;
    caps::set(c.effective, c.permitted, c.inheritable).at(Step::Capabilities)?;
    caps::set_ambient(c.ambient).at(Step::Capabilities)?;
    reset_signals().at(Step::Execute)?;
    close_on_exec_from(3).at(Step::Execute)?;
    if identity.no_new_privileges {
        set_no_new_privs(true).at(Step::Seccomp)?;
        if !identity.seccomp.is_empty() {
            seccomp::install(&identity.seccomp).at(Step::Seccomp)?;
        }
    }
    let mut worst = Errno::NOENT;
    for program in &identity.programs {
        let error = execve(program, &vectors.args, &vectors.env);
        match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => worst = Errno::ACCESS,
            other => return Err(other).at(Step::Execute),
        }
    }
    Err(Failed { step: Step::Execute, errno: worst.raw_os_error(), index: 0 })
}
