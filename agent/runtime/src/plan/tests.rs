#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::spec::{BindMount, ContainerRequest, UserFiles, container_spec};

fn facts() -> HostFacts {
    HostFacts { last_capability: 40, hard_limits: vec![(7, 4096)] }
}

fn request() -> ContainerRequest {
    ContainerRequest {
        command: vec!["/bin/sleep".into(), "1".into()],
        user: Some("1000:1001".into()),
        groups: vec![7],
        hostname: "web-0".into(),
        read_only_root: true,
        mounts: vec![BindMount { source: "/s/hosts".into(), target: "/etc/hosts".into(), read_only: true }],
        ..ContainerRequest::default()
    }
}

#[test]
fn the_plan_of_a_default_container() {
    let spec = container_spec(&request(), &UserFiles::default()).unwrap();
    let mut plan = plan_init(&spec, &facts()).unwrap();
    assert_eq!(plan.seccomp, crate::seccomp::default_bpf().unwrap());
    plan.seccomp.clear();
    insta::assert_debug_snapshot!(plan);
}

#[test]
fn a_foreign_bundle_goes_the_same_way() {
    let spec: Spec = serde_json::from_str(
        r#"{"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"args":["sh"],"cwd":"/","terminal":true,
        "capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]},"oomScoreAdj":100},
        "root":{"path":"rootfs"},"mounts":[{"destination":"/proc","type":"proc","source":"proc"}],
        "linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","write"],"action":"SCMP_ACT_ALLOW"},
        {"names":["kill"],"action":"SCMP_ACT_KILL_PROCESS"}]}}}"#,
    )
    .unwrap();
    let plan = plan_init(&spec, &facts()).unwrap();
    assert_eq!((plan.tty, plan.oom_score_adj, plan.devices.len()), (true, Some(100), 0));
    assert_eq!(plan.capabilities.unwrap().bounding, 1 << 5);
    assert!(!plan.seccomp.is_empty() && plan.seccomp != crate::seccomp::default_bpf().unwrap());
}

#[test]
fn what_is_not_supported_is_said() {
    let cases = [
        (r#""hooks":{"prestart":[]}"#, "hooks"),
        (r#""mounts":[{"destination":"/x","type":"ext4","source":"/dev/sda"}]"#, "ext4"),
        (r#""mounts":[{"destination":"/a/../../x","type":"tmpfs"}]"#, "without '..'"),
        (r#""linux":{"devices":[{"path":"/dev/sda","type":"b","major":8,"minor":0}]}"#, "linux.devices"),
        (
            r#""linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["no_such_call"],"action":"SCMP_ACT_ALLOW"}]}}"#,
            "seccomp",
        ),
    ];
    for (part, expected) in cases {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","process":{{"user":{{"uid":0,"gid":0}},"args":["sh"],"cwd":"/"}},{part}}}"#
        );
        let spec: Spec = serde_json::from_str(&text).unwrap();
        let error = plan_init(&spec, &facts()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
