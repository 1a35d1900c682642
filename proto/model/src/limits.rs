//! Every bound that more than one crate must agree on.

/// Bytes of one encoded object.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;
/// Bytes of one manifest file that `ctl` reads.
pub const MANIFEST_BYTES_MAX: usize = 8 << 20;
/// Containers of one pod.
pub const CONTAINERS_MAX: usize = 32;
/// Layers of one image: what overlayfs stacks comfortably (500 is its own limit, 127 the usual one of engines).
pub const LAYERS_MAX: usize = 127;
/// Bytes of a manifest, index or config of an image.
pub const IMAGE_METADATA_BYTES_MAX: usize = 8 << 20;
/// Replicas of one workload.
pub const REPLICAS_MAX: u32 = 100_000;
/// Processes of a container whose limits do not say.
pub const PIDS_DEFAULT: u32 = 4096;
/// Seconds between stop signal and kill where nothing else is said.
pub const TERMINATION_GRACE_DEFAULT_S: u32 = 10;
/// The longest grace period, seconds.
pub const TERMINATION_GRACE_MAX_S: u32 = 3600;
/// Revisions that are remembered of a workload.
pub const HISTORY_MAX: usize = 10;
/// A rollout that makes no progress for so long has failed, unless its workload says otherwise, seconds.
pub const PROGRESS_DEADLINE_DEFAULT_S: u32 = 600;
/// Pods that one job may have to complete: their records are kept until it is deleted.
pub const COMPLETIONS_MAX: u32 = 10_000;
/// The longest delay, period or timeout of a probe, seconds.
pub const PROBE_SECONDS_MAX: u32 = 24 * 3600;
/// The highest threshold of a probe.
pub const PROBE_THRESHOLD_MAX: u32 = 10_000;
/// Words of a probe's command.
pub const PROBE_WORDS_MAX: usize = 256;
/// Bytes of data in one streamed message (logs, exec, import, layers).
pub const CHUNK_BYTES: usize = 256 << 10;
/// Ids of one pod's user namespace.
pub const IDS_PER_POD: u32 = 65_536;
/// Ended pods that are kept for `ctl get pods --all`, per workload.
pub const ENDED_PODS_KEPT: usize = 5;
/// Events kept in the whole cluster.
pub const EVENTS_KEPT: usize = 10_000;
/// Volumes of one pod.
pub const VOLUMES_MAX: usize = 64;
/// Mounts of one container: their descriptors go to the shim in one message.
pub const MOUNTS_MAX: usize = 40;
/// Bytes of the data of one config or secret, keys included.
pub const MATERIAL_BYTES_MAX: usize = 1 << 20;
/// Permission bits of a file made of a config's or secret's key.
pub const FILE_MODE_DEFAULT: u32 = 0o644;
/// Addresses at the end of each node's subnet that no pod gets: the steps of image builds have them.
pub const BUILD_ADDRESSES: u32 = 4;
/// Ports of one service.
pub const SERVICE_PORTS_MAX: usize = 256;
/// Services of the whole cluster: a node is told of all of them in one message.
pub const SERVICES_MAX: usize = 10_000;
/// Pods behind one service that connections are spread over; the oldest count.
pub const ENDPOINTS_MAX: usize = 1_000;
/// The domain that names of services end in.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// Ports that are chosen for services with `nodePorts`: the first and the last.
pub const NODE_PORTS: (u16, u16) = (30_000, 32_767);
