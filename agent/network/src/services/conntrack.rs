//! Connections that the kernel remembers (linux/netfilter/nfnetlink_conntrack.h).

use super::nfnetlink::{ACK, DUMP, Netfilter, attribute, attributes};
use rustix::io::Errno;
use std::{collections::BTreeSet, io, net::Ipv4Addr};

/// NFNL_SUBSYS_CTNETLINK with IPCTNL_MSG_CT_GET and IPCTNL_MSG_CT_DELETE.
const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const AF_INET: u8 = 2;
/// CTA_*.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
/// CTA_TUPLE_*, CTA_IP_*, CTA_PROTO_*.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const UDP: u8 = 17;

/// Where packets of one direction come from and go to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    source: Option<Ipv4Addr>,
    source_port: u16,
    destination: Option<Ipv4Addr>,
}

/// Forgets UDP connections whose destination was translated to one of these; answers how many. Blocks for as long as the kernel lists its
/// connections.
pub(super) fn forget_udp(endpoints: &BTreeSet<(Ipv4Addr, u16)>) -> io::Result<usize> {
    let netfilter = Netfilter::open()?;
    let mut stale = Vec::new();
    netfilter.ask(GET, DUMP, AF_INET, &[], |body| stale.extend(request_to_forget(body, endpoints)))?;
    let mut count = 0;
    for request in stale {
        match netfilter.ask(DELETE, ACK, AF_INET, &request, |_| ()) {
            Ok(()) => count += 1,
            // It has ended by itself meanwhile.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// What deletes a connection, if it is one of those.
fn request_to_forget(body: &[u8], endpoints: &BTreeSet<(Ipv4Addr, u16)>) -> Option<Vec<u8>> {
    let find = |kind| attributes(body).find(|(k, _)| *k == kind).map(|(_, content)| content);
    let (original, reply) = (find(TUPLE_ORIGINAL)?, tuple(find(TUPLE_REPLY)?));
    let to = reply.source?;
    let translated = tuple(original).destination != Some(to);
    if reply.protocol != UDP || !translated || !endpoints.contains(&(to, reply.source_port)) {
        return None;
    }
    let mut request = attribute(TUPLE_ORIGINAL, true, original);
    if let Some(id) = find(ID) {
        request.extend(attribute(ID, false, id));
    }
    Some(request)
}

fn tuple(bytes: &[u8]) -> Tuple {
    let mut tuple = Tuple::default();
    let address = |b: &[u8]| <[u8; 4]>::try_from(b).ok().map(Ipv4Addr::from);
    for (kind, content) in attributes(bytes) {
        for (part, value) in attributes(content) {
            match (kind, part) {
                (TUPLE_IP, IP_V4_SRC) => tuple.source = address(value),
                (TUPLE_IP, IP_V4_DST) => tuple.destination = address(value),
                (TUPLE_PROTO, PROTO_NUM) => tuple.protocol = value.first().copied().unwrap_or(0),
                (TUPLE_PROTO, PROTO_SRC_PORT) => tuple.source_port = value.try_into().map_or(0, u16::from_be_bytes),
                _ => {}
            }
        }
    }
    tuple
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn side(source: [u8; 4], port: u16, destination: [u8; 4]) -> Vec<u8> {
        let ip = [attribute(IP_V4_SRC, false, &source), attribute(IP_V4_DST, false, &destination)].concat();
        let proto =
            [attribute(PROTO_NUM, false, &[UDP]), attribute(PROTO_SRC_PORT, false, &port.to_be_bytes())].concat();
        [attribute(TUPLE_IP, true, &ip), attribute(TUPLE_PROTO, true, &proto)].concat()
    }

    #[test]
    fn only_translated_connections_to_the_endpoint_are_forgotten() {
        let (client, service, pod) = ([10, 64, 16, 9], [10, 128, 0, 7], [10, 64, 32, 2]);
        let connection = |to, from| {
            let original = attribute(TUPLE_ORIGINAL, true, &side(client, 4000, to));
            [original, attribute(TUPLE_REPLY, true, &side(from, 53, client)), attribute(ID, false, &[0, 0, 0, 1])]
                .concat()
        };
        let gone: BTreeSet<(Ipv4Addr, u16)> = [(pod.into(), 53)].into();
        let request = request_to_forget(&connection(service, pod), &gone).unwrap();
        assert_eq!(tuple(attributes(&request).next().unwrap().1).destination, Some(service.into()));
        assert_eq!(request_to_forget(&connection(pod, pod), &gone), None, "a direct one");
        assert_eq!(request_to_forget(&connection(service, [10, 64, 32, 3]), &gone), None, "another pod");
    }
}
