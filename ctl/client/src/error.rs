//! What can go wrong with a call, by kind.

use std::time::Duration;
use strata_transport::TransportError;
use tonic::{Code, Status};

/// What kind of failure it is; stable, for scripts and exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The object, or something the call names, is not there.
    NotFound,
    /// It was changed meanwhile, or exists already.
    Conflict,
    /// The controller, or the node it had to ask, does not answer.
    Unreachable,
    /// It took longer than its deadline.
    TimedOut,
    /// The certificate does not entitle to it, or is not accepted at all.
    NotAllowed,
    /// The request is malformed.
    Invalid,
    /// A watch cannot continue from its revision: list again.
    Compacted,
    /// Anything else.
    Failed,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {doing}: {message}")]
pub struct ClientError {
    /// Its kind.
    pub kind: ErrorKind,
    /// What was being done, to what: "get pod default/web-0".
    pub doing: String,
    /// Why it failed and, where known, what to do.
    pub message: String,
}

impl ClientError {
    /// Makes an error.
    #[must_use]
    pub fn new(kind: ErrorKind, doing: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), message: message.into() }
    }

    pub(crate) fn timed_out(doing: &str, after: Duration) -> Self {
        let message = format!("no answer within {} s; try again, or look at the controller's log", after.as_secs());
        Self::new(ErrorKind::TimedOut, doing, message)
    }

    pub(crate) fn from_transport(doing: &str, error: &TransportError) -> Self {
        let kind = match error {
            TransportError::RefusedByServer { .. } => ErrorKind::NotAllowed,
            TransportError::ConnectTimeout { .. }
            | TransportError::Connect { .. }
            | TransportError::UnverifiedServer { .. }
            | TransportError::Tls { .. } => ErrorKind::Unreachable,
            TransportError::Address { .. }
            | TransportError::Material { .. }
            | TransportError::Token { .. }
            | TransportError::File { .. } => ErrorKind::Invalid,
        };
        Self::new(kind, doing, error.to_string())
    }

    /// The kind of a status follows its code; a status that never came from a server follows the transport's error below it.
    pub(crate) fn from_status(doing: &str, status: &Status) -> Self {
        if let Some(error) = TransportError::find(status) {
            return Self::from_transport(doing, error);
        }
        let kind = match status.code() {
            Code::NotFound => ErrorKind::NotFound,
            Code::AlreadyExists | Code::Aborted => ErrorKind::Conflict,
            Code::Unavailable => ErrorKind::Unreachable,
            Code::DeadlineExceeded => ErrorKind::TimedOut,
            // tonic's own word for a deadline that passed on this side.
            Code::Cancelled if status.message().contains("Timeout expired") => ErrorKind::TimedOut,
            Code::PermissionDenied | Code::Unauthenticated => ErrorKind::NotAllowed,
            Code::InvalidArgument => ErrorKind::Invalid,
            Code::OutOfRange => ErrorKind::Compacted,
            // A connection that breaks in the middle of a call has no status of its own.
            Code::Unknown | Code::Internal | Code::Cancelled if is_broken_connection(status) => ErrorKind::Unreachable,
            _ => ErrorKind::Failed,
        };
        let message = match status.message() {
            "" => format!("the server answered {:?} without a word", status.code()),
            message => message.to_owned(),
        };
        Self::new(kind, doing, message)
    }
}

fn is_broken_connection(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.is::<std::io::Error>() || error.is::<tonic::transport::Error>() {
            return true;
        }
        next = error.source();
    }
    status.message().contains("h2 protocol error") || status.message().contains("transport error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_kind() {
        for (code, kind) in [
            (Code::NotFound, ErrorKind::NotFound),
            (Code::Aborted, ErrorKind::Conflict),
            (Code::AlreadyExists, ErrorKind::Conflict),
            (Code::Unavailable, ErrorKind::Unreachable),
            (Code::DeadlineExceeded, ErrorKind::TimedOut),
            (Code::PermissionDenied, ErrorKind::NotAllowed),
            (Code::Unauthenticated, ErrorKind::NotAllowed),
            (Code::InvalidArgument, ErrorKind::Invalid),
            (Code::OutOfRange, ErrorKind::Compacted),
            (Code::FailedPrecondition, ErrorKind::Failed),
            (Code::ResourceExhausted, ErrorKind::Failed),
            (Code::Internal, ErrorKind::Failed),
        ] {
            let error = ClientError::from_status("get pod default/x", &Status::new(code, "because"));
            assert_eq!(error.kind, kind, "{code:?}");
            assert_eq!(error.to_string(), "cannot get pod default/x: because");
        }
    }
}
