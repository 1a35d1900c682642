//! What copies between people and containers travel as: a tar of one path, made from a tree and made into a tree again.
//!
//! In: a [`Place`] (a root directory as a descriptor, and how paths below it are resolved) and a stream. Out: a stream or files.
//! Both ends use it: an agent with a container's root, `ctl` with a directory of its user.
//!
//! Not here: image layers (strata-layer), build contexts, compression, and who may copy what.
//!
//! Invariants: nothing outside of a place's root is ever opened, whatever links its tree has or is given meanwhile (openat2(2): this
//! is the class of CVE-2018-15664); a final component is followed only where the caller says so; only regular files are opened for
//! reading; no device is made; every stream is read and written in bounded pieces.

mod error;
mod pack;
mod place;
mod unpack;

pub use error::{ArchiveError, Result};
pub use pack::{PackOptions, pack};
pub use place::{Owners, Place};
pub use unpack::{Rename, UnpackOptions, unpack};

/// Bounds of copies.
pub mod limits {
    /// Bytes of a file that are held at once.
    pub const COPY_BYTES: usize = 128 << 10;
    /// How deep directories may be nested: one descriptor each is open while they are walked.
    pub const DEPTH_MAX: usize = 256;
    /// Files with several names that are remembered, so that their other names become links; more are written again.
    pub const LINKS_MAX: usize = 1 << 20;
    /// Bytes of a path.
    pub const PATH_BYTES_MAX: usize = 4096;
    /// How often a path is resolved again when its directories are moved at the same time.
    pub const RESOLVES_MAX: usize = 32;
    /// The highest id that a container has.
    pub const ID_MAX: u64 = 65_535;
    /// Who owns what belongs to nobody here.
    pub const NOBODY: u32 = 65_534;
}
