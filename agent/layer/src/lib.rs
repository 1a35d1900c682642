//! Tar streams to immutable layer files; mounts and writable layers
