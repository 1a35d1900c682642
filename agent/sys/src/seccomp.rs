//! Installing a seccomp filter (seccomp(2)).

use std::io;

/// Length in bytes of one BPF instruction (struct sock_filter).
pub const INSTRUCTION_BYTES: usize = 8;

/// Most instructions the kernel takes (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Installs `program` (an array of struct sock_filter in native byte order) for the calling thread and its descendants.
///
/// Needs no_new_privs or CAP_SYS_ADMIN in the user namespace. EINVAL for a length that is no multiple of 8.
/// The program must be aligned for u32 (a `Vec<u64>`'s bytes are).
pub fn install(program: &[u64]) -> io::Result<()> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: filter points to `len` instructions of 8 bytes, aligned to 8; the kernel copies and verifies them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The bytes of a BPF program as words of one instruction each. None if the length is no multiple of 8 or too long.
pub fn words(bytes: &[u8]) -> Option<Vec<u64>> {
    let whole = bytes.len().is_multiple_of(INSTRUCTION_BYTES) && bytes.len() <= MAX_INSTRUCTIONS * INSTRUCTION_BYTES;
    let word = |chunk: &[u8]| chunk.try_into().map(u64::from_ne_bytes).unwrap_or(0);
    whole.then(|| bytes.chunks_exact(INSTRUCTION_BYTES).map(word).collect())
}
