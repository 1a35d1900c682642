//! The one list of metric names, and the text that Prometheus reads (exposition format 0.0.4).
//!
//! Values are read when they are asked for; only what happened in between, such as latencies, is counted as it happens ([`Histogram`]).

mod exposition;
mod histogram;

pub use exposition::{CONTENT_TYPE, Exposition};
pub use histogram::{Histogram, LATENCY_BOUNDS_US};

/// What kind of value a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// May rise and fall.
    Gauge,
    /// Only grows, until the process restarts.
    Counter,
    /// Counts by upper bound, in seconds.
    Histogram,
}

/// A metric: its name, what kind of value it has, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// As Prometheus knows it; ends with its unit.
    pub name: &'static str,
    /// Its kind.
    pub of: Type,
    /// One sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident = $of:ident $name:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric { name: $name, of: Type::$of, help: $help };
        )*
        /// Every metric of every Strata process.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    CONTROLLER_OBJECTS = Gauge "strata_controller_objects" "Objects in the store by kind.";
    CONTROLLER_PODS = Gauge "strata_controller_pods" "Pods in the store by phase.";
    CONTROLLER_NODES = Gauge "strata_controller_nodes" "Nodes by phase.";
    CONTROLLER_SESSIONS = Gauge "strata_controller_sessions" "Agents with an open session.";
    CONTROLLER_STORE_REVISION = Counter "strata_controller_store_revision" "Revision of the store: grows with every change.";
    CONTROLLER_STORE_LOG_BYTES = Gauge "strata_controller_store_log_bytes" "Bytes of the store's log that no checkpoint covers yet.";
    CONTROLLER_STORE_FAILED = Gauge "strata_controller_store_failed" "Whether the store takes no more changes.";
    CONTROLLER_COMMIT_SECONDS = Histogram "strata_controller_commit_seconds" "Time from a commit's call to its being on disk and visible.";
    CONTROLLER_SCHEDULE_SECONDS = Histogram "strata_controller_schedule_seconds" "Time from a pod's creation to its being bound to a node, on disk.";
    AGENT_SESSION_UP = Gauge "strata_agent_session_up" "Whether a session with the controller is up.";
    AGENT_PODS = Gauge "strata_agent_pods" "Pods on this node by phase.";
    AGENT_CONTAINER_RESTARTS = Gauge "strata_agent_container_restarts" "Restarts of the containers that are on this node.";
    AGENT_LAYERS = Gauge "strata_agent_layers" "Layers on this node.";
    AGENT_LAYER_BYTES = Gauge "strata_agent_layer_bytes" "Bytes of their files.";
    AGENT_IMAGES = Gauge "strata_agent_images" "Images that are wholly here.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_well_formed() {
        let mut names: Vec<&str> = ALL.iter().map(|m| m.name).collect();
        assert!(
            names.iter().all(|n| n.starts_with("strata_") && n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|m| m.help.ends_with('.') && !m.help.contains('\\') && !m.help.contains('\n')));
    }
}
