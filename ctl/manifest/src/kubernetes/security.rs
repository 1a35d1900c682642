//! `securityContext` of pods and containers.

use strata_model::limits::IDS_PER_POD;
use strata_proto::types::{PodSecurity, PodTemplate, Security};

use crate::{
    at::At,
    read::{Fields, fields, string, whole},
    report::Report,
    scalar,
    suggest::did_you_mean,
    table::{
        Class::{NoEffect, NotYet, Only, Read},
        Table,
    },
    tree::Node,
};

const WINDOWS: &str = "all nodes run Linux";

const POD: Table = &[
    ("runAsUser", Read),
    ("runAsGroup", Read),
    ("runAsNonRoot", Read),
    ("supplementalGroups", Read),
    ("supplementalGroupsPolicy", Only(&["Merge"])),
    ("fsGroup", Read),
    ("fsGroupChangePolicy", NoEffect("owners of files in volumes are not changed")),
    ("seccompProfile", Read),
    ("sysctls", Read),
    ("appArmorProfile", NotYet),
    ("seLinuxOptions", NotYet),
    ("seLinuxChangePolicy", NotYet),
    ("windowsOptions", NoEffect(WINDOWS)),
];

const CONTAINER: Table = &[
    ("runAsUser", Read),
    ("runAsGroup", Read),
    ("runAsNonRoot", Read),
    ("readOnlyRootFilesystem", Read),
    ("capabilities", Read),
    ("allowPrivilegeEscalation", Read),
    ("seccompProfile", Read),
    ("privileged", NotYet),
    ("procMount", Only(&["Default"])),
    ("appArmorProfile", NotYet),
    ("seLinuxOptions", NotYet),
    ("windowsOptions", NoEffect(WINDOWS)),
];

const CAPABILITIES: Table = &[("add", Read), ("drop", Read)];
const SYSCTL: Table = &[("name", Read), ("value", Read)];
const SECCOMP: Table = &[("type", Read), ("localhostProfile", NotYet)];

/// Names of capabilities(7), without CAP_.
const NAMES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Reads a pod's security context into its template.
pub(crate) fn of_pod(node: &Node, at: At<'_>, template: &mut PodTemplate, report: &mut Report) {
    let Some(context) = fields(node, at, POD, report) else { return };
    let mut security = PodSecurity {
        run_as_user: id(&context, "runAsUser", report),
        run_as_group: id(&context, "runAsGroup", report),
        run_as_non_root: context.flag("runAsNonRoot", report),
        supplemental_groups: context.list("supplementalGroups", report, one_id),
    };
    // Of fsGroup, the part that concerns processes: each has the group.
    if let Some(group) = id(&context, "fsGroup", report) {
        if !security.supplemental_groups.contains(&group) {
            security.supplemental_groups.push(group);
        }
        if let Some(pos) = context.get("fsGroup").map(|n| n.pos).filter(|_| !template.volumes.is_empty()) {
            let message = "every process has this group, but the files in volumes keep their owners";
            report.warn(pos, at.field("fsGroup"), message);
        }
    }
    template.security = Some(security);
    let sysctls = context.list("sysctls", report, |node, at, report| {
        let sysctl = fields(node, at, SYSCTL, report)?;
        sysctl.require("name", report)?;
        sysctl.require("value", report)?;
        Some((sysctl.text("name", report)?, sysctl.text("value", report)?))
    });
    template.sysctls = sysctls.into_iter().collect();
    seccomp(&context, report);
}

/// Reads a container's security context.
pub(crate) fn of_container(node: &Node, at: At<'_>, report: &mut Report) -> Option<Security> {
    let context = fields(node, at, CONTAINER, report)?;
    seccomp(&context, report);
    let here = at.field("capabilities");
    let capabilities = context.get("capabilities").and_then(|node| fields(node, here, CAPABILITIES, report));
    let list =
        |name: &str, report: &mut Report| capabilities.map(|c| c.list(name, report, capability)).unwrap_or_default();
    Some(Security {
        run_as_user: id(&context, "runAsUser", report),
        run_as_group: id(&context, "runAsGroup", report),
        run_as_non_root: context.flag("runAsNonRoot", report),
        read_only_root: context.flag("readOnlyRootFilesystem", report).unwrap_or_default(),
        add_capabilities: list("add", report),
        drop_capabilities: list("drop", report),
        allow_privilege_escalation: context.flag("allowPrivilegeEscalation", report),
    })
}

/// A user or group of a pod's own 65,536.
fn id(context: &Fields<'_, '_>, name: &str, report: &mut Report) -> Option<u32> {
    one_id(context.get(name)?, context.at().field(name), report)
}

fn one_id(node: &Node, at: At<'_>, report: &mut Report) -> Option<u32> {
    let id = whole(node, at, u64::from(u32::MAX), report).and_then(|id| u32::try_from(id).ok())?;
    if id >= IDS_PER_POD {
        let message = format!("{id} is above {}: a pod has {IDS_PER_POD} users and groups of its own", IDS_PER_POD - 1);
        report.error(node.pos, at, message);
        return None;
    }
    Some(id)
}

pub(crate) fn capability(node: &Node, at: At<'_>, report: &mut Report) -> Option<String> {
    let text = string(node, at, report)?;
    let name = text.strip_prefix("CAP_").unwrap_or(&text);
    if NAMES.contains(&name) {
        return Some(name.to_owned());
    }
    let hint = did_you_mean(name, NAMES.iter().copied());
    report.error(node.pos, at, format!("{:?} is no capability{hint}", scalar::cut(&text)));
    None
}

/// The default profile is always set; only asking for it is supported.
fn seccomp(context: &Fields<'_, '_>, report: &mut Report) {
    let at = context.at().field("seccompProfile");
    let Some(node) = context.get("seccompProfile") else { return };
    let Some(profile) = fields(node, at, SECCOMP, report) else { return };
    match profile.text("type", report).as_deref() {
        Some("RuntimeDefault") | None => {}
        Some(other) => {
            let message = format!("only RuntimeDefault is supported yet, this is {:?}", scalar::cut(other));
            report.error(node.pos, at.field("type"), message);
        }
    }
}
