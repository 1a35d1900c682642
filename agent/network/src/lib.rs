//! The network of one node: a bridge for its pods, a veth pair per pod, and routes to the pods of other nodes, services and their names.
//!
//! In: the node's subnet and its peers' (from the controller), network namespaces of pods (from the runtime).
//! Out: kernel state only. Nothing is remembered here: every call looks at what is there and makes it right, so a new agent
//! carries on where the last one was killed.
//!
//! Invariants:
//! - Everything happens in the network namespace of the thread that called [`NodeNetwork::ensure`] (the agent is started in its
//!   node's); only [`NodeNetwork::attach`] looks into a pod's namespace, through a thread of its own.
//! - A pod's link dies with its network namespace. It is never deleted on the way to stopping a pod (that waits for the kernel's
//!   RCU barrier, tens of milliseconds); [`NodeNetwork::sweep`] collects what a crash left over. As the kernel tears namespaces
//!   down later, in batches, each life of a sandbox needs a link name of its own: [`host_ifname`].
//! - Routes of ours carry the route protocol number [`ROUTE_PROTOCOL`]; all others are left alone.
//! - A pod has no link-local neighbour but its gateway: everything it sends passes the node's forwarding, so that answers between two pods of a
//!   node pass the translation of services too.
//! - MAC addresses are derived from the IPv4 address, so a reused address needs no neighbour entry to expire.
//!
//! Services: [`ServiceRules`]; DNS: [`serve_dns`].
//!
//! Not here: which address a pod gets (the controller says), policies. The host's firewall is not touched: where
//! the FORWARD chain's policy is "drop" (hosts that run Docker), traffic from and to the bridge must be accepted there by the
//! operator, as in `iptables -I FORWARD -i BRIDGE -j ACCEPT; iptables -I FORWARD -o BRIDGE -j ACCEPT`; where the sysctl
//! `net.bridge.bridge-nf-call-iptables` is 1, that holds between pods of one node too.

mod attach;
mod bridge;
mod dns;
mod error;
mod names;
mod netlink;
mod overlay;
mod routes;
mod services;
mod sweep;
mod sysctl;

use std::net::Ipv4Addr;

use strata_model::Subnet;

pub use dns::{Answer, Data, Names, Question, serve as serve_dns};
pub use error::NetworkError;
pub use names::{POD_IFNAME, host_ifname};
pub use overlay::{Overlay, VNI, VXLAN_BYTES, VXLAN_PORT};
pub use routes::{Peer, ROUTE_PROTOCOL, RouteChanges};
pub use services::{ServiceRules, ServiceSettings, remove as remove_services};

use netlink::Netlink;

/// The network of one node, ready for pods.
pub struct NodeNetwork {
    netlink: Netlink,
    bridge: String,
    bridge_index: u32,
    subnet: Subnet,
    gateway: Ipv4Addr,
    mtu: u32,
    uplink_mtu: u32,
    overlay: Overlay,
    /// The name of the VXLAN device.
    tunnel: String,
    /// Routes are compared and changed by one caller at a time.
    routes: tokio::sync::Mutex<()>,
}

impl NodeNetwork {
    /// Makes sure that the node forwards packets and that its bridge is there and up, with the subnet's first address and no other
    /// IPv4 address. An MTU of `None` is taken from the uplink: the link of the default route, else the smallest of the links that
    /// are up; less the bytes of VXLAN's headers where that is always used. (Where it is used for some nodes only, packets that are too
    /// large for it are answered with the size that fits, RFC 1191.) Links of pods that are attached to the bridge stay as they are.
    ///
    /// # Errors
    /// [`NetworkError`]: the name is unfit or taken by another kind of link, the kernel refuses, a sysctl cannot be written.
    pub async fn ensure(
        bridge: &str,
        subnet: Subnet,
        mtu: Option<u32>,
        overlay: Overlay,
    ) -> Result<Self, NetworkError> {
        names::check_ifname(bridge)?;
        let gateway = subnet.address(1).ok_or(NetworkError::NoGateway { subnet })?;
        let netlink = Netlink::open_here()?;
        let uplink_mtu = bridge::uplink_mtu(&netlink, bridge).await?;
        let room = if overlay == Overlay::Vxlan { VXLAN_BYTES } else { 0 };
        let mtu = mtu.unwrap_or(uplink_mtu.saturating_sub(room));
        let tunnel = overlay::device_name(bridge);
        sysctl::ensure_forwarding()?;
        let bridge_index = bridge::ensure(&netlink, bridge, subnet, gateway, mtu).await?;
        sysctl::tune_bridge(bridge);
        tracing::debug!(bridge, %subnet, mtu, "node network is ready");
        let routes = tokio::sync::Mutex::new(());
        Ok(Self {
            netlink,
            bridge: bridge.to_owned(),
            bridge_index,
            subnet,
            gateway,
            mtu,
            uplink_mtu,
            overlay,
            tunnel,
            routes,
        })
    }

    /// The address of the bridge: the pods' gateway.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The subnet of this node's pods.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Bytes of the largest packet a pod sends.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.mtu
    }
}
