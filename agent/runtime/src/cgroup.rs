//! Limits, accounting and killing by control groups, on v1, v2 and hybrid hosts.
//!
//! Every agent has a parent group of its own; below it `POD/shim` and `POD/CONTAINER`. The agent writes limits and hands
//! out *join files*: the process that gets one writes "0" to it and is in (v1 `tasks`: 25 us; v2 `cgroup.procs`).
//! Invariant: everything here is idempotent, and leftovers are found by listing.

mod files;
mod freeze;
mod limits;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
pub use freeze::Frozen;

use files::{read_keyed, read_number, write};

/// How long a group may take to become empty after its processes were killed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The controllers of v1 that are used when they are there.
const V1_CONTROLLERS: &[&str] = &["memory", "pids", "cpu", "cpuacct", "freezer", "devices"];

/// Which interface the host's controllers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Version 1 only.
    V1,
    /// Version 2 only.
    V2,
    /// Controllers in version 1 beside an empty version 2 tree.
    Hybrid,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        })
    }
}

/// Amounts; 0 = no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Thousandths of a processor that are the container's due when all want more.
    pub cpu_request_millis: u64,
    /// Memory, page cache included; no swap beyond it.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What a group has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory now, page cache included.
    pub memory_bytes: u64,
    /// Of it what cannot be had back by dropping pages of files that were not used lately.
    pub working_set_bytes: u64,
    /// Processor time so far.
    pub cpu_ns: u64,
    /// Processes and threads now.
    pub pids: u64,
}

/// One hierarchy: its controllers (empty for v2) and the group's directory in it.
#[derive(Debug, Clone)]
struct Tree {
    controllers: Vec<String>,
    dir: PathBuf,
}

/// A group in every hierarchy that matters.
#[derive(Debug, Clone)]
struct Group {
    mode: Mode,
    trees: Vec<Tree>,
}

/// The agent's parent group.
#[derive(Debug, Clone)]
pub struct CgroupRoot(Group);

/// The group of one pod; holds no process itself.
#[derive(Debug, Clone)]
pub struct PodCgroup(Group);

/// The group of one container, or of a pod's shim.
#[derive(Debug, Clone)]
pub struct ContainerCgroup(Group);

impl CgroupRoot {
    /// Finds the mounted hierarchies and makes the group `parent` ("strata/node-1") in them.
    ///
    /// # Errors
    /// `Error::Invalid` if no controller is mounted or `parent` is no plain relative path.
    pub fn detect(parent: &str) -> Result<Self> {
        let text = fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("reading /proc/self/mountinfo"))?;
        let group = files::hierarchies(&text, parent)?;
        for tree in &group.trees {
            fs::create_dir_all(&tree.dir).map_err(Error::io(format!("making the cgroup {}", tree.dir.display())))?;
        }
        group.delegate(parent.split('/').count())?;
        Ok(Self(group))
    }

    /// Which interface the host has.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// Names of the pods that have a group, leftovers included.
    #[must_use]
    pub fn pods(&self) -> Vec<String> {
        self.0.children()
    }

    /// Ends what is left in it and removes it with all its pods.
    ///
    /// # Errors
    /// If processes do not end.
    pub fn remove(&self) -> Result<()> {
        self.0.remove()
    }
}

impl PodCgroup {
    /// Makes, or finds, the group of a pod (its uid).
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(root: &CgroupRoot, pod: &str) -> Result<Self> {
        let group = root.0.child(pod)?;
        group.make()?;
        group.delegate(1)?;
        Ok(Self(group))
    }

    /// The same without making anything, for clean-up.
    ///
    /// # Errors
    /// A name that is no plain one.
    pub fn existing(root: &CgroupRoot, pod: &str) -> Result<Self> {
        Ok(Self(root.0.child(pod)?))
    }

    /// The group of the pod's shim.
    ///
    /// # Errors
    /// The kernel's.
    pub fn shim(&self) -> Result<ContainerCgroup> {
        ContainerCgroup::create(self, "shim", &Limits::default())
    }

    /// Names of the groups in it.
    #[must_use]
    pub fn containers(&self) -> Vec<String> {
        self.0.children()
    }

    /// Ends every process of the pod.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill_all(&self) -> Result<()> {
        self.0.kill()
    }

    /// Ends what is left in it and removes it with everything below; nothing if it is not there.
    ///
    /// # Errors
    /// If processes do not end within 5 s.
    pub fn remove(&self) -> Result<()> {
        self.0.remove()
    }
}

impl ContainerCgroup {
    /// Makes, or finds, the group of a container and sets its limits.
    ///
    /// # Errors
    /// The kernel's, naming file and value.
    pub fn create(pod: &PodCgroup, container: &str, limits: &Limits) -> Result<Self> {
        let group = pod.0.child(container)?;
        group.make()?;
        limits::set(&group, limits)?;
        Ok(Self(group))
    }

    /// The same without making or setting anything.
    ///
    /// # Errors
    /// A name that is no plain one.
    pub fn existing(pod: &PodCgroup, container: &str) -> Result<Self> {
        Ok(Self(pod.0.child(container)?))
    }

    /// Files to which a process writes "0" to be in the group (for [`crate::StartRequest::cgroups`]).
    ///
    /// # Errors
    /// The kernel's.
    pub fn join_fds(&self) -> Result<Vec<OwnedFd>> {
        let file = |tree: &Tree| {
            let name = if tree.controllers.is_empty() { "cgroup.procs" } else { "tasks" };
            let path = tree.dir.join(name);
            let file = OpenOptions::new().write(true).open(&path);
            file.map(OwnedFd::from).map_err(Error::io(format!("opening {}", path.display())))
        };
        self.0.trees.iter().map(file).collect()
    }

    /// How many of its processes the kernel has killed for want of memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let file = if self.0.mode == Mode::V2 { "memory.events" } else { "memory.oom_control" };
        self.0.dir("memory").and_then(|dir| read_keyed(&dir.join(file), "oom_kill")).unwrap_or(0)
    }

    /// What it uses; a figure that cannot be read is 0.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let number = |controller: &str, file: &str| self.0.dir(controller).and_then(|d| read_number(&d.join(file)));
        let v2 = self.0.mode == Mode::V2;
        let cpu_ns = if v2 {
            self.0.dir("cpu").and_then(|d| read_keyed(&d.join("cpu.stat"), "usage_usec")).map(|us| us * 1000)
        } else {
            number("cpuacct", "cpuacct.usage")
        };
        let memory_bytes = number("memory", if v2 { "memory.current" } else { "memory.usage_in_bytes" }).unwrap_or(0);
        let inactive = if v2 { "inactive_file" } else { "total_inactive_file" };
        let inactive = self.0.dir("memory").and_then(|d| read_keyed(&d.join("memory.stat"), inactive)).unwrap_or(0);
        Usage {
            memory_bytes,
            working_set_bytes: memory_bytes.saturating_sub(inactive),
            cpu_ns: cpu_ns.unwrap_or(0),
            pids: number("pids", "pids.current").unwrap_or(0),
        }
    }

    /// Stops every process in it from running until the answer is dropped. Blocks until they have stopped, or the time is up.
    ///
    /// # Errors
    /// The kernel's, or [`Error::Timeout`]; then they run.
    pub fn freeze(&self) -> Result<Frozen> {
        let frozen = Frozen(self.0.clone());
        self.0.freeze()?;
        Ok(frozen)
    }

    /// Lets what an earlier process has frozen run again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn thaw(&self) -> Result<()> {
        self.0.thaw()
    }

    /// Ends every process in it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill_all(&self) -> Result<()> {
        self.0.kill()
    }

    /// Ends what is left in it and removes it; nothing if it is not there.
    ///
    /// # Errors
    /// If processes do not end within 5 s.
    pub fn remove(&self) -> Result<()> {
        self.0.remove()
    }
}

impl Group {
    fn dir(&self, controller: &str) -> Option<&Path> {
        let has = |t: &&Tree| t.controllers.is_empty() || t.controllers.iter().any(|c| c == controller);
        self.trees.iter().find(has).map(|t| t.dir.as_path())
    }

    fn child(&self, name: &str) -> Result<Self> {
        if name.is_empty() || name == "." || name == ".." || name.contains('/') || name.len() > 200 {
            return Err(Error::Invalid(format!("{name:?} cannot name a cgroup")));
        }
        let tree = |t: &Tree| Tree { controllers: t.controllers.clone(), dir: t.dir.join(name) };
        Ok(Self { mode: self.mode, trees: self.trees.iter().map(tree).collect() })
    }

    fn children(&self) -> Vec<String> {
        let mut names: Vec<String> = self.trees.iter().flat_map(|t| files::subdirectories(&t.dir)).collect();
        names.sort();
        names.dedup();
        names
    }

    fn make(&self) -> Result<()> {
        for tree in &self.trees {
            match fs::create_dir(&tree.dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io(format!("making the cgroup {}", tree.dir.display()))(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// v2: lets the group and `levels - 1` of its ancestors hand controllers down.
    fn delegate(&self, levels: usize) -> Result<()> {
        if self.mode != Mode::V2 {
            return Ok(());
        }
        for tree in &self.trees {
            let mut dirs: Vec<&Path> = tree.dir.ancestors().take(levels + 1).collect();
            dirs.reverse();
            for dir in dirs {
                let have = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
                for controller in ["memory", "pids", "cpu"].iter().filter(|c| have.split_whitespace().any(|h| h == **c))
                {
                    write(&dir.join("cgroup.subtree_control"), &format!("+{controller}"))?;
                }
            }
        }
        Ok(())
    }

    /// Kills all processes below, deepest groups included, until none is left to see.
    fn kill(&self) -> Result<()> {
        if self.mode == Mode::V2 {
            for tree in self.trees.iter().filter(|t| t.dir.exists()) {
                write(&tree.dir.join("cgroup.kill"), "1")?;
            }
            return Ok(());
        }
        for child in self.children() {
            self.child(&child)?.kill()?;
        }
        // A frozen group cannot fork while it is killed; it has to thaw to die.
        let freezer = self.dir("freezer").map(|d| d.join("freezer.state")).filter(|f| f.exists());
        if let Some(state) = &freezer {
            write(state, "FROZEN")?;
        }
        for tree in &self.trees {
            for pid in files::processes(&tree.dir) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
                }
            }
        }
        freezer.map_or(Ok(()), |state| write(&state, "THAWED"))
    }

    fn remove(&self) -> Result<()> {
        for child in self.children() {
            self.child(&child)?.remove()?;
        }
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        for tree in &self.trees {
            let mut pause = Duration::from_micros(200);
            loop {
                match fs::remove_dir(&tree.dir) {
                    Ok(()) => break,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                    Err(e) if Instant::now() >= deadline => {
                        return Err(Error::io(format!("removing the cgroup {}", tree.dir.display()))(e));
                    }
                    Err(_) => self.kill()?,
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}
