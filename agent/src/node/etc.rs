//! What engines put into every container's /etc: resolv.conf, hosts, hostname. One of each per pod, in `STATE/pods/<uid>/etc`, shared by
//! its containers and theirs to change.

use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};
use std::{
    fs, io,
    net::Ipv4Addr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};
use strata_runtime::spec::BindMount;

const FILES: [&str; 3] = ["resolv.conf", "hosts", "hostname"];

/// Writes a pod's files.
pub(super) fn write(
    pod_dir: &Path,
    hostname: &str,
    address: Ipv4Addr,
    namespace: &str,
    (server, domain): (Ipv4Addr, &str),
) -> io::Result<()> {
    let dir = pod_dir.join("etc");
    fs::create_dir_all(&dir)?;
    let resolv_conf =
        format!("nameserver {server}\nsearch {namespace}.svc.{domain} svc.{domain} {domain}\noptions ndots:5\n");
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n{address}\t{hostname}\n"
    );
    for (name, text) in FILES.iter().zip([resolv_conf, hosts, format!("{hostname}\n")]) {
        fs::write(dir.join(name), text)?;
    }
    Ok(())
}

/// Detached mounts of a pod's files with its ids, and where they go. None for a pod that was made before there were such files.
pub(super) fn mounts(pod_dir: &Path, userns: BorrowedFd<'_>) -> Result<(Vec<BindMount>, Vec<OwnedFd>), String> {
    let (mut binds, mut trees) = (Vec::new(), Vec::new());
    for name in FILES {
        let source = pod_dir.join("etc").join(name);
        let failed = |e: io::Error| format!("mounting {}: {e}", source.display());
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = match open_tree(CWD, &source, flags) {
            Ok(tree) => tree,
            Err(rustix::io::Errno::NOENT) => continue,
            Err(e) => return Err(failed(e.into())),
        };
        // Where the file system knows no id-mapped mounts the files can be read, but belong to nobody.
        let mapped = strata_sys::mount::set_idmap(tree.as_fd(), userns);
        if let Err(error) = &mapped {
            tracing::debug!(%error, file = name, "cannot be id-mapped");
        }
        binds.push(BindMount { target: Path::new("/etc").join(name), source, read_only: mapped.is_err() });
        trees.push(tree);
    }
    Ok((binds, trees))
}
