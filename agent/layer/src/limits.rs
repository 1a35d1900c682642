//! The bounds of what one layer may hold. A tar beyond them is refused with an error that names the limit.

/// The longest path of an entry and the longest hard-link target, in bytes (`PATH_MAX`).
pub const MAX_PATH_BYTES: usize = 4096;
/// The longest single name in a path, in bytes (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;
/// The longest symbolic-link target, in bytes (`PATH_MAX` less the closing NUL).
pub const MAX_SYMLINK_BYTES: usize = 4095;
/// The most symbolic links that are followed inside the layer for one path (as path_resolution(7)).
pub const MAX_SYMLINK_HOPS: u32 = 40;
/// The largest PAX header or GNU long name of one entry, in bytes.
pub const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// The largest value of one extended attribute, in bytes (16 bits on disk).
pub const MAX_XATTR_VALUE_BYTES: usize = 65_535;
/// The longest name of an extended attribute, in bytes (`XATTR_NAME_MAX`).
pub const MAX_XATTR_NAME_BYTES: usize = 255;
/// The most bytes of extended attributes on one file as they lie on disk (16-bit count of 4-byte units).
pub const MAX_XATTR_TOTAL_BYTES: usize = 128 * 1024;
/// The most entries of one layer, ignored and replaced ones included.
pub const MAX_ENTRIES: usize = 2_000_000;
/// The most memory that names, inodes, link targets, attributes and sparse maps of one layer may take, in bytes (counted generously).
pub const MAX_METADATA_BYTES: usize = 512 << 20;
/// The most data regions of one sparse file.
pub const MAX_SPARSE_REGIONS: usize = 1 << 20;
/// The most continuation blocks of an old GNU sparse header, and the most blocks of a PAX 1.0 sparse map.
pub const MAX_SPARSE_MAP_BLOCKS: usize = 128 * 1024;
/// The largest logical size of one file, in bytes (16 TiB less one block, ext4's limit).
pub const MAX_FILE_BYTES: u64 = (16 << 40) - 4096;
/// The largest layer file, in bytes: 32-bit block numbers of 512 bytes.
pub const MAX_LAYER_FILE_BYTES: u64 = 512 * 0xffff_fffe;
/// The most bytes copied behind the tar because they cannot be used where they lie in it.
pub const MAX_COPIED_BYTES: u64 = 64 << 30;
/// The most entries of one sparse file's block map (4 bytes each) before bigger chunks are taken and the data copied.
pub const MAX_CHUNK_MAP_ENTRIES: u64 = 1 << 20;
/// The most layers of one image (overlayfs refuses more than 500).
pub const MAX_LAYERS: usize = 500;
