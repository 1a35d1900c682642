//! Probes: questions to a container whose answers decide whether it serves, and whether it runs on.

use crate::Labels;
use alloc::{string::String, vec::Vec};

/// The probes of one container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probes {
    /// Until it has succeeded the other two wait.
    pub startup: Option<Probe>,
    /// While it fails the pod is not ready.
    pub readiness: Option<Probe>,
    /// When it fails the container is restarted.
    pub liveness: Option<Probe>,
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Until it has succeeded the other two wait.
    Startup,
    /// While it fails the pod is not ready.
    Readiness,
    /// When it fails the container is restarted.
    Liveness,
}

/// One question that is asked again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// Seconds after the start of the container before the first.
    pub initial_delay_s: u32,
    /// Seconds between two.
    pub period_s: u32,
    /// Seconds one may take.
    pub timeout_s: u32,
    /// Good answers in a row that mean success.
    pub success_threshold: u32,
    /// Bad answers in a row that mean failure.
    pub failure_threshold: u32,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A command in the container; its exit code 0 is good.
    Exec(Vec<String>),
    /// A GET to the pod's address; status 200 to 399 is good.
    Http {
        /// Begins with `/`.
        path: String,
        /// Of the pod.
        port: u16,
        /// With TLS; any certificate is taken.
        https: bool,
        /// Sent with it.
        headers: Labels,
    },
    /// A connection to this port of the pod.
    Tcp {
        /// Of the pod.
        port: u16,
    },
    /// `grpc.health.v1.Health/Check`; SERVING is good.
    Grpc {
        /// Of the pod.
        port: u16,
        /// "" = the server as a whole.
        service: String,
    },
}

impl Probes {
    /// The probe of this kind.
    #[must_use]
    pub fn get(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
        }
    }
}

impl ProbeKind {
    /// As people call it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        }
    }
}
