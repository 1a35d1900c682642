//! What can go wrong, and what to do about it.

use std::{io, net::Ipv4Addr, time::Duration};

use strata_model::Subnet;

/// Why the node's network could not be brought into the wanted state.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused a request.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was being done, to what.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel did not answer.
    #[error("cannot {action}: the kernel gave no answer within {limit:?}")]
    NoAnswer {
        /// What was being done, to what.
        action: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The bridge has as many ports as the kernel gives one.
    #[error("cannot attach link {ifname} to bridge {bridge}: the bridge is full (the kernel's limit is 1023 ports)")]
    BridgeFull {
        /// The pod's link.
        ifname: String,
        /// The bridge.
        bridge: String,
    },
    /// A link name that the kernel would not take.
    #[error("link name {name:?} is not valid: use 1 to 15 characters without '/', ':', '%' or white space")]
    BadName {
        /// The name.
        name: String,
    },
    /// The bridge's name belongs to something else.
    #[error("link {name} exists and is no bridge: set another bridge name in the agent's settings, or remove the link")]
    NotABridge {
        /// The name.
        name: String,
    },
    /// The subnet is too small.
    #[error("subnet {subnet} has no address for a gateway")]
    NoGateway {
        /// The subnet.
        subnet: Subnet,
    },
    /// The address cannot be a pod's on this node.
    #[error("address {address} is not one for pods in this node's subnet {subnet}")]
    BadAddress {
        /// The address.
        address: Ipv4Addr,
        /// The node's subnet.
        subnet: Subnet,
    },
    /// One of the two names is taken, and not by this pod's link.
    #[error(
        "cannot attach the pod: link {host_ifname} on the node or link eth0 in the pod's network namespace is another's"
    )]
    ForeignLink {
        /// The name of the node's end.
        host_ifname: String,
    },
    /// A route to a peer's subnet exists that is not ours.
    #[error("a route to {subnet} exists that Strata did not make: remove it, or choose another cluster range")]
    ForeignRoute {
        /// The destination.
        subnet: Subnet,
    },
    /// The program that changes nftables is missing.
    #[error("the program nft is missing: install nftables (Debian: apt-get install nftables)")]
    NoNft,
    /// The rules of services were not taken.
    #[error("cannot change the rules of services: {why}")]
    Rules {
        /// What nft says.
        why: String,
    },
    /// The name server.
    #[error("cannot serve DNS at {address}: {source}")]
    Dns {
        /// Where.
        address: Ipv4Addr,
        /// Why not.
        source: io::Error,
    },
    /// A kernel setting could not be made.
    #[error("cannot set {path} to {value}: {source} (is /proc/sys mounted read-only?)")]
    Sysctl {
        /// The file below /proc/sys.
        path: String,
        /// The wanted value.
        value: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A network namespace could not be entered.
    #[error("cannot enter the pod's network namespace: {source}")]
    Namespace {
        /// The kernel's answer.
        source: io::Error,
    },
}

impl NetworkError {
    /// A stable word for statuses and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kernel { .. } | Self::NoAnswer { .. } | Self::Namespace { .. } => "NetworkFailed",
            Self::BridgeFull { .. } => "BridgeFull",
            Self::BadName { .. } | Self::NoGateway { .. } | Self::BadAddress { .. } => "NetworkInvalid",
            Self::NotABridge { .. } | Self::ForeignLink { .. } | Self::ForeignRoute { .. } => "NetworkConflict",
            Self::NoNft | Self::Rules { .. } => "RulesFailed",
            Self::Dns { .. } => "DnsFailed",
            Self::Sysctl { .. } => "SysctlFailed",
        }
    }

    /// The errno of the kernel's answer, if it was one.
    pub(crate) fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            Self::Kernel { source, .. } => rustix::io::Errno::from_io_error(source),
            _ => None,
        }
    }
}
