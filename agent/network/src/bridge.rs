//! The node's bridge: its link, its address, its MTU.

use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::{
    LinkBridge, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        route::{RouteAttribute, RouteHeader},
    },
};
use rustix::io::Errno;
use strata_model::Subnet;

use crate::{
    NetworkError,
    names::mac_of,
    netlink::{Netlink, bridge_of, collect, mtu_of, name_of, perform},
};

/// The MTU of a link nobody says otherwise about (Ethernet).
const MTU_DEFAULT: u32 = 1500;

/// Makes the bridge what it should be; answers with its index.
pub(crate) async fn ensure(
    netlink: &Netlink,
    name: &str,
    subnet: Subnet,
    gateway: Ipv4Addr,
    mtu: u32,
) -> Result<u32, NetworkError> {
    let link = match netlink.link(name).await? {
        Some(link) => link,
        None => create(netlink, name, gateway, mtu).await?,
    };
    if !is_kind(&link, &InfoKind::Bridge) {
        return Err(NetworkError::NotABridge { name: name.to_owned() });
    }
    let index = link.header.index;
    // A bridge without an address of its own would take that of whichever port has the lowest, and change it as pods come and go.
    let has_mac = link.attributes.iter().any(|a| matches!(a, LinkAttribute::Address(mac) if *mac == mac_of(gateway)));
    if !has_mac || mtu_of(&link) != Some(mtu) || !link.header.flags.contains(LinkFlags::Up) {
        let message = LinkUnspec::new_with_index(index).address(mac_of(gateway)).mtu(mtu).up().build();
        perform(|| format!("set up bridge {name}"), netlink.handle().link().set(message).execute()).await?;
    }
    ensure_only_address(netlink, name, index, gateway, subnet.prefix_len).await?;
    Ok(index)
}

/// The MTU of the link that the default route uses; else the smallest of the links that are up.
pub(crate) async fn uplink_mtu(netlink: &Netlink, bridge: &str) -> Result<u32, NetworkError> {
    let links = netlink.links().await?;
    let routes = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes = collect(|| "list routes".to_owned(), netlink.handle().route().get(routes).execute()).await?;
    let default_link = routes
        .iter()
        .filter(|r| r.header.destination_prefix_length == 0 && r.header.table == RouteHeader::RT_TABLE_MAIN)
        .find_map(|r| r.attributes.iter().find_map(|a| if let RouteAttribute::Oif(i) = a { Some(*i) } else { None }));
    if let Some(mtu) = links.iter().find(|l| Some(l.header.index) == default_link).and_then(mtu_of) {
        return Ok(mtu);
    }
    let uplinks = links.iter().filter(|l| {
        let flags = l.header.flags;
        flags.contains(LinkFlags::Up)
            && !flags.contains(LinkFlags::Loopback)
            && bridge_of(l).is_none()
            && name_of(l) != Some(bridge)
            && name_of(l) != Some(&crate::overlay::device_name(bridge))
    });
    Ok(uplinks.filter_map(mtu_of).min().unwrap_or(MTU_DEFAULT))
}

async fn create(netlink: &Netlink, name: &str, gateway: Ipv4Addr, mtu: u32) -> Result<LinkMessage, NetworkError> {
    // No snooping: the bridge would have to query for multicast groups on a link that has no other querier.
    let message = LinkBridge::new(name).mcast_snooping(false).address(mac_of(gateway)).mtu(mtu).build();
    let action = || format!("create bridge {name}");
    match perform(action, netlink.handle().link().add(message).execute()).await {
        Err(error) if error.errno() != Some(Errno::EXIST) => return Err(error),
        _ => {}
    }
    let gone = || NetworkError::Kernel { action: action(), source: Errno::NODEV.into() };
    netlink.link(name).await?.ok_or_else(gone)
}

fn is_kind(link: &LinkMessage, kind: &InfoKind) -> bool {
    link.attributes.iter().any(|a| match a {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(|i| matches!(i, LinkInfo::Kind(k) if k == kind)),
        _ => false,
    })
}

/// A node that has been given another subnet keeps no address of the old one.
async fn ensure_only_address(
    netlink: &Netlink,
    name: &str,
    index: u32,
    wanted: Ipv4Addr,
    prefix_len: u8,
) -> Result<(), NetworkError> {
    let handle = netlink.handle().address();
    let present = handle.get().set_link_index_filter(index).execute();
    let present = collect(|| format!("list addresses of {name}"), present).await?;
    let mut found = false;
    for message in present.into_iter().filter(|m| m.header.family == AddressFamily::Inet) {
        if local_of(&message) == Some(wanted) && message.header.prefix_len == prefix_len {
            found = true;
            continue;
        }
        let request = handle.del(message).execute();
        match perform(|| format!("remove an old address from {name}"), request).await {
            Err(error) if error.errno() != Some(Errno::ADDRNOTAVAIL) => return Err(error),
            _ => {}
        }
    }
    if !found {
        ensure_address(netlink, name, index, wanted, prefix_len).await?;
    }
    Ok(())
}

/// Adds an address unless it is there.
pub(crate) async fn ensure_address(
    netlink: &Netlink,
    name: &str,
    index: u32,
    address: Ipv4Addr,
    prefix_len: u8,
) -> Result<(), NetworkError> {
    let request = netlink.handle().address().add(index, IpAddr::V4(address), prefix_len).execute();
    match perform(|| format!("give {name} the address {address}/{prefix_len}"), request).await {
        Err(error) if error.errno() != Some(Errno::EXIST) => Err(error),
        _ => Ok(()),
    }
}

fn local_of(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })
}
