//! The five capability sets of a thread (capabilities(7)), as 64-bit masks.

use std::io;

/// Drops every capability from the bounding set that is not in `keep` (PR_CAPBSET_DROP), up to the last the kernel knows.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for number in 0..64_u32 {
        // SAFETY: prctl with integers; an unknown capability is EINVAL.
        let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) };
        if held < 0 {
            break; // beyond the last capability of this kernel
        }
        if held == 0 || keep >> number & 1 == 1 {
            continue;
        }
        // SAFETY: as above.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Keeps the permitted set across the coming change of the user id (PR_SET_KEEPCAPS).
pub fn keep_across_setuid() -> io::Result<()> {
    // SAFETY: prctl with integers.
    if unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets effective, permitted and inheritable set of the calling thread (capset(2), version 3).
pub fn set(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    let word = |shift: u32| Words {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let header = Header { version: 0x2008_0522, pid: 0 };
    let words = [word(0), word(32)];
    // SAFETY: header and the two words have the layout of _LINUX_CAPABILITY_VERSION_3 and live across the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the ambient set exactly `wanted`; these must be permitted and inheritable (PR_CAP_AMBIENT).
pub fn set_ambient(wanted: u64) -> io::Result<()> {
    // SAFETY: prctl with integers.
    if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for number in (0..64_u32).filter(|n| wanted >> n & 1 == 1) {
        // SAFETY: as above.
        if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number, 0, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The number of the last capability this kernel knows.
pub fn last() -> u32 {
    // SAFETY: prctl with integers; an unknown capability is EINVAL.
    (0..64_u32).take_while(|n| unsafe { libc::prctl(libc::PR_CAPBSET_READ, *n, 0, 0, 0) } >= 0).last().unwrap_or(0)
}
