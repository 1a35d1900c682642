//! Users and groups by name, from the container's own /etc/passwd and /etc/group.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Longest passwd or group file that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Most groups of one user (NGROUPS_MAX is 65,536; a message has to carry them).
const MAX_GROUPS: usize = 256;

/// What the root file system says of users; empty when it says nothing.
#[derive(Debug, Clone, Default)]
pub struct UserFiles {
    /// /etc/passwd.
    pub passwd: String,
    /// /etc/group.
    pub group: String,
}

impl UserFiles {
    /// Reads both beneath `root` (a detached mount will do): links never lead out of it, devices and pipes are not opened.
    ///
    /// # Errors
    /// The kernel's, other than that a file is absent; files above 4 MiB.
    pub fn read(root: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self { passwd: read_beneath(root, "etc/passwd")?, group: read_beneath(root, "etc/group")? })
    }
}

/// CVE class: /etc/passwd as a link to the host's, or a FIFO that blocks the agent.
fn read_beneath(root: BorrowedFd<'_>, path: &str) -> Result<String> {
    let failed = |e: std::io::Error| Error::io(format!("reading /{path} of the container"))(e);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(e) => return Err(failed(e.into())),
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
        return Err(Error::Invalid(format!(
            "/{path} of the container is no regular file of at most {MAX_FILE_BYTES} bytes"
        )));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A user inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups by /etc/group; none if a group was named.
    pub groups: Vec<u32>,
    /// Home directory; "/" if unknown.
    pub home: String,
}

/// Resolves `user`, `uid`, `user:group` or `uid:gid` as docker does; "" is root.
///
/// # Errors
/// `Error::Invalid` for names that are not there and ids above 65,535 (a pod's ids).
pub fn resolve_user(text: &str, files: &UserFiles) -> Result<ResolvedUser> {
    let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g).filter(|g| !g.is_empty())));
    let user = if user.is_empty() { "0" } else { user };
    let entry = files.passwd.lines().filter_map(passwd_entry).find(|e| e.name == user || e.uid.to_string() == user);
    let (uid, mut gid, name, home) = match (&entry, user.parse::<u32>()) {
        (Some(e), _) => (e.uid, e.gid, e.name, e.home),
        (None, Ok(uid)) => (uid, 0, "", "/"),
        (None, Err(_)) => {
            return Err(Error::Invalid(format!(
                "the user {user:?} is not in /etc/passwd of the image; use its number"
            )));
        }
    };
    let mut groups = Vec::new();
    match group {
        Some(group) => {
            let found =
                files.group.lines().filter_map(group_entry).find(|(n, id, _)| *n == group || id.to_string() == group);
            gid = match (found, group.parse()) {
                (Some((_, id, _)), _) | (None, Ok(id)) => id,
                (None, Err(_)) => {
                    return Err(Error::Invalid(format!(
                        "the group {group:?} is not in /etc/group of the image; use its number"
                    )));
                }
            };
        }
        None if !name.is_empty() => groups.extend(
            files
                .group
                .lines()
                .filter_map(group_entry)
                .filter(|(_, id, members)| *id != gid && members.split(',').any(|m| m == name))
                .map(|(_, id, _)| id)
                .take(MAX_GROUPS),
        ),
        None => {}
    }
    if let Some(id) = [uid, gid].iter().chain(&groups).find(|id| **id >= crate::zygote::IDS_PER_POD) {
        return Err(Error::Invalid(format!("the id {id} of user {text:?} is above 65535, the last id of a pod")));
    }
    Ok(ResolvedUser { uid, gid, groups, home: if home.is_empty() { "/".into() } else { home.to_owned() } })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// passwd(5): name:password:uid:gid:gecos:home:shell.
fn passwd_entry(line: &str) -> Option<PasswdEntry<'_>> {
    let mut fields = line.split(':');
    let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some(PasswdEntry { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: fields.nth(1).unwrap_or("") })
}

/// group(5): name:password:gid:members.
fn group_entry(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.trim_end().split(':');
    let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
    Some((name, gid.parse().ok()?, fields.next().unwrap_or("")))
}
