//! The files of cgroup file systems: where they are mounted, reading and writing.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Group, Mode, Tree, V1_CONTROLLERS};
use crate::error::{Error, Result};

/// The hierarchies in a mountinfo (proc_pid_mountinfo(5)) with the group `parent` in each.
pub(super) fn hierarchies(mountinfo: &str, parent: &str) -> Result<Group> {
    if parent.is_empty() || parent.starts_with('/') || parent.split('/').any(|p| matches!(p, "" | "." | "..")) {
        return Err(Error::Invalid(format!("the cgroup parent {parent:?} must be a path like strata/node-1")));
    }
    let mut v1: Vec<Tree> = Vec::new();
    let mut v2: Option<PathBuf> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        let (Some("/"), Some(point), Some(kind)) = (left.next(), left.next(), right.next()) else { continue };
        let options = right.nth(1).unwrap_or_default();
        match kind {
            "cgroup2" => v2 = Some(point.into()),
            "cgroup" => {
                let known =
                    |o: &str| V1_CONTROLLERS.contains(&o) && !v1.iter().any(|t| t.controllers.iter().any(|c| c == o));
                let controllers: Vec<String> = options.split(',').filter(|o| known(o)).map(str::to_owned).collect();
                if !controllers.is_empty() {
                    v1.push(Tree { controllers, dir: Path::new(point).join(parent) });
                }
            }
            _ => {}
        }
    }
    let unified = v2.filter(|root| {
        let have = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        v1.is_empty() || have.split_whitespace().any(|c| c == "memory")
    });
    match (unified, v1.is_empty()) {
        (Some(root), _) => {
            Ok(Group { mode: Mode::V2, trees: vec![Tree { controllers: Vec::new(), dir: root.join(parent) }] })
        }
        (None, false) => {
            let hybrid = mountinfo.contains(" - cgroup2 ");
            Ok(Group { mode: if hybrid { Mode::Hybrid } else { Mode::V1 }, trees: v1 })
        }
        (None, true) => Err(Error::Invalid("no cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup".into())),
    }
}

pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).map_err(Error::io(format!("writing {value:?} to {}", path.display())))
}

/// A file that holds one number.
pub(super) fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind `key` in a file of "key number" lines.
pub(super) fn read_keyed(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Names of the groups in a group.
pub(super) fn subdirectories(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}

/// The processes in a group, in this process's pid namespace (0 for those outside of it are left out).
pub(super) fn processes(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn v1_controllers_are_found_once() {
        let text = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    32 25 0:27 / /other/memory rw - cgroup cgroup rw,memory\n\
                    33 25 0:28 /inner /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                    34 25 0:29 / /sys/fs/cgroup/unified/none rw - cgroup2 cgroup2 rw\n";
        let group = hierarchies(text, "strata/n1").unwrap();
        assert_eq!(group.mode, Mode::Hybrid);
        let dirs: Vec<_> = group.trees.iter().map(|t| t.dir.to_str().unwrap()).collect();
        assert_eq!(dirs, ["/sys/fs/cgroup/cpu,cpuacct/strata/n1", "/sys/fs/cgroup/memory/strata/n1"]);
    }

    #[test]
    fn a_parent_stays_inside() {
        for parent in ["", "/", "/a", "a/../b", "a//b"] {
            assert!(hierarchies("", parent).is_err(), "{parent}");
        }
    }
}
