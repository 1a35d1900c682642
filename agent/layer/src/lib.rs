//! strata-layer: tar streams become immutable layer files; layer files become mounts; mounts and a writable directory become a
//! container's root.
//!
//! A layer is one file, `STATE/layers/<algorithm>-<hex of the diff ID>`: `[4 KiB header | the tar verbatim | EROFS metadata]`. The tar
//! in it hashes to the diff ID at any time; what follows is an index that every node builds itself, in one pass while the tar
//! arrives. Layers are mounted once per mount namespace, read-only, at `STATE/mnt/<file name>`.
//!
//! Invariants
//! - Nothing has a layer's name that was not hashed, indexed and synced before.
//! - No byte of foreign EROFS metadata is ever mounted: only the tar comes from outside.
//! - The same tar gives the same file, byte for byte. Memory is bounded by [`limits`], not by the size of files.
//! - Ids on disk are plain; containers see them through id-mapped mounts.
//!
//! Not here: compression, registries, blobs (strata-image); which layers may go (the caller's garbage-collection plan); async: all
//! calls block, so callers on an async runtime use its blocking threads.
//!
//! In: tar bytes, diff IDs, a user namespace. Out: layer files, mounts as descriptors, tar bytes for peers.

pub mod archive;
pub mod bind;
mod directories;
mod erofs;
mod error;
mod hash;
mod index;
pub mod limits;
pub mod memory;
mod mount;
mod overlay;
mod reader;
mod seal;
mod store;
mod tar;
mod tree;
mod verify;
mod writable;
mod writer;

pub use error::{LayerError, Result};
pub use mount::MountMode;
pub use reader::TarReader;
pub use seal::SealOptions;
pub use store::{Hold, LayerStore};
pub use writable::{RootAttributes, discard_writable, prepare_writable, remove_tree};
pub use writer::{LayerWriter, Published};
