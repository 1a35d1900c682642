//! Limits as the two interfaces write them.

use std::path::Path;

use super::files::write;
use super::{Group, Limits, Mode};
use crate::error::Result;

/// Period of the processor quota, in microseconds.
const PERIOD_US: u64 = 100_000;
/// The least quota the kernel takes.
const MIN_QUOTA_US: u64 = 1000;

/// v1: what a container may open; it cannot make nodes in its user namespace, so this is the second wall.
const DEVICES: &[&str] = &[
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

pub(super) fn set(group: &Group, limits: &Limits) -> Result<()> {
    match group.mode {
        Mode::V2 => set_v2(group, limits),
        Mode::V1 | Mode::Hybrid => set_v1(group, limits),
    }
}

fn quota_us(cpu_millis: u64) -> Option<u64> {
    (cpu_millis > 0).then(|| (cpu_millis * PERIOD_US / 1000).max(MIN_QUOTA_US))
}

/// Kubernetes' rule: 1024 shares a processor, 2 at least.
fn shares(request_millis: u64) -> Option<u64> {
    (request_millis > 0).then(|| (request_millis * 1024 / 1000).clamp(2, 262_144))
}

fn set_v1(group: &Group, limits: &Limits) -> Result<()> {
    if let Some(dir) = group.dir("memory").filter(|_| limits.memory_bytes > 0) {
        let (plain, with_swap) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
        let bytes = limits.memory_bytes.to_string();
        // With swap accounting the sum must never be below the plain limit: raise it first, lower it last.
        if with_swap.exists() && write(&plain, &bytes).is_err() {
            write(&with_swap, &bytes)?;
        }
        write(&plain, &bytes)?;
        if with_swap.exists() {
            write(&with_swap, &bytes)?;
        }
    }
    if let Some(dir) = group.dir("pids").filter(|_| limits.pids > 0) {
        write(&dir.join("pids.max"), &limits.pids.to_string())?;
    }
    if let Some(dir) = group.dir("cpu") {
        if let Some(quota) = quota_us(limits.cpu_millis) {
            write(&dir.join("cpu.cfs_quota_us"), &quota.to_string())?;
        }
        if let Some(shares) = shares(limits.cpu_request_millis) {
            write(&dir.join("cpu.shares"), &shares.to_string())?;
        }
    }
    if let Some(dir) = group.dir("devices") {
        restrict_devices(dir)?;
    }
    Ok(())
}

fn restrict_devices(dir: &Path) -> Result<()> {
    write(&dir.join("devices.deny"), "a")?;
    for rule in DEVICES {
        write(&dir.join("devices.allow"), rule)?;
    }
    Ok(())
}

fn set_v2(group: &Group, limits: &Limits) -> Result<()> {
    for tree in &group.trees {
        if limits.memory_bytes > 0 {
            write(&tree.dir.join("memory.max"), &limits.memory_bytes.to_string())?;
            let swap = tree.dir.join("memory.swap.max");
            if swap.exists() {
                write(&swap, "0")?;
            }
        }
        if limits.pids > 0 {
            write(&tree.dir.join("pids.max"), &limits.pids.to_string())?;
        }
        if let Some(quota) = quota_us(limits.cpu_millis) {
            write(&tree.dir.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
        }
        if let Some(shares) = shares(limits.cpu_request_millis) {
            // The kernel documentation's mapping of [2, 262144] onto [1, 10000].
            write(&tree.dir.join("cpu.weight"), &(1 + (shares - 2) * 9999 / 262_142).to_string())?;
        }
    }
    Ok(())
}
