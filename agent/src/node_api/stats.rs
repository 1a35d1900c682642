//! What the node and its pods use.

use super::NodeApi;
use std::{collections::HashSet, fs};
use strata_proto::{
    node::{ContainerStats, NodeStats, PodStats, StatsRequest, StatsResponse},
    types::{PodStatus, container_status::State},
};
use strata_runtime::cgroup::{CgroupRoot, ContainerCgroup, PodCgroup};
use tonic::Status;

/// Entries of one writable layer that are looked at for its size.
const ENTRIES_MAX: usize = 100_000;

impl NodeApi {
    pub(super) async fn statistics(&self, request: StatsRequest) -> Result<StatsResponse, Status> {
        let board = self.pods.board();
        let wanted: HashSet<String> = request.pod_uids.into_iter().collect();
        let reports: Vec<(String, PodStatus)> = board
            .reports()
            .into_iter()
            .filter(|r| !r.gone && (wanted.is_empty() || wanted.contains(&r.uid)))
            .filter_map(|r| Some((r.uid, r.status?)))
            .collect();
        let node = self.node.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let pods = reports.into_iter().map(|(uid, status)| {
                let running = status.containers.iter().filter(|c| c.state() == State::Running);
                let containers = running
                    .map(|c| container(node.cgroups(), &uid, &c.name, node.writable_bytes(&uid, &c.name, ENTRIES_MAX)));
                PodStats { containers: containers.collect(), pod_uid: uid }
            });
            let pods = pods.collect();
            let disk = rustix::fs::statvfs(node.state_dir()).ok();
            let (used, total) =
                disk.map_or((0, 0), |d| ((d.f_blocks - d.f_bfree) * d.f_frsize, d.f_blocks * d.f_frsize));
            StatsResponse {
                time_ns: monotonic_ns(),
                node: Some(NodeStats {
                    cpu_ns: cpu_ns(&fs::read_to_string("/proc/stat").unwrap_or_default()),
                    memory_bytes: memory_bytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
                    disk_used_bytes: used,
                    disk_total_bytes: total,
                }),
                pods,
            }
        });
        measured.await.map_err(|_| Status::cancelled("the agent stops"))
    }
}

fn container(cgroups: &CgroupRoot, uid: &str, name: &str, writable_bytes: u64) -> ContainerStats {
    let group = PodCgroup::existing(cgroups, uid).and_then(|p| ContainerCgroup::existing(&p, name));
    let used = group.map(|g| g.usage()).unwrap_or_default();
    ContainerStats {
        name: name.to_owned(),
        cpu_ns: used.cpu_ns,
        memory_bytes: used.working_set_bytes,
        pids: used.pids,
        writable_bytes,
    }
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Time that all processors were busy (proc_stat(5)): user, nice, system, irq, softirq, steal, in ticks of 10 ms (USER_HZ is 100 wherever Linux runs today).
fn cpu_ns(stat: &str) -> u64 {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "));
    let ticks: Vec<u64> = line.unwrap_or_default().split_whitespace().map_while(|w| w.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|i| ticks.get(*i));
    busy.sum::<u64>() * 10_000_000
}

/// What is not available any more (proc_meminfo(5)).
fn memory_bytes(meminfo: &str) -> u64 {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    field("MemTotal").saturating_sub(field("MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_figures_are_read() {
        assert_eq!(cpu_ns("cpu  10 1 2 1000 5 3 4 1 7 8\ncpu0 1 1 1 1\n"), 210_000_000);
        assert_eq!(memory_bytes("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n"), 600 << 10);
        assert_eq!((cpu_ns(""), memory_bytes("")), (0, 0));
    }
}
