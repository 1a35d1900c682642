//! The life of a pod.

/// Where a pod is in its life. `(attempt, phase)` only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Phase {
    /// Known, not bound to a node.
    #[default]
    Pending,
    /// Bound to a node that has not begun with it.
    Assigned,
    /// Its images are fetched, its root file systems made.
    Preparing,
    /// Its sandbox is there, its containers start.
    Starting,
    /// Every container has started (and restarts, if its policy says so).
    Running,
    /// On its way down.
    Stopping,
    /// Ended, every container with exit code 0 or stopped on request.
    Exited,
    /// Ended otherwise.
    Failed,
    /// Its node was lost.
    Lost,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Assigned,
        Self::Preparing,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Exited,
        Self::Failed,
        Self::Lost,
    ];

    /// Whether nothing of the pod runs or will run in this attempt.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Exited | Self::Failed | Self::Lost)
    }

    /// The word used in JSON and tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Assigned => "Assigned",
            Self::Preparing => "Preparing",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Stopping => "Stopping",
            Self::Exited => "Exited",
            Self::Failed => "Failed",
            Self::Lost => "Lost",
        }
    }
}

/// The reason of a pod that has `Exited` because that was asked for: it is still its node's, and runs again when it is to.
pub const REASON_STOPPED: &str = "Stopped";

/// What one container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ContainerState {
    /// Not started yet, or waiting for its next start.
    #[default]
    Waiting,
    /// Its process runs.
    Running,
    /// Ended for good in this attempt.
    Exited,
}

/// What should become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Desired {
    /// Its containers run.
    #[default]
    Run,
    /// Stopped; node, address and writable layer stay.
    Stopped,
    /// Stopped and removed with everything it owns.
    Removed,
}
