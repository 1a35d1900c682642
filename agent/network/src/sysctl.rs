//! Kernel settings of the calling thread's network namespace, through /proc/sys/net (which shows that namespace's).

use std::{fs, io};

use crate::NetworkError;

/// Neighbour entries the kernel keeps at most. Its default of 1024 is less than the pods of one node (arp(7), gc_thresh3).
const NEIGHBOURS_MAX: u64 = 16_384;

/// Forwarding between interfaces: without it no pod reaches another node.
pub(crate) fn ensure_forwarding() -> Result<(), NetworkError> {
    const PATH: &str = "/proc/sys/net/ipv4/ip_forward";
    set(PATH, "1").map_err(|source| NetworkError::Sysctl { path: PATH.to_owned(), value: "1", source })
}

/// Settings that make the bridge behave better; where one cannot be made (older kernel, read-only /proc) pods still work.
pub(crate) fn tune_bridge(bridge: &str) {
    // The bridge answers ARP for its own address only, and never for the node's other addresses; the source address of its own
    // requests is the gateway's. Loose reverse-path filtering: a peer's pod may come in by another uplink than it is reached by.
    for (setting, value) in [("arp_ignore", "1"), ("arp_announce", "2"), ("rp_filter", "2"), ("send_redirects", "0")] {
        let path = format!("/proc/sys/net/ipv4/conf/{bridge}/{setting}");
        if let Err(error) = set(&path, value) {
            tracing::debug!(path, value, %error, "setting not made");
        }
    }
    // Redirects are sent if either setting says so: a pod must not be told of a shorter way past the gateway.
    if let Err(error) = set("/proc/sys/net/ipv4/conf/all/send_redirects", "0") {
        tracing::debug!(%error, "setting not made");
    }
    for (threshold, wanted) in [("gc_thresh3", NEIGHBOURS_MAX), ("gc_thresh2", NEIGHBOURS_MAX / 2)] {
        let path = format!("/proc/sys/net/ipv4/neigh/default/{threshold}");
        // Namespaces other than the first do not show it: the limit is one for the whole machine.
        let present = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if present.is_some_and(|present| present < wanted)
            && let Err(error) = fs::write(&path, wanted.to_string())
        {
            tracing::debug!(path, wanted, %error, "setting not made");
        }
    }
}

/// Whether packets between ports of a bridge pass nftables (the module br_netfilter; a container engine or Kubernetes may switch it on).
pub(crate) fn filters_bridged() -> bool {
    fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|text| text.trim() == "1")
}

/// A pod of a peer may be reached by another way than it comes in by.
pub(crate) fn tune_tunnel(device: &str) {
    let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
    if let Err(error) = set(&path, "2") {
        tracing::debug!(path, %error, "setting not made");
    }
}

/// Writes only what differs, so that a right value on a read-only /proc/sys is no error.
fn set(path: &str, value: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() == value { Ok(()) } else { fs::write(path, value) }
}
