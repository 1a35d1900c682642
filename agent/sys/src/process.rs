//! Processes: clone3, execveat, pidfds, signals, descriptors across exec.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// New namespaces of a clone, as the bits of clone3's `flags` (clone(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// A new user namespace.
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// A new network namespace.
    pub const NET: Self = Self(libc::CLONE_NEWNET as u64);
    /// A new pid namespace: the child is its process 1.
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// A new mount namespace.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// A new namespace of System V IPC and POSIX message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// A new namespace of host and domain name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// No new namespace.
    pub const NONE: Self = Self(0);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which side of a clone the caller is on.
#[derive(Debug)]
pub enum Side {
    /// The new process. It must end in `execveat` or [`exit_now`].
    Child,
    /// The caller, with the child's pid (in the caller's pid namespace) and a pidfd.
    Parent(i32, OwnedFd),
}

/// clone3(2) as a fork with new namespaces and a pidfd (close-on-exec).
///
/// The child is a copy of the calling thread only, so a caller that has other threads is refused with EBUSY: their locks
/// (the allocator's among them) would stay held in the child for ever.
pub fn clone_process(namespaces: Namespaces) -> io::Result<Side> {
    if !is_single_threaded()? {
        return Err(Errno::BUSY.into());
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data for which all zeroes is valid ("feature absent").
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.0 | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: no CLONE_VM: the child gets its own copy of the address space, so it shares no memory with us. The process has
    // one thread (checked), so no lock is held by anyone else. args and pidfd live across the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        0 => Ok(Side::Child),
        1.. => {
            // SAFETY: the kernel wrote a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent(pid as i32, pidfd))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the process has exactly one thread: `unshare(CLONE_SIGHAND|CLONE_VM)`-like checks need no /proc (unshare(2):
/// CLONE_THREAD fails with EINVAL in a process with more than one thread and does nothing else otherwise).
fn is_single_threaded() -> io::Result<bool> {
    // SAFETY: takes an integer, touches no memory; for a single thread it is documented to have no effect.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        e => Err(e),
    }
}

/// unshare(2) of the mount namespace.
pub fn unshare_mounts() -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)
}

/// unshare(2) of the cgroup namespace: the caller's groups become its roots.
pub fn unshare_cgroups() -> io::Result<()> {
    unshare(libc::CLONE_NEWCGROUP)
}

/// unshare(2) of working directory and umask, so that a thread may enter a mount namespace alone.
pub fn unshare_directories() -> io::Result<()> {
    unshare(libc::CLONE_FS)
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: namespaces only; memory and the descriptor table stay shared as they were.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A null-terminated array of C strings, built before a clone so that the child need not allocate.
pub struct CStrArray<'a> {
    pointers: Vec<*const libc::c_char>,
    _strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> CStrArray<'a> {
    /// Collects the pointers of `strings`.
    pub fn new<S: AsRef<CStr>>(strings: &'a [S]) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ref().as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { pointers, _strings: std::marker::PhantomData }
    }
}

/// execveat(2) of `path` (absolute, or relative to the working directory). Returns only on failure.
pub fn execve(path: &CStr, args: &CStrArray<'_>, env: &CStrArray<'_>) -> io::Error {
    // SAFETY: path is NUL-terminated; both arrays are null-terminated and point to C strings that outlive the borrow.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// execveat(2) with AT_EMPTY_PATH: runs the program behind `program`. Returns only on failure.
pub fn execve_fd(program: BorrowedFd<'_>, args: &CStrArray<'_>, env: &CStrArray<'_>) -> io::Error {
    // SAFETY: as for execve; the descriptor is borrowed for the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// _exit(2): ends the process at once, without destructors or atexit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Puts every signal back to its default action and unblocks all (an ignored signal would stay ignored across execve).
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP | 32 | 33) {
            continue;
        }
        // SAFETY: SIG_DFL installs no code of ours.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: sigset_t is plain data; sigemptyset initialises it before use.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ignores SIGCHLD: the kernel reaps this process's children itself (sigaction(2), POSIX.1-2001).
pub fn ignore_children() -> io::Result<()> {
    // SAFETY: SIG_IGN installs no code of ours.
    if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// pidfd_send_signal(2) with any signal number, real-time ones included.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call; a null siginfo means "as kill(2)".
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The same to every process of the target's process group (PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9); on an older kernel to the target alone.
pub fn pidfd_signal_group(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    const PROCESS_GROUP: libc::c_uint = 1 << 2;
    let (fd, info) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the descriptor is borrowed for the call; a null siginfo means "as kill(2)".
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, PROCESS_GROUP) };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        e if e.raw_os_error() == Some(libc::EINVAL) => pidfd_signal(pidfd, signal),
        e => Err(e),
    }
}

/// dup2(2) onto the number `to`, which need not be open; the copy survives execve. With `from == to` clears close-on-exec.
pub fn place_fd(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    let from = from.as_raw_fd();
    // SAFETY: only between clone and execve, where nothing else owns the number `to` (documented use); no memory is touched.
    let result = unsafe { if from == to { libc::fcntl(from, libc::F_SETFD, 0) } else { libc::dup2(from, to) } };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes ownership of a descriptor inherited at a fixed number (a listening socket passed by the parent).
///
/// Fails with EBADF if nothing is open there. To be called once per number, at the start of main.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC on any number is memory-safe and yields a descriptor that only we own.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `copy` was just made for us.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    // SAFETY: the number was inherited, so nothing in this process owns it (documented use).
    unsafe { libc::close(number) };
    Ok(copy)
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC: marks every descriptor from `first` on to be closed by execve.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: only sets flags on descriptors; no descriptor is closed now, so no owner is surprised.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the terminal behind `fd` the controlling terminal of the caller's (new) session: TIOCSCTTY (tty_ioctl(4)).
pub fn take_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer argument.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Brings `lo` of the caller's network namespace up (netdevice(7), SIOCSIFFLAGS).
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives across the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets the calling process's hard and soft limit of a resource by its number (getrlimit(2), RLIMIT_*).
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: reads one rlimit64, which lives across the call; an unknown resource is EINVAL.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit64>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Replaces the supplementary groups (setgroups(2)) of a single-threaded process.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length come from one slice of u32, which is gid_t.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets real, effective and saved group, then user (setresgid(2), setresuid(2)) of a single-threaded process.
pub fn set_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: integers only; the raw calls change this thread, which is the only one (documented use).
    let result = unsafe {
        match libc::syscall(libc::SYS_setresgid, gid, gid, gid) {
            0 => libc::syscall(libc::SYS_setresuid, uid, uid, uid),
            e => e,
        }
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The size of a terminal, set on its master side (TIOCSWINSZ, tty_ioctl(4)).
pub fn set_terminal_size(fd: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives across the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_threaded_process_is_not_cloned() {
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(clone_process(Namespaces::NONE).is_err()));
        });
    }
}
