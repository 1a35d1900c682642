//! Capabilities by name, number (linux/capability.h) and default.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

use super::built;
use crate::error::{Error, Result};

/// Docker's defaults without NET_RAW and MKNOD: `ping_group_range` makes ping work, device nodes are bound.
pub const DEFAULT_CAPABILITIES: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// The same as a mask, bit N = capability N.
pub const DEFAULT_CAPABILITIES_MASK: u64 = 0xa004_05fb;

/// In the order of their numbers.
const ALL: &[(Capability, &str)] = &[
    (Capability::Chown, "CHOWN"),
    (Capability::DacOverride, "DAC_OVERRIDE"),
    (Capability::DacReadSearch, "DAC_READ_SEARCH"),
    (Capability::Fowner, "FOWNER"),
    (Capability::Fsetid, "FSETID"),
    (Capability::Kill, "KILL"),
    (Capability::Setgid, "SETGID"),
    (Capability::Setuid, "SETUID"),
    (Capability::Setpcap, "SETPCAP"),
    (Capability::LinuxImmutable, "LINUX_IMMUTABLE"),
    (Capability::NetBindService, "NET_BIND_SERVICE"),
    (Capability::NetBroadcast, "NET_BROADCAST"),
    (Capability::NetAdmin, "NET_ADMIN"),
    (Capability::NetRaw, "NET_RAW"),
    (Capability::IpcLock, "IPC_LOCK"),
    (Capability::IpcOwner, "IPC_OWNER"),
    (Capability::SysModule, "SYS_MODULE"),
    (Capability::SysRawio, "SYS_RAWIO"),
    (Capability::SysChroot, "SYS_CHROOT"),
    (Capability::SysPtrace, "SYS_PTRACE"),
    (Capability::SysPacct, "SYS_PACCT"),
    (Capability::SysAdmin, "SYS_ADMIN"),
    (Capability::SysBoot, "SYS_BOOT"),
    (Capability::SysNice, "SYS_NICE"),
    (Capability::SysResource, "SYS_RESOURCE"),
    (Capability::SysTime, "SYS_TIME"),
    (Capability::SysTtyConfig, "SYS_TTY_CONFIG"),
    (Capability::Mknod, "MKNOD"),
    (Capability::Lease, "LEASE"),
    (Capability::AuditWrite, "AUDIT_WRITE"),
    (Capability::AuditControl, "AUDIT_CONTROL"),
    (Capability::Setfcap, "SETFCAP"),
    (Capability::MacOverride, "MAC_OVERRIDE"),
    (Capability::MacAdmin, "MAC_ADMIN"),
    (Capability::Syslog, "SYSLOG"),
    (Capability::WakeAlarm, "WAKE_ALARM"),
    (Capability::BlockSuspend, "BLOCK_SUSPEND"),
    (Capability::AuditRead, "AUDIT_READ"),
    (Capability::Perfmon, "PERFMON"),
    (Capability::Bpf, "BPF"),
    (Capability::CheckpointRestore, "CHECKPOINT_RESTORE"),
];

/// The number of a capability by its name without CAP_.
pub(crate) fn capability(name: &str) -> Option<u32> {
    ALL.iter().position(|(_, n)| *n == name).and_then(|n| u32::try_from(n).ok())
}

/// The number of a capability.
pub(crate) fn capability_number(capability: Capability) -> u32 {
    ALL.iter().position(|(c, _)| *c == capability).and_then(|n| u32::try_from(n).ok()).unwrap_or(63)
}

pub(super) fn mask(capabilities: &HashSet<Capability>) -> u64 {
    capabilities.iter().map(|c| 1 << capability_number(*c)).fold(0, |a, b| a | b)
}

fn parse(text: &str) -> Result<Vec<Capability>> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    if name == "ALL" {
        return Ok(ALL.iter().map(|(c, _)| *c).collect());
    }
    match ALL.iter().find(|(_, n)| *n == name) {
        Some((found, _)) => Ok(vec![*found]),
        None => Err(Error::Invalid(format!("{text:?} is no capability; see capabilities(7), for example NET_ADMIN"))),
    }
}

/// The defaults, with ALL first, without what is dropped, with what is added (docker's and Kubernetes' order: an added one wins over drop ALL).
pub(super) fn container_capabilities(add: &[String], drop: &[String]) -> Result<HashSet<Capability>> {
    let all = |list: &[String]| list.iter().any(|c| matches!(c.to_ascii_uppercase().as_str(), "ALL" | "CAP_ALL"));
    let mut set: HashSet<_> = match (all(drop), all(add)) {
        (_, true) => ALL.iter().map(|(c, _)| *c).collect(),
        (true, false) => HashSet::new(),
        (false, false) => DEFAULT_CAPABILITIES.iter().copied().collect(),
    };
    let named = |c: &&String| !all(std::slice::from_ref(*c));
    for name in drop.iter().filter(named) {
        for dropped in parse(name)? {
            set.remove(&dropped);
        }
    }
    for name in add.iter().filter(named) {
        set.extend(parse(name)?);
    }
    Ok(set)
}

/// All sets of a process: bounding = allowed; effective and permitted too for root; no inheritable, no ambient ones.
pub(super) fn sets(allowed: HashSet<Capability>, uid: u32) -> Result<LinuxCapabilities> {
    let held = if uid == 0 { allowed.clone() } else { HashSet::new() };
    LinuxCapabilitiesBuilder::default()
        .bounding(allowed)
        .effective(held.clone())
        .permitted(held)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
        .map_err(built)
}
