//! One container: start, output, end.

use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use strata_sys::packet;
use strata_sys::process::{Namespaces, Side, clone_process, pidfd_signal};

use crate::child::{self, Streams, Vectors};
use crate::launch::{Identity, Launch};
use crate::log::{LogFiles, Progress, Stream};
use crate::outcome::{self, At, Failed};
use crate::wire::{self, Step};

/// Reads of one stream before others get their turn.
const TURNS: usize = 8;
/// Join files of one container.
const MAX_CGROUPS: usize = 12;

/// A container that runs, or has ended and is not acknowledged.
pub struct Container {
    pub name: String,
    pub run: u64,
    /// Kept for execs.
    pub plan: wire::Plan,
    /// Kept for execs.
    pub cgroups: Vec<OwnedFd>,
    pub exit: Option<wire::Exit>,
    /// The writing end of its standard input, for whoever attaches.
    pub stdin: Option<OwnedFd>,
    pidfd: OwnedFd,
    log: LogFiles,
    streams: Vec<Option<Stream>>,
}

/// A start that failed: the step, and what it was about.
pub type Refusal = (Failed, String);

pub fn refuse(why: impl Into<String>) -> Refusal {
    (Failed { step: Step::Request, errno: 22, index: 0 }, why.into())
}

/// Starts a container.
pub fn start(wanted: wire::Start, fds: Vec<OwnedFd>, run: u64) -> Result<Container, Refusal> {
    let plan = wanted.plan.ok_or_else(|| refuse("no plan"))?;
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(|| refuse("too few descriptors"));
    let (root, log_a, log_b) = (next()?, next()?, next()?);
    let count = usize::try_from(wanted.cgroups).unwrap_or(usize::MAX);
    if count > MAX_CGROUPS {
        return Err(refuse("too many cgroups"));
    }
    let cgroups: Vec<OwnedFd> = fds.by_ref().take(count).collect();
    let mut binds: Vec<OwnedFd> = fds.collect();
    let (stdin, mut kept) = match (wanted.has_stdin, wanted.keeps_stdin && !plan.tty) {
        (true, _) => (binds.pop(), None),
        (false, true) => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).at(Step::Clone).map_err(|f| (f, String::new()))?;
            (Some(read), Some(write))
        }
        (false, false) => (None, None),
    };
    let launch = Launch::new(&plan, root, binds).map_err(refuse)?;
    let identity = Identity::new(&plan).map_err(refuse)?;
    let vectors = Vectors::new(&identity);
    let plainly = |f: Failed| (f, String::new());
    let log = LogFiles::new(log_a, log_b, wanted.log_limit_bytes).at(Step::Request).map_err(plainly)?;
    let (status, theirs) = packet::pair().at(Step::Clone).map_err(plainly)?;
    let mut outputs = Vec::new();
    let streams = if plan.tty {
        Streams::Terminal(0, 0)
    } else {
        let mut output = |stderr| {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).at(Step::Clone).map_err(plainly)?;
            rustix::io::ioctl_fionbio(&read, true).at(Step::Clone).map_err(plainly)?;
            outputs.push(Some(Stream::new(read, stderr, wanted.keeps_stdin)));
            Ok(write)
        };
        Streams::Files { stdin, stdout: output(false)?, stderr: output(true)? }
    };
    let pidfd = match clone_process(Namespaces::PID.with(Namespaces::MOUNT)).at(Step::Clone).map_err(plainly)? {
        Side::Child => {
            drop(status);
            child::run_first(&launch, &identity, &vectors, &streams, &cgroups, &theirs)
        }
        Side::Parent(_, pidfd) => pidfd,
    };
    drop((theirs, streams));
    match outcome::wait(&status) {
        Ok(terminal) => {
            if let Some(master) = terminal {
                rustix::io::ioctl_fionbio(&master, true).ok();
                if wanted.keeps_stdin {
                    kept = master.try_clone().ok();
                }
                outputs.push(Some(Stream::new(master, false, wanted.keeps_stdin)));
            }
        }
        Err(failed) => {
            pidfd_signal(pidfd.as_fd(), 9).ok();
            reap(&pidfd);
            return Err((failed, about(failed, &plan)));
        }
    }
    Ok(Container { name: wanted.name, run, plan, cgroups, exit: None, stdin: kept, pidfd, log, streams: outputs })
}

/// Waits for a child that was killed.
pub fn reap(pidfd: &OwnedFd) {
    let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
    rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).ok();
}

/// The item of the plan that a failed step was about.
pub fn about(failed: Failed, plan: &wire::Plan) -> String {
    let index = usize::from(failed.index);
    let found = match failed.step {
        Step::Mount => plan.mounts.get(index).map(|m| m.target.clone()),
        Step::Device => plan.devices.get(index).map(|d| d.path.clone()),
        Step::Mask => plan.read_only.iter().chain(&plan.masked).nth(index).cloned(),
        Step::WorkingDirectory => Some(plan.cwd.clone()),
        Step::Execute => plan.args.first().cloned(),
        _ => None,
    };
    found.unwrap_or_default()
}

impl Container {
    /// While it runs.
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        self.exit.is_none().then_some(&self.pidfd)
    }

    /// Its outputs that are still open.
    pub fn streams(&self) -> impl Iterator<Item = (usize, &OwnedFd)> {
        self.streams.iter().enumerate().filter_map(|(i, s)| Some((i, s.as_ref()?.source())))
    }

    /// Writes what one output has to say.
    pub fn pump(&mut self, stream: usize) {
        let Some(Some(open)) = self.streams.get_mut(stream) else { return };
        for _ in 0..TURNS {
            match open.pump(&mut self.log) {
                Progress::More => {}
                Progress::Idle => return,
                Progress::Ended => {
                    self.streams[stream] = None;
                    return;
                }
            }
        }
    }

    /// Its first process has been reaped, so all others are gone: reads what they left, bounded by what pipes hold.
    pub fn end(&mut self, exit: wire::Exit) {
        const MAX_PIPE_READS: usize = 1024;
        for stream in self.streams.iter_mut().filter_map(Option::take) {
            let mut stream = stream;
            let left = (0..MAX_PIPE_READS).any(|_| stream.pump(&mut self.log) != Progress::More);
            if left {
                stream.finish(&mut self.log);
            }
        }
        self.exit = Some(exit);
        self.stdin = None;
        self.cgroups.clear();
    }

    /// Drops the places of outputs that have ended, once there are no indices about.
    pub fn forget_ended_streams(&mut self) {
        self.streams.retain(Option::is_some);
    }

    /// As the protocol has it.
    pub fn state(&self) -> wire::ContainerState {
        wire::ContainerState {
            name: self.name.clone(),
            running: self.exit.is_none(),
            exit: self.exit,
            lost_log_bytes: self.log.lost(),
        }
    }
}
