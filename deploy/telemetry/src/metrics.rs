//! The one list of metric names, and the text that Prometheus reads.
//!
//! Values are read when they are asked for; only what happens in between is counted as it happens ([`Counter`], [`Histogram`]). No label's values
//! grow with what people make: there are kinds, phases, methods, codes, loops and steps, but no names of pods, workloads or images.
//!
//! Names follow the conventions of Prometheus: base units, `_total` for counters, `_seconds` and `_bytes`.

mod exposition;
mod instrument;
mod process;

pub use exposition::{Exposition, Format};
pub use instrument::{Counter, Histogram, LATENCY_BOUNDS_US, SIZE_BOUNDS};
pub use process::write_process;

/// What kind of value a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// May rise and fall.
    Gauge,
    /// Only grows, until the process restarts.
    Counter,
    /// Counts by upper bound.
    Histogram,
}

/// A metric: its name, what kind of value it has, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// As Prometheus knows it; ends with its unit, of a counter with `_total`.
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

// Both processes.
metrics! {
    BUILD_INFO = Gauge "strata_build_info" "Always 1; the labels say which component this is and of which version.";
    PROCESS_CPU_SECONDS = Counter "process_cpu_seconds_total" "Processor time that this process has used, user and system.";
    PROCESS_RESIDENT_BYTES = Gauge "process_resident_memory_bytes" "Memory of this process that is in RAM.";
    PROCESS_VIRTUAL_BYTES = Gauge "process_virtual_memory_bytes" "Address space of this process.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" "File descriptors that this process has open.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" "File descriptors that this process may have open.";
    PROCESS_START_SECONDS = Gauge "process_start_time_seconds" "When this process started, seconds since 1970.";
    PROCESS_THREADS = Gauge "process_threads" "Threads of this process.";

    CONTROLLER_OBJECTS = Gauge "strata_controller_objects" "Objects in the store by kind.";
    CONTROLLER_PODS = Gauge "strata_controller_pods" "Pods in the store by phase.";
    CONTROLLER_NODES = Gauge "strata_controller_nodes" "Nodes by phase.";
    CONTROLLER_WORKLOADS_UNREADY = Gauge "strata_controller_workloads_unready" "Workloads that have fewer ready pods than they want.";
    CONTROLLER_SESSIONS = Gauge "strata_controller_sessions" "Agents with an open session.";
    CONTROLLER_SESSIONS_OPENED = Counter "strata_controller_sessions_opened_total" "Sessions that agents have opened.";
    CONTROLLER_FRAMES = Counter "strata_controller_frames_total" "Assignment frames sent to agents, full ones and deltas.";
    CONTROLLER_STORE_REVISION = Gauge "strata_controller_store_revision" "Revision of the store: grows with every change.";
    CONTROLLER_STORE_COMMITS = Counter "strata_controller_store_commits_total" "Commits by result: done, conflict (a condition did not hold) or failed (the disk).";
    CONTROLLER_STORE_COMMIT_SECONDS = Histogram "strata_controller_store_commit_seconds" "Time from a commit's call to its being on disk and visible.";
    CONTROLLER_STORE_GROUP_COMMITS = Histogram "strata_controller_store_group_commits" "Commits that were made durable together.";
    CONTROLLER_STORE_SYNC_SECONDS = Histogram "strata_controller_store_sync_seconds" "Time to write a group to the log and to sync it to disk.";
    CONTROLLER_STORE_WRITTEN_BYTES = Counter "strata_controller_store_written_bytes_total" "Bytes written to the store's log.";
    CONTROLLER_STORE_LOG_BYTES = Gauge "strata_controller_store_log_bytes" "Bytes of the store's log that no checkpoint covers yet.";
    CONTROLLER_STORE_WATCHERS = Gauge "strata_controller_store_watchers" "Watchers that follow the store, control loops included.";
    CONTROLLER_STORE_FAILED = Gauge "strata_controller_store_failed" "Whether the store takes no more changes.";
    CONTROLLER_STORE_ALARM = Gauge "strata_controller_store_alarm" "Whether the store works on but needs attention; its log says why.";
    CONTROLLER_LOOP_SECONDS = Histogram "strata_controller_loop_seconds" "Rounds of the control loops and how long they took.";
    CONTROLLER_LOOP_ERRORS = Counter "strata_controller_loop_errors_total" "Changes of control loops that were not made at once: a conflict or a full disk; they try again.";
    CONTROLLER_REQUESTS = Counter "strata_controller_requests_total" "Requests by gRPC method and status code, counted at their end.";
    CONTROLLER_REQUEST_SECONDS = Histogram "strata_controller_request_seconds" "Time from a request to its answer, of streams to the answer's begin.";
    CONTROLLER_PLACED_PODS = Counter "strata_controller_placed_pods_total" "Pods that were given a node.";
    CONTROLLER_UNSCHEDULABLE_PODS = Gauge "strata_controller_unschedulable_pods" "Pods that fit on no node at present.";
    CONTROLLER_SCHEDULE_SECONDS = Histogram "strata_controller_schedule_seconds" "Time from a pod's creation to its being bound to a node, on disk.";

    AGENT_SESSION_UP = Gauge "strata_agent_session_up" "Whether a session with the controller is up.";
    AGENT_PODS = Gauge "strata_agent_pods" "Pods on this node by phase.";
    AGENT_CONTAINERS = Gauge "strata_agent_containers" "Containers on this node by state.";
    AGENT_CONTAINER_RESTARTS = Counter "strata_agent_container_restarts_total" "Containers that were started again.";
    AGENT_CONTAINER_OOM_KILLS = Counter "strata_agent_container_oom_kills_total" "Containers that ended because they exceeded their memory.";
    AGENT_CONTAINER_START_FAILURES = Counter "strata_agent_container_start_failures_total" "Starts of containers that failed.";
    AGENT_STEP_SECONDS = Histogram "strata_agent_step_seconds" "Steps in the life of pods and how long they took; steps with a colon are parts of others.";
    AGENT_STEP_FAILURES = Counter "strata_agent_step_failures_total" "Steps that failed and are tried again.";
    AGENT_LAYERS = Gauge "strata_agent_layers" "Layers on this node.";
    AGENT_LAYERS_MOUNTED = Gauge "strata_agent_layers_mounted" "Layers that are mounted, each once for all its containers.";
    AGENT_LAYER_BYTES = Gauge "strata_agent_layer_bytes" "Bytes of the layers' files.";
    AGENT_IMAGES = Gauge "strata_agent_images" "Images that are wholly here.";
    AGENT_FETCHED_BYTES = Counter "strata_agent_fetched_bytes_total" "Bytes of layers and image documents that were received, by source: registry or peer.";
    AGENT_SERVED_BYTES = Counter "strata_agent_served_bytes_total" "Bytes of layers and image documents that were sent to peers.";
    AGENT_STATE_SIZE_BYTES = Gauge "strata_agent_state_size_bytes" "Size of the file system of the agent's state directory.";
    AGENT_STATE_FREE_BYTES = Gauge "strata_agent_state_free_bytes" "Bytes that are free there.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_follow_the_conventions() {
        let mut names: Vec<&str> = ALL.iter().map(|m| m.name).collect();
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("strata_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.of == Type::Counter, "{name}");
            assert!(!["_count", "_sum", "_bucket", "_ms", "_kb"].iter().any(|end| name.ends_with(end)), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|m| m.help.ends_with('.') && !m.help.contains(['\\', '\n', '"'])));
    }
}
