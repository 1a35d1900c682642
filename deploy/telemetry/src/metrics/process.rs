//! What every process tells of itself, under the names that all Prometheus clients use: read from `/proc/self` (proc(5)) at the time of asking.

use super::{self as metrics, Exposition, Metric};
use std::fs;

/// Clock ticks a second in `/proc/PID/stat`: Linux has shown 100 to user space since 2.6, whatever the kernel's own rate.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes version and process; what cannot be read is left out.
pub fn write_process(text: &mut Exposition, component: &str, version: &str) {
    text.by_two(metrics::BUILD_INFO, ("component", "version"), [(component, version, 1)]);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything: fields are counted behind it, the first is number 3.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse::<f64>().ok());
    let ticks = |number| field(number).map(|t| t / TICKS_PER_SECOND);
    let mut put = |metric: Metric, value: Option<f64>| {
        if let Some(value) = value {
            text.value(metric, value);
        }
    };
    put(metrics::PROCESS_CPU_SECONDS, ticks(14).zip(ticks(15)).map(|(user, system)| user + system));
    put(metrics::PROCESS_THREADS, field(20));
    put(metrics::PROCESS_START_SECONDS, ticks(22).zip(boot_time()).map(|(after, boot)| boot + after));
    put(metrics::PROCESS_VIRTUAL_BYTES, field(23));
    put(metrics::PROCESS_RESIDENT_BYTES, resident_bytes());
    let open = fs::read_dir("/proc/self/fd").ok().map(|dir| f64::from(u32::try_from(dir.count()).unwrap_or(u32::MAX)));
    put(metrics::PROCESS_OPEN_FDS, open);
    put(metrics::PROCESS_MAX_FDS, max_fds());
}

fn boot_time() -> Option<f64> {
    fs::read_to_string("/proc/stat").ok()?.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok())
}

/// `VmRSS` is in KiB.
fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<f64>().ok().map(|kib| kib * 1024.0)
}

/// The soft limit; "unlimited" is left out.
fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|l| l.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::metrics::Format;

    #[test]
    fn this_process_has_memory_threads_and_a_start() {
        let mut text = Exposition::new(Format::Text);
        write_process(&mut text, "test", "1.2.3");
        let text = text.finish();
        let value = |name: &str| -> f64 {
            let line =
                text.lines().find(|l| l.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("{name}: {text}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(text.contains("strata_build_info{component=\"test\",version=\"1.2.3\"} 1\n"), "{text}");
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0 && value("process_open_fds") >= 3.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-5.0..86_400.0).contains(&age), "started {age} s ago");
        assert!(value("process_cpu_seconds_total") < 86_400.0);
    }
}
