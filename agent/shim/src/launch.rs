//! A plan made ready before the clone: every string, path and list that the child walks without allocating.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use crate::wire;

/// One path of the container: relative to its root, with all directories above it.
pub struct Target {
    /// Without leading slash; "." for the root.
    pub path: CString,
    /// The directory that holds it.
    pub parent: CString,
    /// Its last part.
    pub name: CString,
    /// Every directory above it, outermost first.
    pub above: Vec<Target>,
}

impl Target {
    /// None for a path with NUL or "..".
    pub fn new(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        if parts.contains(&"..") {
            return None;
        }
        let above = (1..parts.len()).map(|n| Self::of(&parts[..n])).collect::<Option<Vec<_>>>()?;
        Some(Self { above, ..Self::of(&parts)? })
    }

    fn of(parts: &[&str]) -> Option<Self> {
        let join = |parts: &[&str]| CString::new(if parts.is_empty() { ".".to_owned() } else { parts.join("/") }).ok();
        let (name, parent) = parts.split_last().map_or((".", parts), |(name, parent)| (*name, parent));
        Some(Self { path: join(parts)?, parent: join(parent)?, name: CString::new(name).ok()?, above: Vec::new() })
    }
}

/// What is mounted.
pub enum Source {
    /// A new file system with its options; no value is a flag.
    New { kind: CString, options: Vec<(CString, Option<CString>)> },
    /// The passed mount of that index.
    Passed(usize),
}

/// One mount.
pub struct MountStep {
    pub target: Target,
    pub source: Source,
    pub attributes: u32,
}

/// The part of a plan that makes the file system.
pub struct Launch {
    pub root: OwnedFd,
    pub binds: Vec<OwnedFd>,
    pub mounts: Vec<MountStep>,
    pub devices: Vec<(CString, Target)>,
    pub links: Vec<(CString, Target)>,
    pub masked: Vec<CString>,
    pub read_only: Vec<CString>,
    pub read_only_root: bool,
    pub cwd: Target,
}

impl Launch {
    /// Translates the plan. The error says what cannot be.
    pub fn new(plan: &wire::Plan, root: OwnedFd, binds: Vec<OwnedFd>) -> Result<Self, String> {
        let mut passed = 0..binds.len();
        let mut mounts = Vec::with_capacity(plan.mounts.len());
        for mount in &plan.mounts {
            let source = if mount.r#type.is_empty() {
                Source::Passed(passed.next().ok_or_else(|| format!("no descriptor was passed for {}", mount.target))?)
            } else {
                let option = |o: &wire::Option| {
                    let value = if o.value.is_empty() { None } else { Some(text(&o.value)?) };
                    Ok((text(&o.key)?, value))
                };
                Source::New {
                    kind: text(&mount.r#type)?,
                    options: mount.options.iter().map(option).collect::<Result<_, String>>()?,
                }
            };
            let attributes = u32::try_from(mount.attributes).map_err(|_| format!("attributes of {}", mount.target))?;
            mounts.push(MountStep { target: target(&mount.target)?, source, attributes });
        }
        if passed.next().is_some() {
            return Err("more descriptors were passed than there are bind mounts".into());
        }
        let device = |d: &wire::Device| Ok((text(&d.path)?, target(&d.path)?));
        let link = |l: &wire::Link| Ok((text(&l.target)?, target(&l.path)?));
        let relative = |p: &String| Ok(target(p)?.path);
        Ok(Self {
            mounts,
            devices: plan.devices.iter().map(device).collect::<Result<_, String>>()?,
            links: plan.links.iter().map(link).collect::<Result<_, String>>()?,
            masked: plan.masked.iter().map(relative).collect::<Result<_, String>>()?,
            read_only: plan.read_only.iter().map(relative).collect::<Result<_, String>>()?,
            read_only_root: plan.read_only_root,
            cwd: target(&plan.cwd)?,
            root,
            binds,
        })
    }
}

fn text(value: &str) -> Result<CString, String> {
    CString::new(value).map_err(|_| format!("{value:?} has a NUL byte"))
}

fn target(path: &str) -> Result<Target, String> {
    Target::new(path).ok_or_else(|| format!("{path:?} is no path inside the container"))
}

/// Who the process becomes and what it executes: the same for a container's first process and for an exec.
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    pub capabilities: wire::Capabilities,
    pub no_new_privileges: bool,
    pub seccomp: Vec<u64>,
    pub rlimits: Vec<(u32, u64, u64)>,
    pub oom_score_adj: Option<Vec<u8>>,
    pub cwd: CString,
    /// Where the program may be, in order: PATH is searched before the clone.
    pub programs: Vec<CString>,
    pub args: Vec<CString>,
    pub env: Vec<CString>,
}

impl Identity {
    /// Translates the plan. The error says what cannot be.
    pub fn new(plan: &wire::Plan) -> Result<Self, String> {
        let strings = |list: &[String]| list.iter().map(|s| text(s)).collect::<Result<Vec<_>, _>>();
        let (args, env) = (strings(&plan.args)?, strings(&plan.env)?);
        let program = args.first().filter(|a| !a.is_empty()).ok_or("no command")?;
        Ok(Self {
            uid: plan.uid,
            gid: plan.gid,
            groups: plan.groups.clone(),
            umask: plan.umask,
            capabilities: plan.capabilities.unwrap_or_default(),
            no_new_privileges: plan.no_new_privileges,
            seccomp: strata_sys::seccomp::words(&plan.seccomp)
                .ok_or("the seccomp program is no list of instructions")?,
            rlimits: plan.rlimits.iter().map(|l| (l.resource, l.soft, l.hard)).collect(),
            oom_score_adj: plan.oom_score_adj.map(|adj| adj.to_string().into_bytes()),
            cwd: text(&plan.cwd)?,
            programs: candidates(program, &plan.env)?,
            args,
            env,
        })
    }
}

/// execvp(3): a name without a slash is looked for in PATH.
fn candidates(program: &CStr, env: &[String]) -> Result<Vec<CString>, String> {
    if program.to_bytes().contains(&b'/') {
        return Ok(vec![program.to_owned()]);
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("/usr/local/bin:/usr/bin:/bin");
    let name = program.to_str().map_err(|_| "the command is not UTF-8")?;
    path.split(':').map(|dir| text(&format!("{}/{name}", if dir.is_empty() { "." } else { dir }))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_target_knows_all_directories_above_it() {
        let target = Target::new("/a//b/./c").unwrap();
        assert_eq!(
            (target.path.as_c_str(), target.parent.as_c_str(), target.name.as_c_str()),
            (c"a/b/c", c"a/b", c"c")
        );
        let above: Vec<_> = target.above.iter().map(|t| t.path.to_str().unwrap()).collect();
        assert_eq!(above, ["a", "a/b"]);
        assert_eq!(Target::new("/").unwrap().path.as_c_str(), c".");
        assert!(Target::new("/a/../b").is_none());
    }

    #[test]
    fn a_bare_name_is_searched_in_path() {
        let found = candidates(c"sh", &["PATH=/bin:/usr/bin".into()]).unwrap();
        assert_eq!(found, [c"/bin/sh".to_owned(), c"/usr/bin/sh".to_owned()]);
        assert_eq!(candidates(c"./sh", &[]).unwrap(), [c"./sh".to_owned()]);
    }
}
