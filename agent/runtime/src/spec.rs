//! From an image's configuration and a pod's wishes to an OCI runtime specification, as docker and Kubernetes define it.

mod capabilities;
mod signal;
mod user;

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{
    LinuxBuilder, Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};

use crate::error::{Error, Result};

pub use capabilities::{DEFAULT_CAPABILITIES, DEFAULT_CAPABILITIES_MASK};
pub(crate) use capabilities::{capability, capability_number};
pub use signal::signal_number;
pub use user::{ResolvedUser, UserFiles, resolve_user};

/// PATH of containers whose image sets none, as docker.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container shall be, beside its image.
#[derive(Debug, Clone, Default)]
pub struct ContainerRequest {
    /// The image's configuration.
    pub image: ImageConfiguration,
    /// Replaces the image's entrypoint, and then the image's command is dropped too.
    pub command: Vec<String>,
    /// Replaces the image's command.
    pub args: Vec<String>,
    /// Set over the image's, in order.
    pub env: Vec<(String, String)>,
    /// The image's, else "/", if absent.
    pub working_dir: Option<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`; the image's if absent.
    pub user: Option<String>,
    /// Over the group that `user` gives.
    pub run_as_group: Option<u32>,
    /// Refuses user id 0.
    pub run_as_non_root: bool,
    /// Supplementary groups, added to those of /etc/group.
    pub groups: Vec<u32>,
    /// `NET_ADMIN`, `CAP_NET_ADMIN`, `ALL`.
    pub add_capabilities: Vec<String>,
    /// The same.
    pub drop_capabilities: Vec<String>,
    /// The root file system cannot be written.
    pub read_only_root: bool,
    /// Leaves no_new_privs off.
    pub allow_privilege_escalation: bool,
    /// Standard streams are a terminal.
    pub tty: bool,
    /// For the environment variable HOSTNAME.
    pub hostname: String,
    /// Bind mounts, in order.
    pub mounts: Vec<BindMount>,
    /// Open files, soft and hard; the kernel's usual 1024:524288 if absent.
    pub open_files: Option<(u64, u64)>,
}

/// A file or directory of the agent's that is seen in the container.
#[derive(Debug, Clone)]
pub struct BindMount {
    /// Path on the node.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Cannot be written there.
    pub read_only: bool,
}

/// Paths that tell too much about the host, hidden in every container (docker's list).
pub const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that cannot be written in any container (docker's list).
pub const READ_ONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Builds the specification of one container. Pure: names of users are looked up in `files`.
///
/// # Errors
/// `Error::Invalid`: no command, an unknown user, group or capability, root where it must not be.
pub fn container_spec(request: &ContainerRequest, files: &UserFiles) -> Result<Spec> {
    let config = request.image.config().clone().unwrap_or_default();
    let args = command_line(request, config.entrypoint().as_deref(), config.cmd().as_deref());
    if args.is_empty() {
        return Err(Error::Invalid("no command: neither the container nor its image names one".into()));
    }
    let wanted = request.user.as_deref().or(config.user().as_deref()).unwrap_or_default();
    let mut user = resolve_user(wanted, files)?;
    if let Some(gid) = request.run_as_group {
        user.gid = gid;
    }
    if request.run_as_non_root && user.uid == 0 {
        return Err(Error::Invalid(format!(
            "runAsNonRoot is set, but the container would run as root (user {wanted:?}); set runAsUser or use an image with USER"
        )));
    }
    let mut groups = user.groups.clone();
    groups.extend(request.groups.iter().filter(|g| !user.groups.contains(g)));
    let cwd = [request.working_dir.as_deref(), config.working_dir().as_deref()]
        .into_iter()
        .flatten()
        .find(|dir| !dir.is_empty())
        .unwrap_or("/");
    let capabilities = capabilities::container_capabilities(&request.add_capabilities, &request.drop_capabilities)?;
    let mask = capabilities::mask(&capabilities);
    let sets = capabilities::sets(capabilities, user.uid)?;
    let (soft, hard) = request.open_files.unwrap_or((1024, 524_288));
    let nofile = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(soft)
        .hard(hard)
        .build()
        .map_err(built)?;
    let process = ProcessBuilder::default()
        .terminal(request.tty)
        .user(
            UserBuilder::default()
                .uid(user.uid)
                .gid(user.gid)
                .additional_gids(groups)
                .umask(0o022_u32)
                .build()
                .map_err(built)?,
        )
        .args(args)
        .env(environment(request, config.env().as_deref().unwrap_or_default(), &user))
        .cwd(cwd)
        .capabilities(sets)
        .rlimits(vec![nofile])
        .no_new_privileges(!request.allow_privilege_escalation)
        .build()
        .map_err(built)?;
    let owned = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    let linux = LinuxBuilder::default()
        .masked_paths(owned(MASKED_PATHS))
        .readonly_paths(owned(READ_ONLY_PATHS))
        .seccomp(crate::seccomp::default_profile(mask)?)
        .build()
        .map_err(built)?;
    let mut mounts = default_mounts()?;
    for bind in &request.mounts {
        let mode = if bind.read_only { "ro" } else { "rw" };
        mounts.push(mount(&bind.target, "bind", &bind.source, &["rbind", mode])?);
    }
    SpecBuilder::default()
        .version("1.2.0")
        .root(RootBuilder::default().path("rootfs").readonly(request.read_only_root).build().map_err(built)?)
        .hostname(request.hostname.clone())
        .process(process)
        .mounts(mounts)
        .linux(linux)
        .build()
        .map_err(built)
}

pub(crate) fn built(e: oci_spec::OciSpecError) -> Error {
    Error::Invalid(format!("building the specification: {e}"))
}

/// Docker's rules of ENTRYPOINT and CMD: a command replaces both, args replace CMD.
fn command_line(request: &ContainerRequest, entrypoint: Option<&[String]>, cmd: Option<&[String]>) -> Vec<String> {
    let (first, rest) = match (request.command.is_empty(), request.args.is_empty()) {
        (false, _) => (request.command.as_slice(), request.args.as_slice()),
        (true, false) => (entrypoint.unwrap_or_default(), request.args.as_slice()),
        (true, true) => (entrypoint.unwrap_or_default(), cmd.unwrap_or_default()),
    };
    first.iter().chain(rest).cloned().collect()
}

/// PATH, HOSTNAME, TERM, HOME by default; then the image's, then the request's: a later one replaces an earlier one.
fn environment(request: &ContainerRequest, image: &[String], user: &ResolvedUser) -> Vec<String> {
    let mut env: Vec<(String, String)> = vec![("PATH".into(), DEFAULT_PATH.into())];
    let mut set = |name: &str, value: &str| match env.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) => value.clone_into(old),
        None => env.push((name.to_owned(), value.to_owned())),
    };
    if !request.hostname.is_empty() {
        set("HOSTNAME", &request.hostname);
    }
    if request.tty {
        set("TERM", "xterm");
    }
    set("HOME", &user.home);
    for (name, value) in image.iter().map(|line| line.split_once('=').unwrap_or((line, ""))) {
        set(name, value);
    }
    for (name, value) in &request.env {
        set(name, value);
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn default_mounts() -> Result<Vec<Mount>> {
    let table: [(&str, &str, &str, &[&str]); 6] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    table.iter().map(|(target, kind, source, options)| mount(target.as_ref(), kind, source.as_ref(), options)).collect()
}

fn mount(target: &std::path::Path, kind: &str, source: &std::path::Path, options: &[&str]) -> Result<Mount> {
    MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(built)
}

#[cfg(test)]
#[path = "spec/tests.rs"]
mod tests;
