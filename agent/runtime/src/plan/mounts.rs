//! The mounts of a specification as calls of the new mount interface (fsopen, fsmount, mount attributes).

use oci_spec::runtime::Mount;

use crate::error::{Error, Result};
use crate::wire;

/// File systems that may be made inside a user namespace and are no door to the host.
const FILE_SYSTEMS: &[&str] = &["proc", "tmpfs", "sysfs", "devpts", "mqueue"];

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;

/// Options that are attributes of the mount; `None`: they are the default or are said by the type.
fn attribute(option: &str) -> Option<Option<u64>> {
    Some(match option {
        "ro" => Some(RDONLY),
        "nosuid" => Some(NOSUID),
        "nodev" => Some(NODEV),
        "noexec" => Some(NOEXEC),
        "noatime" => Some(NOATIME),
        "strictatime" => Some(STRICTATIME),
        "rw" | "suid" | "dev" | "exec" | "relatime" | "bind" | "rbind" | "private" | "rprivate" => None,
        _ => return None,
    })
}

/// The mounts in order, and whether /dev is one of them (it then gets the default devices and links).
pub(super) fn plan_mounts(mounts: &[Mount]) -> Result<(Vec<wire::Mount>, bool)> {
    let planned = mounts.iter().map(plan_mount).collect::<Result<Vec<_>>>()?;
    let has_dev = planned.iter().any(|m| m.target == "/dev" && m.r#type == "tmpfs");
    Ok((planned, has_dev))
}

fn plan_mount(mount: &Mount) -> Result<wire::Mount> {
    let options = mount.options().as_deref().unwrap_or_default();
    let target = mount.destination().to_str().unwrap_or_default().to_owned();
    let invalid = |why: &str| Error::Invalid(format!("the mount at {target:?}: {why}"));
    if !target.starts_with('/') || target.split('/').any(|part| part == "..") {
        return Err(invalid("its target must be an absolute path without '..'"));
    }
    let bind = mount.typ().as_deref() == Some("bind") || options.iter().any(|o| o == "bind" || o == "rbind");
    let kind = if bind { "" } else { mount.typ().as_deref().unwrap_or_default() };
    if !bind && !FILE_SYSTEMS.contains(&kind) {
        return Err(invalid(&format!("the type {kind:?} is not supported ({} and bind are)", FILE_SYSTEMS.join(", "))));
    }
    let (mut attributes, mut settings) = (0, Vec::new());
    for option in options {
        match attribute(option) {
            Some(bits) => attributes |= bits.unwrap_or(0),
            None if bind => return Err(invalid(&format!("the option {option:?} has no meaning for a bind mount"))),
            None => {
                let (key, value) = option.split_once('=').unwrap_or((option, ""));
                settings.push(wire::Option { key: key.to_owned(), value: value.to_owned() });
            }
        }
    }
    let source = mount.source().as_ref().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
    Ok(wire::Mount { target, r#type: kind.to_owned(), options: settings, attributes, source })
}

/// OCI runtime specification, config-linux.md, "Default Devices".
pub(super) fn default_devices() -> Vec<wire::Device> {
    ["null", "zero", "full", "random", "urandom", "tty"]
        .map(|name| wire::Device { path: format!("/dev/{name}") })
        .into()
}

/// OCI runtime specification, runtime-linux.md, "Dev symbolic links".
pub(super) fn default_links() -> Vec<wire::Link> {
    [
        ("/dev/ptmx", "pts/ptmx"),
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ]
    .map(|(path, target)| wire::Link { path: path.to_owned(), target: target.to_owned() })
    .into()
}
