#![allow(clippy::unwrap_used, clippy::panic)]

use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder, RootFsBuilder};

use super::*;

fn image() -> ImageConfiguration {
    let list = |items: &[&str]| items.iter().map(|i| (*i).to_owned()).collect::<Vec<_>>();
    let config = ConfigBuilder::default()
        .user("app")
        .env(list(&["PATH=/app/bin:/bin", "A=image", "EMPTY="]))
        .entrypoint(list(&["/entry", "-x"]))
        .cmd(list(&["cmd", "arg"]))
        .working_dir("/work")
        .build()
        .unwrap();
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(Vec::new()).build().unwrap();
    ImageConfigurationBuilder::default()
        .architecture("amd64")
        .os("linux")
        .rootfs(rootfs)
        .config(config)
        .build()
        .unwrap()
}

fn files() -> UserFiles {
    UserFiles {
        passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\nbroken\nbig:x:70000:1::/:\n"
            .into(),
        group: "root:x:0:\nwheel:x:10:other,app\napp:x:1000:\naudio:x:29:app\n".into(),
    }
}

fn request() -> ContainerRequest {
    ContainerRequest { image: image(), hostname: "web-0".into(), ..ContainerRequest::default() }
}

fn args(command: &[&str], args: &[&str]) -> Vec<String> {
    let list = |items: &[&str]| items.iter().map(|i| (*i).to_owned()).collect();
    let request = ContainerRequest { command: list(command), args: list(args), ..request() };
    container_spec(&request, &files()).unwrap().process().clone().unwrap().args().clone().unwrap()
}

#[test]
fn command_and_args_replace_as_kubernetes_says() {
    assert_eq!(args(&[], &[]), ["/entry", "-x", "cmd", "arg"]);
    assert_eq!(args(&["c"], &[]), ["c"]);
    assert_eq!(args(&[], &["a"]), ["/entry", "-x", "a"]);
    assert_eq!(args(&["c"], &["a"]), ["c", "a"]);
    let none = ContainerRequest::default();
    assert!(container_spec(&none, &files()).unwrap_err().to_string().contains("no command"));
}

#[test]
fn the_environment_is_merged_in_order() {
    let set = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    let request = ContainerRequest { env: vec![set("A", "pod"), set("B", "x=y")], ..request() };
    let spec = container_spec(&request, &files()).unwrap();
    let env = spec.process().as_ref().unwrap().env().clone().unwrap();
    assert_eq!(env, ["PATH=/app/bin:/bin", "HOSTNAME=web-0", "HOME=/home/app", "A=pod", "EMPTY=", "B=x=y"]);
}

/// User id, group id, groups, home; or a part of the error.
type Found = Result<(u32, u32, &'static [u32], &'static str), &'static str>;

#[test]
fn users_are_found_as_docker_finds_them() {
    let cases: [(&str, Found); 11] = [
        ("", Ok((0, 0, &[], "/root"))),
        ("app", Ok((1000, 1000, &[10, 29], "/home/app"))),
        ("1000", Ok((1000, 1000, &[10, 29], "/home/app"))),
        ("app:wheel", Ok((1000, 10, &[], "/home/app"))),
        ("app:7", Ok((1000, 7, &[], "/home/app"))),
        ("4242", Ok((4242, 0, &[], "/"))),
        ("4242:4243", Ok((4242, 4243, &[], "/"))),
        ("nobody", Err("\"nobody\" is not in /etc/passwd")),
        ("app:none", Err("\"none\" is not in /etc/group")),
        ("65536", Err("above 65535")),
        ("big", Err("above 65535")),
    ];
    for (text, expected) in cases {
        match (resolve_user(text, &files()), expected) {
            (Ok(user), Ok((uid, gid, groups, home))) => {
                assert_eq!((user.uid, user.gid, &user.groups[..], &user.home[..]), (uid, gid, groups, home), "{text}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (got, _) => panic!("{text}: {got:?}"),
        }
    }
}

#[test]
fn root_is_refused_where_it_must_not_be() {
    let root = ContainerRequest { user: Some("0".into()), run_as_non_root: true, ..request() };
    assert!(container_spec(&root, &files()).unwrap_err().to_string().contains("runAsNonRoot"));
    assert!(container_spec(&ContainerRequest { run_as_non_root: true, ..request() }, &files()).is_ok());
}

fn bounding(add: &[&str], drop: &[&str]) -> Result<u64> {
    let list = |items: &[&str]| items.iter().map(|i| (*i).to_owned()).collect::<Vec<_>>();
    capabilities::container_capabilities(&list(add), &list(drop)).map(|c| capabilities::mask(&c))
}

#[test]
fn capabilities_are_added_and_dropped() {
    let bit = |name: &str| 1_u64 << capability(name).unwrap();
    assert_eq!(bounding(&[], &[]).unwrap(), DEFAULT_CAPABILITIES_MASK);
    assert_eq!(DEFAULT_CAPABILITIES_MASK & (bit("NET_RAW") | bit("MKNOD") | bit("SYS_ADMIN")), 0);
    assert_eq!(
        bounding(&["cap_net_raw"], &["CHOWN"]).unwrap(),
        DEFAULT_CAPABILITIES_MASK & !bit("CHOWN") | bit("NET_RAW")
    );
    assert_eq!(bounding(&["NET_BIND_SERVICE"], &["all"]).unwrap(), bit("NET_BIND_SERVICE"));
    assert_eq!(bounding(&["ALL"], &["SYS_ADMIN"]).unwrap(), ((1 << 41) - 1) & !bit("SYS_ADMIN"));
    assert!(bounding(&["NET_ADMINN"], &[]).is_err());
}

#[test]
fn a_passwd_that_is_a_link_or_a_pipe_neither_escapes_nor_blocks() {
    use std::os::fd::AsFd;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::os::unix::fs::symlink("/../../../../etc/hostname", dir.path().join("etc/passwd")).unwrap();
    let root = std::fs::File::open(dir.path()).unwrap();
    assert_eq!(UserFiles::read(root.as_fd()).unwrap().passwd, "");
    rustix::fs::mkfifoat(&root, "etc/group", rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    assert!(UserFiles::read(root.as_fd()).unwrap_err().to_string().contains("no regular file"));
}
