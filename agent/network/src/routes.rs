//! Routes to the pods of other nodes, by those nodes' addresses.

use std::{collections::HashMap, net::Ipv4Addr};

use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope},
};
use rustix::io::Errno;
use strata_model::Subnet;

use crate::{
    NetworkError, NodeNetwork,
    netlink::{collect, perform},
};

/// The route protocol number of our routes ('S'; `ip route show proto 83`). None of the numbers that iproute2 lists.
pub const ROUTE_PROTOCOL: u8 = 83;

/// Another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its pods' addresses.
    pub subnet: Subnet,
    /// Its own address.
    pub address: Ipv4Addr,
}

/// What [`NodeNetwork::ensure_peer_routes`] did.
#[derive(Debug, Default)]
pub struct RouteChanges {
    /// Routes that are new or lead elsewhere now.
    pub set: usize,
    /// Routes to nodes that are gone.
    pub removed: usize,
    /// Peers that cannot be reached by a route; the others are.
    pub failed: Vec<(Peer, NetworkError)>,
}

impl NodeNetwork {
    /// Makes the ways to other nodes' pods exactly those to `peers`: routes by the nodes' addresses, or VXLAN. This node itself among them is
    /// skipped. A peer that fails stops no other.
    ///
    /// # Errors
    /// [`NetworkError`] if routes cannot be listed, an old one cannot be removed, or VXLAN cannot be set up.
    pub async fn ensure_peer_routes(&self, peers: &[Peer]) -> Result<RouteChanges, NetworkError> {
        let _one_at_a_time = self.routes.lock().await;
        let peers: Vec<Peer> = peers.iter().filter(|p| p.subnet != self.subnet).copied().collect();
        let beyond = self.beyond_links(&peers).await?;
        let tunnel = self.ensure_tunnels(&beyond).await?;
        let mut present = self.own_routes().await?;
        let mut changes = RouteChanges::default();
        for peer in peers {
            let way = match tunnel.filter(|_| beyond.contains(&peer)).zip(peer.subnet.address(1)) {
                Some((device, gateway)) => Way { gateway, device: Some(device) },
                None => Way { gateway: peer.address, device: None },
            };
            let had = present.remove(&peer.subnet);
            if had.is_some_and(|had| had.gateway == way.gateway && (way.device.is_none() || had.device == way.device)) {
                continue;
            }
            match self.set_route(peer.subnet, way, had.is_some()).await {
                Ok(()) => changes.set += 1,
                Err(error) => changes.failed.push((peer, error)),
            }
        }
        for (subnet, way) in present {
            let route = self.route(subnet, Way { device: None, ..way });
            let request = self.netlink.handle().route().del(route).execute();
            match perform(|| format!("remove the route to {subnet} by {}", way.gateway), request).await {
                Err(error) if error.errno() != Some(Errno::SRCH) => return Err(error),
                _ => changes.removed += 1,
            }
        }
        Ok(changes)
    }

    /// Makes the way to virtual addresses lead to the bridge: so this node itself can send there, wherever its default route leads, and its
    /// source address is the gateway's, which every node reaches. What is not translated on the way is refused.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub async fn ensure_service_route(&self, range: Subnet) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(range.network, range.prefix_len)
            .output_interface(self.bridge_index)
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
            .build();
        let request = self.netlink.handle().route().add(route).replace().execute();
        perform(|| format!("set the route to services ({range})"), request).await
    }

    async fn set_route(&self, subnet: Subnet, way: Way, replace: bool) -> Result<(), NetworkError> {
        let request = self.netlink.handle().route().add(self.route(subnet, way));
        // Replacing goes by destination and would hit a foreign route as well: only where the present one is ours.
        let request = if replace { request.replace() } else { request };
        let action = || format!("set a route to {subnet} by {} (do the nodes share a link?)", way.gateway);
        match perform(action, request.execute()).await {
            Err(error) if error.errno() == Some(Errno::EXIST) => Err(NetworkError::ForeignRoute { subnet }),
            other => other,
        }
    }

    fn route(&self, subnet: Subnet, way: Way) -> RouteMessage {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(subnet.network, subnet.prefix_len)
            .gateway(way.gateway)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
        match way.device {
            // The node's own packets come from an address that the other side answers by the same way.
            Some(device) => route.output_interface(device).onlink().pref_source(self.gateway).build(),
            None => route.build(),
        }
    }

    async fn own_routes(&self) -> Result<HashMap<Subnet, Way>, NetworkError> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let all = collect(|| "list routes".to_owned(), self.netlink.handle().route().get(all).execute()).await?;
        Ok(all.iter().filter_map(own).collect())
    }
}

/// How a subnet is reached.
#[derive(Debug, Clone, Copy)]
struct Way {
    gateway: Ipv4Addr,
    /// `None`: whichever leads to the gateway.
    device: Option<u32>,
}

/// Destination and gateway of a route of ours.
fn own(route: &RouteMessage) -> Option<(Subnet, Way)> {
    let header = &route.header;
    if header.protocol != RouteProtocol::Other(ROUTE_PROTOCOL) || header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let destination = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    let gateway = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    let device = route.attributes.iter().find_map(|a| if let RouteAttribute::Oif(i) = a { Some(*i) } else { None });
    Some((Subnet { network: destination, prefix_len: header.destination_prefix_length }, Way { gateway, device }))
}
