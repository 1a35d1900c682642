//! How a child tells its parent, over one socket, that it failed, at which step and why; the socket closes at execve.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use strata_sys::packet;

use crate::wire::Step;

/// How long a child may take until its program executes.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// First byte of a message that carries a terminal's master.
const TERMINAL: u8 = 0xff;

/// A step that failed.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    pub step: Step,
    pub errno: i32,
    /// Which mount, device or path of the plan.
    pub index: u16,
}

/// What a step returns.
pub type Outcome<T = ()> = Result<T, Failed>;

/// Names the step of an error.
pub trait At<T> {
    /// As the given step.
    fn at(self, step: Step) -> Outcome<T>;
    /// As the given step on the given item of the plan.
    fn at_index(self, step: Step, index: usize) -> Outcome<T>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Outcome<T> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Outcome<T> {
        self.map_err(|e| Failed {
            step,
            errno: e.into().raw_os_error().unwrap_or(0),
            index: u16::try_from(index).unwrap_or(u16::MAX),
        })
    }
}

/// The child's last word.
pub fn report(socket: BorrowedFd<'_>, failed: Failed) {
    let ([e0, e1, e2, e3], [i0, i1]) = (failed.errno.to_le_bytes(), failed.index.to_le_bytes());
    packet::send(socket, &[failed.step as u8, e0, e1, e2, e3, i0, i1], &[], true).ok();
}

/// Sends a terminal's master to the parent.
pub fn report_terminal(socket: BorrowedFd<'_>, master: BorrowedFd<'_>) -> io::Result<()> {
    packet::send(socket, &[TERMINAL], &[master], true)
}

/// Waits until the child executes its program (then the socket closes) or says what failed. Gives the terminal, if any.
pub fn wait(socket: &OwnedFd) -> Outcome<Option<OwnedFd>> {
    let mut terminal = None;
    let timeout = Timespec { tv_sec: START_TIMEOUT.as_secs() as i64, tv_nsec: 0 };
    loop {
        let mut ready = [PollFd::new(socket, PollFlags::IN)];
        let events = rustix::io::retry_on_intr(|| poll(&mut ready, Some(&timeout))).at(Step::Clone)?;
        if events == 0 {
            return Err(Failed { step: Step::Clone, errno: rustix::io::Errno::TIMEDOUT.raw_os_error(), index: 0 });
        }
        let (mut message, mut fds) = ([0; 16], Vec::new());
        match packet::receive(socket.as_fd(), &mut message, &mut fds, true).at(Step::Clone)? {
            None => return Ok(terminal),
            Some(1) if message[0] == TERMINAL => terminal = fds.pop(),
            Some(_) => {
                let [step, e0, e1, e2, e3, i0, i1, ..] = message;
                return Err(Failed {
                    step: Step::try_from(i32::from(step)).unwrap_or(Step::Unspecified),
                    errno: i32::from_le_bytes([e0, e1, e2, e3]),
                    index: u16::from_le_bytes([i0, i1]),
                });
            }
        }
    }
}
