//! Safe wrappers over system calls that nix and rustix lack: the only crate with unsafe code
