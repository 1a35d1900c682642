//! The default seccomp profile and its compilation to BPF, once per set of capabilities.
//!
//! The profile allows what Docker's does (and is stricter where a pod is concerned: no AF_ALG, no AF_VSOCK, no remounting); a denied call
//! is EPERM, clone3 and calls above the table are ENOSYS so that programs fall back to older ones.

mod allowed;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall, LinuxSyscallBuilder,
};
use seccompiler::TargetArch;
use serde_json::json;

use crate::error::{Error, Result};
use crate::spec::capability;

/// The highest system call number the profile knows (mseal, Linux 6.10); the numbers are the same on all architectures.
const LAST_SYSCALL: u32 = 462;
/// x86: numbers from here on are the x32 ABI.
const X32_BIT: u32 = 0x4000_0000;
/// mount(2): change the attributes of a mount.
const MS_REMOUNT: u64 = 0x20;
/// CLONE_NEW* except NEWTIME, as Docker masks them.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

#[cfg(target_arch = "x86_64")]
const ARCH: (TargetArch, u32) = (TargetArch::x86_64, 0xC000_003E);
#[cfg(target_arch = "aarch64")]
const ARCH: (TargetArch, u32) = (TargetArch::aarch64, 0xC000_00B7);

/// The default profile for a container with these capabilities (bit N = capability N).
///
/// # Errors
/// Never for a valid table; the builders of oci-spec ask for it.
pub fn default_profile(capabilities: u64) -> Result<LinuxSeccomp> {
    let held = |name: &str| capability(name).is_some_and(|n| capabilities >> n & 1 == 1);
    let mut names: Vec<&str> = allowed::ALWAYS.to_vec();
    for (name, calls) in allowed::WITH_CAPABILITY {
        if held(name) {
            names.extend(*calls);
        }
    }
    let mut rules = vec![rule(names, Action::ScmpActAllow, None, &[])?];
    if !held("SYS_ADMIN") {
        rules.push(rule(
            vec!["clone"],
            Action::ScmpActAllow,
            None,
            &[(0, Operator::ScmpCmpMaskedEq, CLONE_NAMESPACES, 0)],
        )?);
        rules.push(rule(vec!["clone3"], Action::ScmpActErrno, Some(libc::ENOSYS as u32), &[])?);
    }
    if held("SYS_ADMIN") {
        // The root's `nodev` is a flag that its mount namespace's owner may take away, and the file system below is the host's: a
        // device file of the image would then work. So mounts are made and moved, not changed (nor by mount_setattr).
        let new = (3, Operator::ScmpCmpMaskedEq, MS_REMOUNT, 0);
        rules.push(rule(vec!["mount"], Action::ScmpActAllow, None, &[new])?);
    }
    for persona in [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(rule(vec!["personality"], Action::ScmpActAllow, None, &[(0, Operator::ScmpCmpEq, persona, 0)])?);
    }
    let families = [libc::AF_VSOCK, libc::AF_ALG].map(|family| (0, Operator::ScmpCmpNe, family as u64, 0));
    rules.push(rule(vec!["socket"], Action::ScmpActAllow, None, &families)?);
    LinuxSeccompBuilder::default()
        .default_action(Action::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .syscalls(rules)
        .build()
        .map_err(|e| Error::Invalid(format!("building the default seccomp profile: {e}")))
}

fn rule(
    names: Vec<&str>,
    action: Action,
    errno: Option<u32>,
    args: &[(usize, Operator, u64, u64)],
) -> Result<LinuxSyscall> {
    let failed = |e| Error::Invalid(format!("building a seccomp rule: {e}"));
    let mut rule =
        LinuxSyscallBuilder::default().names(names.into_iter().map(str::to_owned).collect::<Vec<_>>()).action(action);
    if let Some(errno) = errno {
        rule = rule.errno_ret(errno);
    }
    if !args.is_empty() {
        let arg = |(index, op, value, two): &(usize, Operator, u64, u64)| {
            LinuxSeccompArgBuilder::default().index(*index).op(*op).value(*value).value_two(*two).build()
        };
        rule = rule.args(args.iter().map(arg).collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?);
    }
    rule.build().map_err(failed)
}

/// The default filter for Docker-like default capabilities, as bytes of struct sock_filter.
///
/// # Errors
/// As [`bpf_for`].
pub fn default_bpf() -> Result<Vec<u8>> {
    bpf_for(crate::spec::DEFAULT_CAPABILITIES_MASK)
}

/// The default filter for a set of capabilities; compiled at most once per set.
///
/// # Errors
/// `Error::Invalid` if the table does not fit this architecture.
pub fn bpf_for(capabilities: u64) -> Result<Vec<u8>> {
    static COMPILED: Mutex<BTreeMap<u64, Vec<u8>>> = Mutex::new(BTreeMap::new());
    const SETS: usize = 64; // more different sets than that on one node are compiled anew
    if let Some(found) = COMPILED.lock().unwrap_or_else(PoisonError::into_inner).get(&capabilities) {
        return Ok(found.clone());
    }
    let program = compile(&default_profile(capabilities)?)?;
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if compiled.len() < SETS {
        compiled.insert(capabilities, program.clone());
    }
    Ok(program)
}

/// Compiles an OCI profile (config-linux.md, "Seccomp") for this machine.
///
/// One BPF program: first the rules that deny or kill without looking at arguments, then seccompiler's allow list.
///
/// # Errors
/// `Error::Invalid` for what cannot be expressed so: a default action of allow with rules that allow, rules other than
/// allow with arguments, notify and trace, unknown calls.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>> {
    let mut filter = Vec::new();
    let mut denied = Vec::new();
    for rule in profile.syscalls().iter().flatten() {
        let args = rule.args().as_deref().unwrap_or_default();
        match rule.action() {
            Action::ScmpActAllow => {
                let conditions = args.iter().map(condition).collect::<Result<Vec<_>>>()?;
                filter.extend(rule.names().iter().map(|name| match conditions.is_empty() {
                    true => json!({ "syscall": name }),
                    false => json!({ "syscall": name, "args": conditions }),
                }));
            }
            action if args.is_empty() => {
                for name in rule.names() {
                    denied.push((number(name)?, verdict(action, rule.errno_ret())?));
                }
            }
            action => return Err(Error::Invalid(format!("seccomp: {action:?} with arguments ({:?})", rule.names()))),
        }
    }
    let mismatch = match profile.default_action() {
        Action::ScmpActErrno => json!({ "errno": profile.default_errno_ret().unwrap_or(libc::EPERM as u32) }),
        Action::ScmpActKillProcess => json!("kill_process"),
        Action::ScmpActKill | Action::ScmpActKillThread => json!("kill_thread"),
        Action::ScmpActTrap => json!("trap"),
        action => return Err(Error::Invalid(format!("seccomp: a default action of {action:?}"))),
    };
    let text =
        json!({ "main": { "mismatch_action": mismatch, "match_action": "allow", "filter": filter } }).to_string();
    let mut bytes: Vec<u8> = prologue(&denied).into_iter().flat_map(encode).collect();
    for instruction in program(&text)? {
        bytes.extend(encode((instruction.code, instruction.jt, instruction.jf, instruction.k)));
    }
    if bytes.len() > strata_sys::seccomp::MAX_INSTRUCTIONS * strata_sys::seccomp::INSTRUCTION_BYTES {
        return Err(Error::Invalid("seccomp: the profile is longer than the kernel's 4096 instructions".into()));
    }
    Ok(bytes)
}

fn program(text: &str) -> Result<seccompiler::BpfProgram> {
    let failed = |e: String| Error::Invalid(format!("compiling the seccomp profile: {e}"));
    seccompiler::compile_from_json(text.as_bytes(), ARCH.0)
        .map_err(|e| failed(e.to_string()))?
        .remove("main")
        .ok_or_else(|| failed("no filter".into()))
}

/// The number of a call on this architecture, read off a filter that holds nothing else.
fn number(name: &str) -> Result<u32> {
    let text =
        json!({ "main": { "mismatch_action": "trap", "match_action": "allow", "filter": [{ "syscall": name }] } });
    const JEQ: u16 = 0x15;
    let program = program(&text.to_string())?;
    let compared = program.iter().filter(|i| i.code == JEQ).map(|i| i.k).find(|k| *k != ARCH.1);
    compared.ok_or_else(|| Error::Invalid(format!("seccomp: no number for the call {name}")))
}

fn condition(arg: &LinuxSeccompArg) -> Result<serde_json::Value> {
    let (op, value) = match arg.op() {
        Operator::ScmpCmpEq => (json!("eq"), arg.value()),
        Operator::ScmpCmpNe => (json!("ne"), arg.value()),
        Operator::ScmpCmpLt => (json!("lt"), arg.value()),
        Operator::ScmpCmpLe => (json!("le"), arg.value()),
        Operator::ScmpCmpGe => (json!("ge"), arg.value()),
        Operator::ScmpCmpGt => (json!("gt"), arg.value()),
        Operator::ScmpCmpMaskedEq => (json!({ "masked_eq": arg.value() }), arg.value_two().unwrap_or(0)),
    };
    Ok(json!({ "index": arg.index(), "type": "dword", "op": op, "val": value }))
}

fn verdict(action: Action, errno: Option<u32>) -> Result<u32> {
    Ok(match action {
        Action::ScmpActErrno => 0x0005_0000 | (errno.unwrap_or(libc::EPERM as u32) & 0xffff),
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActKill | Action::ScmpActKillThread => 0,
        Action::ScmpActTrap => 0x0003_0000,
        action => return Err(Error::Invalid(format!("seccomp: the action {action:?}"))),
    })
}

type Instruction = (u16, u8, u8, u32);

/// Foreign architecture: kill. Above the table, x32: ENOSYS. Then the denials. Falls through to what follows.
fn prologue(denied: &[(u32, u32)]) -> Vec<Instruction> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQ: u16 = 0x15;
    const GREATER: u16 = 0x25;
    const GREATER_EQ: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let no_such_call = 0x0005_0000 | libc::ENOSYS as u32;
    let mut code = vec![
        (LOAD, 0, 0, 4), // seccomp_data.arch
        (EQ, 1, 0, ARCH.1),
        (RETURN, 0, 0, 0x8000_0000),
        (LOAD, 0, 0, 0), // seccomp_data.nr
        (GREATER_EQ, 0, 1, X32_BIT),
        (RETURN, 0, 0, no_such_call),
        (GREATER, 0, 1, LAST_SYSCALL),
        (RETURN, 0, 0, no_such_call),
    ];
    for (number, verdict) in denied {
        code.extend([(EQ, 0, 1, *number), (RETURN, 0, 0, *verdict)]);
    }
    code
}

/// struct sock_filter in native byte order.
fn encode((code, jt, jf, k): Instruction) -> [u8; 8] {
    let ([c0, c1], [k0, k1, k2, k3]) = (code.to_ne_bytes(), k.to_ne_bytes());
    [c0, c1, jt, jf, k0, k1, k2, k3]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_default_profile_compiles_and_fits() {
        let program = default_bpf().unwrap();
        assert_eq!(program.len() % 8, 0);
        assert!((300 * 8..4096 * 8).contains(&program.len()), "{} bytes", program.len());
        assert_eq!(program, default_bpf().unwrap());
    }

    #[test]
    fn capabilities_widen_it() {
        let names = |caps: u64| default_profile(caps).unwrap().syscalls().as_ref().unwrap()[0].names().clone();
        let admin = 1 << capability("SYS_ADMIN").unwrap();
        for call in ["mount", "unshare", "setns", "bpf", "keyctl", "init_module", "kexec_load", "open_by_handle_at"] {
            assert!(!names(crate::spec::DEFAULT_CAPABILITIES_MASK).iter().any(|n| n == call), "{call}");
        }
        assert!(names(admin).iter().any(|n| n == "umount2"));
        assert!(!names(admin).iter().any(|n| n == "mount" || n == "mount_setattr"), "only with conditions");
        assert!(bpf_for(admin).unwrap() != default_bpf().unwrap());
    }
}
