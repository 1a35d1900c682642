//! What this machine has, where the settings do not say.

use crate::config::{Capacity, PODS_DEFAULT};
use strata_proto::types::Resources;

/// Processor, memory, processes.
#[must_use]
pub fn resources(settings: &Capacity) -> Resources {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    Resources {
        cpu_millis: settings.cpu_millis.unwrap_or(u64::try_from(processors).unwrap_or(1) * 1000),
        memory_bytes: settings.memory_bytes.unwrap_or_else(|| memory_bytes(&read("/proc/meminfo"))),
        pids: read("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(32_768),
    }
}

/// Sandboxes at the same time.
#[must_use]
pub fn pods(settings: &Capacity) -> usize {
    usize::try_from(settings.pods.unwrap_or(PODS_DEFAULT)).unwrap_or(usize::MAX)
}

/// MemTotal of /proc/meminfo (proc(5): in KiB).
fn memory_bytes(meminfo: &str) -> u64 {
    let total = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    total.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_win_and_the_rest_is_detected() {
        assert_eq!(memory_bytes("MemTotal:       24000 kB\nMemFree: 1 kB\n"), 24_576_000);
        let own = resources(&Capacity { cpu_millis: Some(5), ..Capacity::default() });
        assert_eq!(own.cpu_millis, 5);
        assert!(own.memory_bytes > 0 && own.pids > 0);
    }
}
