//! Exit codes, and failures that carry one. The codes are a contract (design, section 9).

use std::{fmt, io};
use strata_client::{ClientError, ConfigError, ErrorKind};

/// Why ctl ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something went wrong that has no code of its own.
    Failed = 1,
    /// The command line makes no sense; clap uses the same code.
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Unreachable = 5,
    TimedOut = 6,
    NotAllowed = 7,
    /// Of `exec` and attached `run` only: not the command failed, but ctl.
    Own = 125,
    /// The reader of stdout has gone; as a shell reports SIGPIPE.
    BrokenPipe = 141,
}

/// What ended ctl, for people, and the code for scripts.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// Said on stderr, unless "": then everything has been said.
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Unreachable => Self::Unreachable,
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::NotAllowed => Self::NotAllowed,
            ErrorKind::Invalid | ErrorKind::Compacted | ErrorKind::Failed => Self::Failed,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(error.kind.into(), error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = match error {
            ConfigError::NoContext { .. } => Exit::Usage,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::BrokenPipe, "");
        }
        Self::failed(format!("cannot write the output: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_codes_of_the_contract() {
        for (kind, code) in [
            (ErrorKind::Failed, 1),
            (ErrorKind::Invalid, 1),
            (ErrorKind::Compacted, 1),
            (ErrorKind::NotFound, 3),
            (ErrorKind::Conflict, 4),
            (ErrorKind::Unreachable, 5),
            (ErrorKind::TimedOut, 6),
            (ErrorKind::NotAllowed, 7),
        ] {
            assert_eq!(Exit::from(kind) as u8, code, "{kind:?}");
        }
        assert_eq!(Exit::Usage as u8, 2);
    }
}
