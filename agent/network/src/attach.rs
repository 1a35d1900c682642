//! A pod's link: one end on the bridge, the other straight inside the pod's network namespace.

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
};

use rtnetlink::{
    LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoVeth},
        route::{RouteProtocol, RouteScope},
    },
};
use rustix::io::Errno;

use crate::{
    NetworkError, NodeNetwork, POD_IFNAME, ROUTE_PROTOCOL, bridge, names,
    netlink::{Netlink, bridge_of, peer_of, perform},
    sysctl,
};

/// The loopback link has this index in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

impl NodeNetwork {
    /// Gives the pod behind `netns` its link `eth0` with its address, a default route by the node's gateway, and a loopback link that
    /// is up. May be repeated, also after a call that was cut off in the middle.
    ///
    /// `host_ifname` comes from [`crate::host_ifname`]. The namespace may be owned by a user namespace of its own.
    ///
    /// # Errors
    /// [`NetworkError`]: the address is not one for pods of this node, the name is taken, the bridge is full, the kernel refuses.
    pub async fn attach(
        &self,
        netns: BorrowedFd<'_>,
        host_ifname: &str,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        names::check_ifname(host_ifname)?;
        let index = u32::from(address).saturating_sub(u32::from(self.subnet.network));
        if index < 2 || self.subnet.address(index) != Some(address) {
            return Err(NetworkError::BadAddress { address, subnet: self.subnet });
        }
        let inside = Netlink::open_in(netns).await?;
        match self.create_pair(netns, host_ifname, address).await {
            Err(error) if error.errno() == Some(Errno::EXIST) => {
                if !self.is_attached(&inside, host_ifname).await? {
                    return Err(NetworkError::ForeignLink { host_ifname: host_ifname.to_owned() });
                }
            }
            // EXFULL, which the bridge answers with when it has no port number left.
            Err(error) if error.errno() == Some(Errno::XFULL) => {
                self.remove(host_ifname).await?;
                return Err(NetworkError::BridgeFull { ifname: host_ifname.to_owned(), bridge: self.bridge.clone() });
            }
            other => other?,
        }
        if sysctl::filters_bridged() {
            self.allow_hairpin(host_ifname).await?;
        }
        self.configure(&inside, address).await
    }

    /// Both ends in one request, the pod's end never visible on the host; ours is attached to the bridge and up. (The pod's end cannot be up
    /// yet: the kernel opens it before it knows its other end, ENOTCONN.)
    async fn create_pair(
        &self,
        netns: BorrowedFd<'_>,
        host_ifname: &str,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let inside = LinkUnspec::new_with_name(POD_IFNAME)
            .setns_by_fd(netns.as_raw_fd())
            .address(names::mac_of(address))
            .mtu(self.mtu)
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(host_ifname, POD_IFNAME)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
            .mtu(self.mtu)
            .controller(self.bridge_index)
            .up()
            .build();
        let action = || format!("create link {host_ifname} on bridge {}", self.bridge);
        perform(action, self.netlink.handle().link().add(pair).execute()).await
    }

    /// Where the kernel passes bridged packets to nftables (br_netfilter), it also translates them there, and a pod that reaches itself through a
    /// service goes back out of the port it came in by, which a bridge does not do unless told to.
    async fn allow_hairpin(&self, host_ifname: &str) -> Result<(), NetworkError> {
        let Some(link) = self.netlink.link(host_ifname).await? else { return Ok(()) };
        let port = LinkBridgePort::new(link.header.index).hairpin(true).build();
        perform(
            || format!("let {host_ifname} turn packets around"),
            self.netlink.handle().link().set_port(port).execute(),
        )
        .await
    }

    /// Whether the pod's link is the other end of ours, and that is on the bridge.
    async fn is_attached(&self, inside: &Netlink, host_ifname: &str) -> Result<bool, NetworkError> {
        let (Some(host), Some(pod)) = (self.netlink.link(host_ifname).await?, inside.link(POD_IFNAME).await?) else {
            return Ok(false);
        };
        let paired = peer_of(&host) == Some(pod.header.index) && peer_of(&pod) == Some(host.header.index);
        Ok(paired && bridge_of(&host) == Some(self.bridge_index))
    }

    async fn configure(&self, inside: &Netlink, address: Ipv4Addr) -> Result<(), NetworkError> {
        let links = inside.handle().link();
        let loopback = LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build();
        perform(|| "set the pod's loopback link up".to_owned(), links.set(loopback).execute()).await?;
        let gone = || NetworkError::Kernel { action: "find the pod's link".to_owned(), source: Errno::NODEV.into() };
        let index = inside.link(POD_IFNAME).await?.ok_or_else(gone)?.header.index;
        let up = LinkUnspec::new_with_index(index).up().build();
        perform(|| "set the pod's link up".to_owned(), links.set(up).execute()).await?;
        // Alone on its link but for the gateway: what goes to another pod of the node passes the node, too.
        bridge::ensure_address(inside, "the pod's link", index, address, 32).await?;
        let neighbour = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.gateway, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
            .build();
        let request = inside.handle().route().add(neighbour).replace().execute();
        perform(|| format!("set the pod's route to its gateway {}", self.gateway), request).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(self.gateway)
            .output_interface(index)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
            .build();
        let request = inside.handle().route().add(route).replace().execute();
        perform(|| format!("set the pod's default route to {}", self.gateway), request).await
    }

    /// Removes a link by name; one that is not there is fine.
    pub(crate) async fn remove(&self, ifname: &str) -> Result<(), NetworkError> {
        let Some(link) = self.netlink.link(ifname).await? else { return Ok(()) };
        let request = self.netlink.handle().link().del(link.header.index).execute();
        match perform(|| format!("remove link {ifname}"), request).await {
            Err(error) if error.errno() != Some(Errno::NODEV) => Err(error),
            _ => Ok(()),
        }
    }
}
