//! Safe wrappers over system calls that nix and rustix lack: the only crate with unsafe code.
//!
//! Not here: any decision. A function does one call (or one that makes no sense alone) and returns the kernel's error.
//! Invariants: every `unsafe` block says why it is sound; nothing here allocates between clone and execve.

#![allow(unsafe_code)]

pub mod caps;
pub mod loop_device;
pub mod mount;
pub mod packet;
pub mod process;
pub mod readonly;
pub mod seccomp;
pub mod writeback;
