//! Stop, start, restart, signal.

use crate::{Client, ClientError, limits, objects::describe, unary};
use std::time::Duration;
use strata_proto::{
    cluster::{ActRequest, act_request::Action},
    types::Kind,
};

/// What to do to a pod, or to every pod of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Node, address and writable layer stay.
    Stop {
        /// Seconds between stop signal and kill; `None`: the template's.
        grace_s: Option<u32>,
    },
    /// What was stopped runs again.
    Start,
    /// Stop and start in place.
    Restart {
        /// "" = every one.
        container: String,
        /// As above.
        grace_s: Option<u32>,
    },
    /// To the first process.
    Signal {
        /// "" = every one.
        container: String,
        /// 1 to 64.
        signal: u32,
    },
}

impl Client {
    /// Does it; returns the names of the pods that it was done to. Restarts are over when this returns; stops and starts are only on their way.
    ///
    /// # Errors
    /// By kind.
    pub async fn act(&self, kind: Kind, namespace: &str, name: &str, act: Act) -> Result<Vec<String>, ClientError> {
        let (word, action) = match &act {
            Act::Stop { .. } => ("stop", Action::Stop),
            Act::Start => ("start", Action::Start),
            Act::Restart { .. } => ("restart", Action::Restart),
            Act::Signal { .. } => ("signal", Action::Signal),
        };
        let mut request = ActRequest {
            kind: kind.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            action: action.into(),
            ..ActRequest::default()
        };
        let mut deadline = limits::UNARY_TIMEOUT;
        match act {
            Act::Stop { grace_s } => request.grace_s = grace_s,
            Act::Start => {}
            Act::Restart { container, grace_s } => {
                (request.container, request.grace_s) = (container, grace_s);
                // The grace of a template is not known here.
                deadline = limits::RESTART_TIMEOUT + Duration::from_secs(grace_s.unwrap_or(3600).into());
            }
            Act::Signal { container, signal } => (request.container, request.signal) = (container, signal),
        }
        let doing = format!("{word} {}", describe(kind, namespace, name));
        let mut cluster = self.cluster.clone();
        Ok(unary(&doing, deadline, request, |r| async move { cluster.act(r).await }).await?.pods)
    }
}
