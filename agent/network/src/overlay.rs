//! VXLAN (RFC 7348) to nodes that share no link with this one: a device without learning and without multicast, whose entries come from the
//! controller's list of nodes.
//!
//! Each node's end has a MAC address made of its gateway address, so a peer's subnet and address are all that is needed to reach it: an entry
//! of the forwarding table (that MAC is behind the peer's address), a permanent neighbour (the peer's gateway has that MAC), a route.

use crate::{
    NetworkError, NodeNetwork, Peer,
    netlink::{Netlink, collect, mtu_of, perform},
};
use rtnetlink::{
    LinkUnspec, LinkVxlan,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::LinkFlags,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};
use rustix::io::Errno;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};
use strata_model::{Digest, Subnet};

/// Which way leads to the pods of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlay {
    /// By a route where the node's address is on a link of ours, else by VXLAN.
    #[default]
    Auto,
    /// By a route, whatever is between.
    Direct,
    /// By VXLAN, always.
    Vxlan,
}

/// The network identifier of our VXLAN.
pub const VNI: u32 = 0x5354;
/// Its UDP port, the one IANA gave.
pub const VXLAN_PORT: u16 = 4789;
/// Bytes that VXLAN over IPv4 adds to a packet: outer Ethernet, IP, UDP and VXLAN headers.
pub const VXLAN_BYTES: u32 = 50;

/// The device of a node with this bridge.
pub(crate) fn device_name(bridge: &str) -> String {
    format!("sx{}", &Digest::of(bridge.as_bytes()).hex()[..12])
}

/// The MAC address of the end of the node with this gateway address; bridges have another one for the same address.
fn mac_of(gateway: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = gateway.octets();
    vec![0x0e, 0x58, a, b, c, d]
}

impl NodeNetwork {
    /// Which of the peers are reached by VXLAN.
    pub(crate) async fn beyond_links(&self, peers: &[Peer]) -> Result<Vec<Peer>, NetworkError> {
        let links = match self.overlay {
            Overlay::Direct => return Ok(Vec::new()),
            Overlay::Vxlan => Vec::new(),
            Overlay::Auto => self.link_subnets().await?,
        };
        Ok(peers.iter().filter(|p| !links.iter().any(|l| l.contains(p.address))).copied().collect())
    }

    /// The subnets of the node's own links.
    async fn link_subnets(&self) -> Result<Vec<Subnet>, NetworkError> {
        let device = self.netlink.link(&self.tunnel).await?.map(|l| l.header.index);
        let all = collect(|| "list addresses".to_owned(), self.netlink.handle().address().get().execute()).await?;
        let others = all.iter().filter(|m| m.header.index != self.bridge_index && Some(m.header.index) != device);
        let subnet = |m: &rtnetlink::packet_route::address::AddressMessage| {
            let prefix_len = m.header.prefix_len;
            m.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(IpAddr::V4(address)) if (1..=30).contains(&prefix_len) => {
                    let mask = u32::MAX << (32 - u32::from(prefix_len));
                    Some(Subnet { network: Ipv4Addr::from(u32::from(*address) & mask), prefix_len })
                }
                _ => None,
            })
        };
        Ok(others.filter_map(subnet).collect())
    }

    /// Makes the device and its entries exactly those of `peers`; its index, if there are any. Without peers there is no device.
    pub(crate) async fn ensure_tunnels(&self, peers: &[Peer]) -> Result<Option<u32>, NetworkError> {
        if peers.is_empty() {
            self.remove(&self.tunnel).await?;
            return Ok(None);
        }
        let index = self.ensure_device().await?;
        let present = neighbours(&self.netlink, index).await?;
        let wanted: BTreeSet<Ipv4Addr> = peers.iter().filter_map(|p| p.subnet.address(1)).collect();
        for gone in present.difference(&wanted) {
            self.forget_tunnel(index, *gone).await?;
        }
        for peer in peers {
            let Some(gateway) = peer.subnet.address(1) else { continue };
            let entries = self.netlink.handle().neighbours();
            let mac = mac_of(gateway);
            let entry = entries.add_bridge(index, &mac).destination(IpAddr::V4(peer.address)).replace();
            let entry = entry.state(NeighbourState::Permanent).flags(NeighbourFlags::Own);
            perform(|| format!("set the VXLAN entry of {}", peer.address), entry.execute()).await?;
            let neighbour = entries
                .add(index, IpAddr::V4(gateway))
                .link_layer_address(&mac)
                .state(NeighbourState::Permanent)
                .replace();
            perform(|| format!("set the VXLAN neighbour {gateway}"), neighbour.execute()).await?;
        }
        Ok(Some(index))
    }

    async fn ensure_device(&self) -> Result<u32, NetworkError> {
        let action = || format!("create VXLAN device {}", self.tunnel);
        let mtu = self.uplink_mtu.saturating_sub(VXLAN_BYTES);
        let link = match self.netlink.link(&self.tunnel).await? {
            Some(link) => link,
            None => {
                let message = LinkVxlan::new(&self.tunnel, VNI)
                    .port(VXLAN_PORT)
                    .learning(false)
                    .address(mac_of(self.gateway))
                    .mtu(mtu)
                    .up()
                    .build();
                match perform(action, self.netlink.handle().link().add(message).execute()).await {
                    Err(error) if error.errno() != Some(Errno::EXIST) => return Err(error),
                    _ => {}
                }
                let gone = || NetworkError::Kernel { action: action(), source: Errno::NODEV.into() };
                self.netlink.link(&self.tunnel).await?.ok_or_else(gone)?
            }
        };
        let index = link.header.index;
        if mtu_of(&link) != Some(mtu) || !link.header.flags.contains(LinkFlags::Up) {
            let message = LinkUnspec::new_with_index(index).address(mac_of(self.gateway)).mtu(mtu).up().build();
            perform(|| format!("set up {}", self.tunnel), self.netlink.handle().link().set(message).execute()).await?;
        }
        crate::sysctl::tune_tunnel(&self.tunnel);
        Ok(index)
    }

    async fn forget_tunnel(&self, index: u32, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        let entry = |family, attribute| {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            message.header.ifindex = index;
            message.header.state = NeighbourState::Permanent;
            message.attributes.push(attribute);
            message
        };
        let mut mac = entry(AddressFamily::Bridge, NeighbourAttribute::LinkLayerAddress(mac_of(gateway)));
        mac.header.flags = NeighbourFlags::Own;
        let address = NeighbourAttribute::Destination(NeighbourAddress::Inet(gateway));
        for message in [mac, entry(AddressFamily::Inet, address)] {
            let request = self.netlink.handle().neighbours().del(message).execute();
            match perform(|| format!("remove the VXLAN entries of {gateway}"), request).await {
                Err(error) if error.errno() != Some(Errno::NOENT) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The gateways of other nodes that are neighbours on the device.
async fn neighbours(netlink: &Netlink, index: u32) -> Result<BTreeSet<Ipv4Addr>, NetworkError> {
    let request = netlink.handle().neighbours().get().set_address_family(AddressFamily::Inet).execute();
    let all = collect(|| "list neighbours".to_owned(), request).await?;
    let here = all.iter().filter(|m| m.header.ifindex == index);
    let address = |m: &NeighbourMessage| {
        m.attributes.iter().find_map(|a| match a {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
            _ => None,
        })
    };
    Ok(here.filter_map(address).collect())
}
