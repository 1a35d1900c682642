//! From an OCI runtime specification and the facts of this host to the plan that a new process walks. Pure.

mod mounts;

use oci_spec::runtime::{LinuxCapabilities, PosixRlimitType, Process, Spec};

use crate::error::{Error, Result};
use crate::seccomp;
use crate::spec::capability_number;
use crate::wire;

/// What a plan is: decided here, walked by the shim's child.
pub type InitPlan = wire::Plan;

/// What a plan depends on beside the specification.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The last capability that the kernel knows.
    pub last_capability: u32,
    /// The shim's hard limits by RLIMIT number: what it may give at most (it has no CAP_SYS_RESOURCE on the host).
    pub hard_limits: Vec<(u32, u64)>,
}

impl HostFacts {
    /// Looks at this host.
    #[must_use]
    pub fn observe() -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let hard = |name: &str| {
            let line = limits.lines().find(|l| l.starts_with(name))?;
            let value = line.get(name.len()..)?.split_whitespace().nth(1)?;
            if value == "unlimited" { Some(u64::MAX) } else { value.parse().ok() }
        };
        let hard_limits = RLIMITS.iter().filter_map(|(_, number, name)| Some((*number, hard(name)?))).collect();
        Self { last_capability: strata_sys::caps::last(), hard_limits }
    }
}

/// Type, number (asm-generic/resource.h) and name in /proc/PID/limits.
const RLIMITS: &[(PosixRlimitType, u32, &str)] = &[
    (PosixRlimitType::RlimitCpu, 0, "Max cpu time"),
    (PosixRlimitType::RlimitFsize, 1, "Max file size"),
    (PosixRlimitType::RlimitData, 2, "Max data size"),
    (PosixRlimitType::RlimitStack, 3, "Max stack size"),
    (PosixRlimitType::RlimitCore, 4, "Max core file size"),
    (PosixRlimitType::RlimitRss, 5, "Max resident set"),
    (PosixRlimitType::RlimitNproc, 6, "Max processes"),
    (PosixRlimitType::RlimitNofile, 7, "Max open files"),
    (PosixRlimitType::RlimitMemlock, 8, "Max locked memory"),
    (PosixRlimitType::RlimitAs, 9, "Max address space"),
    (PosixRlimitType::RlimitLocks, 10, "Max file locks"),
    (PosixRlimitType::RlimitSigpending, 11, "Max pending signals"),
    (PosixRlimitType::RlimitMsgqueue, 12, "Max msgqueue size"),
    (PosixRlimitType::RlimitNice, 13, "Max nice priority"),
    (PosixRlimitType::RlimitRtprio, 14, "Max realtime priority"),
    (PosixRlimitType::RlimitRttime, 15, "Max realtime timeout"),
];

/// Decides everything a container's first process does before its program executes.
///
/// # Errors
/// `Error::Invalid` for a specification that is incomplete or asks for what is not built: never silence.
pub fn plan_init(spec: &Spec, host: &HostFacts) -> Result<InitPlan> {
    let process = spec.process().as_ref().ok_or_else(|| invalid("the specification has no process"))?;
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(invalid("no command: neither the container nor its image names one"));
    }
    refuse_unsupported(spec, process)?;
    let linux = spec.linux().as_ref();
    let (mounts, has_dev) = mounts::plan_mounts(spec.mounts().as_deref().unwrap_or_default())?;
    let capabilities = process.capabilities().as_ref().map(|c| plan_capabilities(c, host)).unwrap_or_default();
    let seccomp = match linux.and_then(|l| l.seccomp().as_ref()) {
        None => Vec::new(),
        // The compiled default is cached; anything else is compiled here.
        Some(profile) if *profile == seccomp::default_profile(capabilities.bounding)? => {
            seccomp::bpf_for(capabilities.bounding)?
        }
        Some(profile) => seccomp::compile(profile)?,
    };
    let paths = |paths: Option<&Vec<String>>| paths.cloned().unwrap_or_default();
    let cwd = process.cwd().to_str().ok_or_else(|| invalid("the working directory is not UTF-8"))?;
    if !cwd.starts_with('/') {
        return Err(invalid(format!("the working directory {cwd:?} is not absolute")));
    }
    let user = process.user();
    Ok(InitPlan {
        args,
        env: process.env().clone().unwrap_or_default(),
        cwd: cwd.to_owned(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(0o022),
        capabilities: Some(capabilities),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp,
        mounts,
        devices: if has_dev { mounts::default_devices() } else { Vec::new() },
        links: if has_dev { mounts::default_links() } else { Vec::new() },
        masked: paths(linux.and_then(|l| l.masked_paths().as_ref())),
        read_only: paths(linux.and_then(|l| l.readonly_paths().as_ref())),
        read_only_root: spec.root().as_ref().is_some_and(|r| r.readonly().unwrap_or(false)),
        rlimits: plan_rlimits(process, host),
        tty: process.terminal().unwrap_or(false),
        oom_score_adj: process.oom_score_adj(),
    })
}

fn invalid(message: impl Into<String>) -> Error {
    Error::Invalid(message.into())
}

fn refuse_unsupported(spec: &Spec, process: &Process) -> Result<()> {
    let linux = spec.linux().as_ref();
    let asked: &[(&str, bool)] = &[
        ("process.apparmorProfile", process.apparmor_profile().is_some()),
        ("process.selinuxLabel", process.selinux_label().is_some()),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        ("hooks", spec.hooks().is_some()),
        ("linux.devices", linux.is_some_and(|l| l.devices().as_ref().is_some_and(|d| !d.is_empty()))),
        ("linux.personality", linux.is_some_and(|l| l.personality().is_some())),
        ("linux.mountLabel", linux.is_some_and(|l| l.mount_label().is_some())),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((what, _)) => Err(invalid(format!("{what} of the specification is not supported"))),
        None => Ok(()),
    }
}

fn plan_capabilities(wanted: &LinuxCapabilities, host: &HostFacts) -> wire::Capabilities {
    let known = u64::MAX >> (63 - host.last_capability.min(63));
    let mask = |set: Option<&oci_spec::runtime::Capabilities>| {
        set.into_iter().flatten().map(|c| 1_u64 << capability_number(*c)).fold(0, |a, b| a | b) & known
    };
    wire::Capabilities {
        bounding: mask(wanted.bounding().as_ref()),
        effective: mask(wanted.effective().as_ref()),
        permitted: mask(wanted.permitted().as_ref()),
        inheritable: mask(wanted.inheritable().as_ref()),
        ambient: mask(wanted.ambient().as_ref()),
    }
}

/// Limits are clamped to what the host lets the shim give.
fn plan_rlimits(process: &Process, host: &HostFacts) -> Vec<wire::Rlimit> {
    let limit = |wanted: &oci_spec::runtime::PosixRlimit| {
        let number = RLIMITS.iter().find(|(typ, ..)| *typ == wanted.typ()).map(|(_, number, _)| *number)?;
        let most = host.hard_limits.iter().find(|(n, _)| *n == number).map_or(u64::MAX, |(_, hard)| *hard);
        let hard = wanted.hard().min(most);
        Some(wire::Rlimit { resource: number, soft: wanted.soft().min(hard), hard })
    };
    process.rlimits().iter().flatten().filter_map(limit).collect()
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
