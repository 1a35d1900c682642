//! Routes to the pods of other nodes, by those nodes' addresses.

use std::{collections::HashMap, net::Ipv4Addr};

use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol},
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
    /// Its own address, on a link that this node shares.
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
    /// Makes the routes of ours exactly those to `peers`. This node itself among them is skipped. A peer that fails stops no other.
    ///
    /// # Errors
    /// [`NetworkError`] if routes cannot be listed or an old one cannot be removed.
    pub async fn ensure_peer_routes(&self, peers: &[Peer]) -> Result<RouteChanges, NetworkError> {
        let _one_at_a_time = self.routes.lock().await;
        let mut present = self.own_routes().await?;
        let mut changes = RouteChanges::default();
        for peer in peers.iter().filter(|p| p.subnet != self.subnet) {
            let had = present.remove(&peer.subnet);
            if had == Some(peer.address) {
                continue;
            }
            match self.set_route(*peer, had.is_some()).await {
                Ok(()) => changes.set += 1,
                Err(error) => changes.failed.push((*peer, error)),
            }
        }
        for (subnet, address) in present {
            let route = route(subnet, address);
            let request = self.netlink.handle().route().del(route).execute();
            match perform(|| format!("remove the route to {subnet} by {address}"), request).await {
                Err(error) if error.errno() != Some(Errno::SRCH) => return Err(error),
                _ => changes.removed += 1,
            }
        }
        Ok(changes)
    }

    async fn set_route(&self, peer: Peer, replace: bool) -> Result<(), NetworkError> {
        let request = self.netlink.handle().route().add(route(peer.subnet, peer.address));
        // Replacing goes by destination and would hit a foreign route as well: only where the present one is ours.
        let request = if replace { request.replace() } else { request };
        let action = || format!("set a route to {} by {} (do the nodes share a link?)", peer.subnet, peer.address);
        match perform(action, request.execute()).await {
            Err(error) if error.errno() == Some(Errno::EXIST) => {
                Err(NetworkError::ForeignRoute { subnet: peer.subnet })
            }
            other => other,
        }
    }

    async fn own_routes(&self) -> Result<HashMap<Subnet, Ipv4Addr>, NetworkError> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let all = collect(|| "list routes".to_owned(), self.netlink.handle().route().get(all).execute()).await?;
        Ok(all.iter().filter_map(own).collect())
    }
}

fn route(subnet: Subnet, by: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(subnet.network, subnet.prefix_len)
        .gateway(by)
        .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
        .build()
}

/// Destination and gateway of a route of ours.
fn own(route: &RouteMessage) -> Option<(Subnet, Ipv4Addr)> {
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
    Some((Subnet { network: destination, prefix_len: header.destination_prefix_length }, gateway))
}
