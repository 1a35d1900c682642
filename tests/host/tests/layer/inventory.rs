//! Everything that can be seen of a directory tree, in a form that can be compared.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

/// By path: type, mode, owner, time, links, device, target, content, attributes.
pub type Inventory = BTreeMap<PathBuf, String>;

/// What is left out of a comparison.
#[derive(Clone, Copy, Default)]
pub struct Leave {
    /// Times and sizes of directories, which depend on how the tree was made.
    pub directory_times: bool,
    /// Which names share an inode, and link counts.
    pub links: bool,
    /// The root directory itself.
    pub root: bool,
}

pub fn take(root: &Path, leave: Leave) -> Inventory {
    let mut inventory = Inventory::new();
    let mut first_names = BTreeMap::new();
    walk(root, Path::new(""), leave, &mut inventory, &mut first_names);
    inventory
}

fn walk(root: &Path, at: &Path, leave: Leave, inventory: &mut Inventory, first: &mut BTreeMap<u64, PathBuf>) {
    let path = if at.as_os_str().is_empty() { root.to_owned() } else { root.join(at) };
    let about = std::fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let kind = about.file_type();
    let mut text = format!("{:o} {}:{}", about.mode(), about.uid(), about.gid());
    if !(kind.is_dir() && leave.directory_times) {
        write!(text, " {}.{:09}", about.mtime(), about.mtime_nsec()).unwrap();
    }
    if kind.is_file() {
        let mut hash = sha2::Sha256::new();
        std::io::copy(&mut File::open(&path).unwrap(), &mut Hash(&mut hash)).unwrap();
        write!(text, " {} bytes {:02x?}", about.size(), &hash.finalize()[..8]).unwrap();
    } else if kind.is_symlink() {
        write!(text, " -> {:?} {}", std::fs::read_link(&path).unwrap(), about.size()).unwrap();
    } else if kind.is_char_device() || kind.is_block_device() {
        write!(text, " device {:x}", about.rdev()).unwrap();
    }
    if !kind.is_dir() && !leave.links {
        let name = first.entry(about.ino()).or_insert_with(|| at.to_owned());
        write!(text, " links {} {name:?}", about.nlink()).unwrap();
    }
    for (name, value) in xattrs(&path) {
        write!(text, " {name}={value:02x?}").unwrap();
    }
    if !(leave.root && at.as_os_str().is_empty()) {
        inventory.insert(at.to_owned(), text);
    }
    if kind.is_dir() {
        let mut names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let unique = names.len();
        names.dedup();
        assert_eq!(names.len(), unique, "a name twice in {path:?}");
        for name in names {
            walk(root, &at.join(name), leave, inventory, first);
        }
    }
}

pub fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, &mut list).unwrap_or(0);
    let names = list[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let mut value = vec![0; 65_536];
    names
        .filter(|name| *name != b"trusted.overlay.opaque" && *name != b"trusted.overlay.origin")
        .map(|name| {
            let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
            (String::from_utf8_lossy(name).into_owned(), value[..len].to_vec())
        })
        .collect()
}

struct Hash<'a>(&'a mut sha2::Sha256);

impl std::io::Write for Hash<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Compares, showing at most some differences.
pub fn assert_same(ours: &Inventory, theirs: &Inventory) {
    let mut differences = Vec::new();
    for path in ours.keys().chain(theirs.keys()) {
        if ours.get(path) != theirs.get(path) {
            differences.push(format!("{path:?}\n  ours   {:?}\n  theirs {:?}", ours.get(path), theirs.get(path)));
        }
    }
    differences.dedup();
    let shown: Vec<_> = differences.iter().take(8).map(String::as_str).collect();
    assert!(
        differences.is_empty(),
        "{} differences in {} paths:\n{}",
        differences.len(),
        theirs.len(),
        shown.join("\n")
    );
}
