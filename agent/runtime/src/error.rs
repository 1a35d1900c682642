//! What can go wrong between an agent and its zygote, shims, cgroups and logs.

use std::io;
use std::path::PathBuf;

use crate::wire::{self, Step};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: what was being done, to what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shim program could not be started as zygote.
    #[error("starting the zygote {program}: {message}; is it the static strata-shim built by deploy/build?")]
    ZygoteStart {
        /// Path of the program.
        program: PathBuf,
        /// What it said.
        message: String,
    },
    /// The other side of a socket has gone.
    #[error("{peer} has gone: the connection ended")]
    Gone {
        /// "shim" or "zygote", with the directory of its socket.
        peer: String,
    },
    /// The other side did not answer in time.
    #[error("{peer} did not answer within {seconds} s")]
    Timeout {
        /// As in `Gone`.
        peer: String,
        /// The bound.
        seconds: u64,
    },
    /// The other side speaks something else.
    #[error("{peer} answered what was not asked: {message}; agent and shim are of incompatible releases")]
    Protocol {
        /// As in `Gone`.
        peer: String,
        /// What was wrong.
        message: String,
    },
    /// A sandbox, container or exec did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A system call failed.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, to what.
        action: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// A specification that cannot be run.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// The exit code people see for a container that did not start: 127, 126 or 128, as docker.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Start(e) => e.exit_code,
            _ => 128,
        }
    }
}

/// A process that could not be made, by the step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    /// The step.
    pub step: Step,
    /// The kernel's error number.
    pub errno: i32,
    /// What a shell or docker would exit with: 127 command not found, 126 not executable, 128 anything else.
    pub exit_code: i32,
    /// The thing it was about: a path, a command.
    pub message: String,
}

impl std::error::Error for StartError {}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.step {
            Step::Unspecified | Step::Request => "checking the request",
            Step::Clone => "making the process",
            Step::JoinCgroup => "joining the cgroup",
            Step::AttachRoot => "attaching the root file system",
            Step::Mount => "mounting",
            Step::Device => "making the device",
            Step::Mask => "masking",
            Step::Pivot => "changing the root",
            Step::Terminal => "opening the terminal",
            Step::WorkingDirectory => "changing to the working directory",
            Step::Limits => "setting resource limits",
            Step::Identity => "changing user and groups",
            Step::Capabilities => "setting capabilities",
            Step::Seccomp => "installing the seccomp filter",
            Step::Execute => "executing",
            Step::Namespace => "making or entering namespaces",
            Step::Idmap => "mapping ids",
            Step::Sysctl => "setting the sysctl",
        };
        let reason = match (self.step, self.errno) {
            (Step::Execute, libc::ENOENT) => "command not found".to_owned(),
            (Step::Execute, libc::EACCES) => "permission denied: not an executable file".to_owned(),
            (Step::Execute, libc::ENOEXEC) => "exec format error: no program of this machine's architecture".to_owned(),
            (_, 0) => String::new(),
            (_, errno) => io::Error::from_raw_os_error(errno).to_string(),
        };
        match (self.message.is_empty(), reason.is_empty()) {
            (true, _) => write!(f, "{what}: {reason}"),
            (false, true) => write!(f, "{what}: {}", self.message),
            (false, false) => write!(f, "{what} {}: {reason}", self.message),
        }
    }
}

impl From<wire::Failure> for StartError {
    fn from(failure: wire::Failure) -> Self {
        let step = failure.step();
        let exit_code = match (step, failure.errno) {
            (Step::Execute, libc::ENOENT | libc::ENOTDIR) => 127,
            (Step::Execute, _) => 126,
            _ => 128,
        };
        Self { step, errno: failure.errno, exit_code, message: failure.message }
    }
}
