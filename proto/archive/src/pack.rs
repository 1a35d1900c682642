//! A path becomes a tar.

use crate::{
    error::{ArchiveError, Result, shown},
    limits::{COPY_BYTES, DEPTH_MAX, LINKS_MAX, PATH_BYTES_MAX},
    place::{Owners, Place, cannot_open, split_last},
};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, Stat, fstat, fstatfs, major, minor, openat, readlinkat},
    io::Errno,
};
use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};
use tar::{EntryType, Header};

/// Magic numbers (statfs(2)) of file systems that the kernel makes up: what is mounted so below a copied directory stays empty.
const MADE_UP: [u64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0xcafe_4a11,
    0x7363_6673,
];

/// How a path is packed.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Whose the files are in the archive.
    pub owners: Owners,
    /// What the path is called in the archive, instead of its last name; "" or "." for a directory whose content is meant.
    pub name: Option<Vec<u8>>,
}

/// Writes a tar of `path` below a place. Its entries are named from the path's last name on; of a path that ends in `/.`, and of the root,
/// from `.` on. Gives the number of entries.
///
/// # Errors
/// [`ArchiveError::NotFound`] and others; what was written until then is not a whole archive.
pub fn pack(place: &Place<'_>, path: &[u8], options: PackOptions, out: impl Write) -> Result<u64> {
    let mut packer = Packer { out, links: HashMap::new(), owners: options.owners, entries: 0 };
    let (opened, name) = match split_last(path) {
        Some((parent, name)) => {
            let parent = place.open_dir(parent).map_err(cannot_open(parent))?;
            (openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()), name.to_vec())
        }
        // `x/` means the directory x (also behind a link), with its name; `x/.` what is in it.
        None => (place.open_dir(path), directory_name(path)),
    };
    let opened = opened.map_err(cannot_open(path))?;
    let name = match options.name {
        Some(name) if name.is_empty() => b".".to_vec(),
        Some(name) => name,
        None => name,
    };
    let about = fstat(&opened).map_err(|e| ArchiveError::io("inspecting", path, e))?;
    packer.node(&opened, &about, &name, 0)?;
    // The end of an archive: two blocks of zeros.
    packer.write(&[0; 1024])?;
    packer.out.flush().map_err(|source| ArchiveError::Stream { doing: "writing", source })?;
    Ok(packer.entries)
}

fn directory_name(path: &[u8]) -> Vec<u8> {
    let trimmed: &[u8] = match path.iter().rposition(|b| *b != b'/') {
        Some(end) => &path[..=end],
        None => b"",
    };
    split_last(trimmed).map_or(b".".to_vec(), |(_, name)| name.to_vec())
}

struct Packer<W> {
    out: W,
    /// The first name of each file that has several: by device and inode number.
    links: HashMap<(u64, u64), Vec<u8>>,
    owners: Owners,
    entries: u64,
}

impl<W: Write> Packer<W> {
    /// Writes what is open here as `path` and, of a directory, all that is in it.
    fn node(&mut self, node: &OwnedFd, about: &Stat, path: &[u8], depth: usize) -> Result<()> {
        if path.len() > PATH_BYTES_MAX {
            return Err(ArchiveError::Limit { path: shown(path), why: "its path is longer than 4096 bytes" });
        }
        let kind = FileType::from_raw_mode(about.st_mode);
        if kind != FileType::Directory && about.st_nlink > 1 {
            let id = (about.st_dev, about.st_ino);
            if let Some(first) = self.links.get(&id).cloned() {
                return self.header(path, &first, about, EntryType::Link, 0);
            }
            if self.links.len() < LINKS_MAX {
                self.links.insert(id, path.to_vec());
            }
        }
        match kind {
            FileType::Directory => {
                let mut named = path.to_vec();
                named.push(b'/');
                self.header(&named, b"", about, EntryType::Directory, 0)?;
                self.children(node, about, path, depth)
            }
            FileType::RegularFile => self.file(node, about, path),
            FileType::Symlink => {
                let target = readlinkat(node, "", Vec::new()).map_err(|e| ArchiveError::io("reading", path, e))?;
                self.header(path, target.to_bytes(), about, EntryType::Symlink, 0)
            }
            FileType::Fifo => self.header(path, b"", about, EntryType::Fifo, 0),
            FileType::CharacterDevice => self.header(path, b"", about, EntryType::Char, 0),
            FileType::BlockDevice => self.header(path, b"", about, EntryType::Block, 0),
            // A socket is of no use without who listens; tar has no kind for it.
            _ => Ok(()),
        }
    }

    fn children(&mut self, node: &OwnedFd, above: &Stat, path: &[u8], depth: usize) -> Result<()> {
        if depth >= DEPTH_MAX {
            return Err(ArchiveError::Limit { path: shown(path), why: "directories are nested more than 256 deep" });
        }
        let fail = |doing| move |e| ArchiveError::io(doing, path, e);
        if depth > 0 && fstatfs(node).is_ok_and(|fs| MADE_UP.contains(&(fs.f_type as u64 & 0xffff_ffff))) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let listed = openat(node, ".", flags, Mode::empty()).map_err(fail("opening"))?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&listed).map_err(fail("listing"))? {
            let entry = entry.map_err(fail("listing"))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable();
        for name in names {
            let below = [path, &b"/"[..], name.to_bytes()].concat();
            let opened = openat(&listed, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            let opened = match opened {
                // It went meanwhile.
                Err(Errno::NOENT) => continue,
                opened => opened.map_err(|e| ArchiveError::io("opening", &below, e))?,
            };
            let about = fstat(&opened).map_err(|e| ArchiveError::io("inspecting", &below, e))?;
            let same = about.st_dev == above.st_dev && about.st_ino == above.st_ino;
            if !same {
                self.node(&opened, &about, &below, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Exactly as many bytes as the header says, whatever the file does meanwhile.
    fn file(&mut self, node: &OwnedFd, about: &Stat, path: &[u8]) -> Result<()> {
        let size = u64::try_from(about.st_size).unwrap_or(0);
        let mut file = File::from(reopen(node.as_fd()).map_err(|e| ArchiveError::io("opening", path, e))?);
        self.header(path, b"", about, EntryType::Regular, size)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = file.read(&mut buffer[..want]);
            let got = read.map_err(|source| ArchiveError::Io { doing: "reading", path: shown(path), source })?;
            if got == 0 {
                // It was cut off meanwhile: zeros, as GNU tar does.
                let zeros = &mut buffer[..want];
                zeros.fill(0);
                self.write(&buffer[..want])?;
                left -= want as u64;
                continue;
            }
            self.write(&buffer[..got])?;
            left -= got as u64;
        }
        self.pad(size)
    }

    fn header(&mut self, path: &[u8], link: &[u8], about: &Stat, kind: EntryType, size: u64) -> Result<()> {
        self.long_name(path, EntryType::GNULongName)?;
        self.long_name(link, EntryType::GNULongLink)?;
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(about.st_mode & 0o7777);
        let (uid, gid) = self.owners.outward(about.st_uid, about.st_gid);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(u64::try_from(about.st_mtime).unwrap_or(0));
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let cannot = |source| ArchiveError::Stream { doing: "writing", source };
            header.set_device_major(major(about.st_rdev)).map_err(cannot)?;
            header.set_device_minor(minor(about.st_rdev)).map_err(cannot)?;
        }
        let old = header.as_old_mut();
        copy_name(&mut old.name, path);
        copy_name(&mut old.linkname, link);
        header.set_cksum();
        self.entries += 1;
        self.write(header.as_bytes())
    }

    /// A name that has no room in a header comes before it, as GNU tar has it.
    fn long_name(&mut self, name: &[u8], kind: EntryType) -> Result<()> {
        if name.len() <= 100 {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(name.len() as u64 + 1);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        copy_name(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(name)?;
        self.write(&[0])?;
        self.pad(name.len() as u64 + 1)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = usize::try_from(size % 512).unwrap_or(0);
        if rest == 0 { Ok(()) } else { self.write(&[0; 512][rest..]) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|source| ArchiveError::Stream { doing: "writing", source })
    }
}

fn copy_name(field: &mut [u8; 100], name: &[u8]) {
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
}

/// Opens for reading what is known to be a regular file. Opening by name might meet a device or a pipe that took its place.
fn reopen(node: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", node.as_raw_fd());
    openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
}
