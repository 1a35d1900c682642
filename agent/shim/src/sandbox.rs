//! A sandbox: a pod's user, network, pid, mount, ipc and uts namespaces, its /dev and /sys, and the shim as process 1.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::process::{DumpableBehavior, pivot_root, set_dumpable_behavior, setsid};
use strata_sys::packet;
use strata_sys::process::{
    CStrArray, Namespaces, Side, clone_process, close_on_exec_from, execve_fd, exit_now, loopback_up, pidfd_signal,
    place_fd, reset_signals, set_groups, set_ids,
};

use crate::outcome::{self, At, Failed, Outcome};
use crate::rootfs::{bind_node, new_mount};
use crate::wire::{self, Step};

/// Where the shim finds its listening socket.
pub const LISTENER: i32 = 3;
/// The sandbox's directory on which a container's root is attached.
pub const ROOT_POINT: &std::ffi::CStr = c"/root";
/// An empty directory that hides others.
pub const EMPTY: &std::ffi::CStr = c"/empty";
/// Device nodes bound from the host.
const NODES: &[(&std::ffi::CStr, &std::ffi::CStr)] = &[
    (c"/dev/null", c"dev/null"),
    (c"/dev/zero", c"dev/zero"),
    (c"/dev/full", c"dev/full"),
    (c"/dev/random", c"dev/random"),
    (c"/dev/urandom", c"dev/urandom"),
    (c"/dev/tty", c"dev/tty"),
];
/// Set in every sandbox: ping without NET_RAW (all ids of the pod), and low ports without a capability.
const SYSCTLS: &[(&str, &str)] =
    &[("net.ipv4.ping_group_range", "0 65535"), ("net.ipv4.ip_unprivileged_port_start", "0")];

/// A new sandbox.
pub struct Made {
    pidfd: OwnedFd,
    user: OwnedFd,
    net: OwnedFd,
}

impl Made {
    /// In the order of the protocol.
    pub fn into_fds(self) -> Vec<OwnedFd> {
        vec![self.pidfd, self.user, self.net]
    }
}

/// What the child needs, made before it.
struct Prepared {
    hostname: Vec<u8>,
    sysctls: Vec<(CString, Vec<u8>)>,
    listener: OwnedFd,
    program: OwnedFd,
    cgroups: Vec<OwnedFd>,
}

/// Makes a sandbox. On failure: the step, and what it was about.
pub fn create(wanted: &wire::CreateSandbox, fds: Vec<OwnedFd>) -> Result<Made, (Failed, String)> {
    let prepared = prepare(wanted, fds)?;
    let (ours, theirs) = packet::pair().at(Step::Request).map_err(|f| (f, "a socket pair".into()))?;
    let namespaces = Namespaces::USER
        .with(Namespaces::NET)
        .with(Namespaces::PID)
        .with(Namespaces::MOUNT)
        .with(Namespaces::IPC)
        .with(Namespaces::UTS);
    let side = clone_process(namespaces).at(Step::Namespace).map_err(|f| (f, "of a sandbox".into()))?;
    let (pid, pidfd) = match side {
        Side::Child => {
            drop(ours);
            let Err(failed) = run_child(&prepared, &theirs);
            outcome::report(theirs.as_fd(), failed);
            exit_now(1);
        }
        Side::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(theirs);
    let finish = || -> Result<Made, (Failed, String)> {
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{pid}/{map}"), format!("0 {} {}", wanted.id_base, wanted.id_count))
                .at(Step::Idmap)
                .map_err(|f| (f, format!("{} of 0..{} to {}", map, wanted.id_count, wanted.id_base)))?;
        }
        let namespace = |name: &str| {
            let file = File::open(format!("/proc/{pid}/ns/{name}")).at(Step::Namespace);
            file.map(OwnedFd::from).map_err(|f| (f, name.to_owned()))
        };
        let (user, net) = (namespace("user")?, namespace("net")?);
        packet::send(ours.as_fd(), b"go", &[], true).at(Step::Clone).map_err(|f| (f, String::new()))?;
        outcome::wait(&ours).map_err(|f| {
            let about = match f.step {
                Step::Sysctl => {
                    prepared.sysctls.get(usize::from(f.index)).map(|(p, _)| p.to_string_lossy().into_owned())
                }
                Step::Execute => Some("the shim".into()),
                _ => Some("of the sandbox".into()),
            };
            (f, about.unwrap_or_default())
        })?;
        Ok(Made { pidfd: pidfd.try_clone().at(Step::Clone).map_err(|f| (f, String::new()))?, user, net })
    };
    let made = finish();
    if made.is_err() {
        pidfd_signal(pidfd.as_fd(), 9).ok();
    }
    made
}

fn prepare(wanted: &wire::CreateSandbox, fds: Vec<OwnedFd>) -> Result<Prepared, (Failed, String)> {
    let refuse = |why: &str| (Failed { step: Step::Request, errno: 22, index: 0 }, why.to_owned());
    let mut fds = fds.into_iter();
    let (Some(listener), Some(program)) = (fds.next(), fds.next()) else {
        return Err(refuse("a socket and a program are needed"));
    };
    if wanted.id_base == 0 || wanted.id_count == 0 || wanted.id_base.checked_add(wanted.id_count).is_none() {
        return Err(refuse("the range of ids must neither hold the host's root nor end above 2^32"));
    }
    if wanted.hostname.len() > 64 {
        return Err(refuse("a host name has at most 64 bytes"));
    }
    let asked = wanted.sysctls.iter().map(|s| (s.name.as_str(), s.value.as_str()));
    let mut sysctls = Vec::new();
    for (name, value) in SYSCTLS.iter().copied().chain(asked) {
        if !is_namespaced(name) {
            return Err(refuse(&format!("the sysctl {name} is not of the pod's own namespaces")));
        }
        let path =
            CString::new(format!("/proc/sys/{}", name.replace('.', "/"))).map_err(|_| refuse("a sysctl with NUL"))?;
        sysctls.push((path, value.as_bytes().to_vec()));
    }
    Ok(Prepared { hostname: wanted.hostname.clone().into_bytes(), sysctls, listener, program, cgroups: fds.collect() })
}

/// Kubernetes' rule: net.*, and the System V and POSIX message queue settings.
fn is_namespaced(name: &str) -> bool {
    let plain =
        name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) && !name.contains("..");
    let prefixes = ["net.", "kernel.shm", "kernel.msg", "fs.mqueue."];
    plain && (name == "kernel.sem" || prefixes.iter().any(|p| name.starts_with(p)))
}

fn run_child(prepared: &Prepared, socket: &OwnedFd) -> Outcome<std::convert::Infallible> {
    // Wait for the id maps.
    let mut word = [0; 8];
    if packet::receive(socket.as_fd(), &mut word, &mut Vec::new(), true).at(Step::Idmap)?.is_none() {
        exit_now(1);
    }
    for cgroup in &prepared.cgroups {
        rustix::io::write(cgroup, b"0").at(Step::JoinCgroup)?;
    }
    set_groups(&[]).at(Step::Identity)?;
    set_ids(0, 0).at(Step::Identity)?;
    // Our own /proc/self belongs to the host's root until then.
    set_dumpable_behavior(DumpableBehavior::Dumpable).at(Step::Identity)?;
    setsid().at(Step::Identity)?;
    make_root()?;
    rustix::system::sethostname(&prepared.hostname).at(Step::Namespace)?;
    for (index, (path, value)) in prepared.sysctls.iter().enumerate() {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(CWD, path.as_c_str(), flags, Mode::empty()).at_index(Step::Sysctl, index)?;
        rustix::io::write(&file, value).at_index(Step::Sysctl, index)?;
    }
    loopback_up().at(Step::Namespace)?;
    reset_signals().at(Step::Execute)?;
    // The listener's number may be taken by another of ours: the socket is at most moved, the program's copy is not.
    let program = rustix::io::fcntl_dupfd_cloexec(&prepared.program, LISTENER + 1).at(Step::Execute)?;
    let status = rustix::io::fcntl_dupfd_cloexec(socket, LISTENER + 1).at(Step::Execute)?;
    place_fd(prepared.listener.as_fd(), LISTENER).at(Step::Execute)?;
    close_on_exec_from(LISTENER + 1).at(Step::Execute)?;
    let (args, env) = ([c"strata-shim", c"pod"], [c"PATH=/"]);
    let error = execve_fd(program.as_fd(), &CStrArray::new(&args), &CStrArray::new(&env));
    let failed = Failed { step: Step::Execute, errno: error.raw_os_error().unwrap_or(0), index: 0 };
    outcome::report(status.as_fd(), failed);
    exit_now(1)
}

/// A tmpfs with proc, sys, dev, the point for container roots and an empty directory; then the host is let go of.
fn make_root() -> Outcome {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(Step::Pivot)?;
    let root = new_tmpfs(c"mode=0755").at(Step::AttachRoot)?;
    let nosuid_noexec =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    // Any directory that every host has, and that can be passed by anybody, will do as a place.
    attach(root.as_fd(), CWD, c"/proc").at(Step::AttachRoot)?;
    for name in [c"proc", c"sys", c"dev", c"root", c"empty"] {
        mkdirat(&root, name, Mode::from_raw_mode(0o755)).at(Step::AttachRoot)?;
    }
    for (index, (kind, target)) in [(c"proc", c"proc"), (c"sysfs", c"sys")].into_iter().enumerate() {
        let mount = new_mount(kind, &[], nosuid_noexec).at_index(Step::Mount, index)?;
        attach(mount.as_fd(), root.as_fd(), target).at_index(Step::Mount, index)?;
    }
    for (index, (node, target)) in NODES.iter().enumerate() {
        bind_node(node, root.as_fd(), target).at_index(Step::Device, index)?;
    }
    rustix::process::fchdir(&root).at(Step::Pivot)?;
    pivot_root(c".", c".").at(Step::Pivot)?;
    unmount(c".", UnmountFlags::DETACH).at(Step::Pivot)?;
    rustix::process::chdir(c"/").at(Step::Pivot)
}

fn new_tmpfs(mode: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    let fs = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let value = mode.to_bytes().strip_prefix(b"mode=").unwrap_or(b"0755");
    fsconfig_set_string(&fs, c"mode", value)?;
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID)
}

fn attach(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, target: &std::ffi::CStr) -> rustix::io::Result<()> {
    move_mount(mount, c"", dir, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::is_namespaced;

    #[test]
    fn only_sysctls_of_the_pods_own_namespaces() {
        for good in ["net.ipv4.ip_forward", "kernel.sem", "kernel.shmmax", "fs.mqueue.msg_max"] {
            assert!(is_namespaced(good), "{good}");
        }
        for bad in ["kernel.core_pattern", "vm.swappiness", "net/../kernel", "net...kernel", "fs.file-max", ""] {
            assert!(!is_namespaced(bad), "{bad}");
        }
    }
}
