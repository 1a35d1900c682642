//! `ports` and `expose`.

use std::collections::BTreeMap;

use strata_proto::types::{Port, ServicePort, port::Protocol};

use super::loose;
use crate::{
    at::At,
    read::{EXTENSION, Fields, fields},
    report::Report,
    scalar::cut,
    table::{
        Class::{NoEffect, Read},
        Table,
    },
    tree::{Node, Pos, Value},
};

const LONG: Table = &[
    ("target", Read),
    ("published", Read),
    ("host_ip", Read),
    ("protocol", Read),
    ("mode", NoEffect("a port is published on every node")),
    ("name", Read),
    ("app_protocol", NoEffect("connections are balanced, whatever is spoken in them")),
    (EXTENSION, Read),
];

/// Ports of one service.
const PORTS_MAX: usize = 256;

/// The ports of a service: by number and protocol, where each is published (0: nowhere) and its name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(BTreeMap<(u32, i32), Vec<u32>>, BTreeMap<(u32, i32), String>);

/// One item of `ports`.
struct Item {
    targets: (u32, u32),
    published: Option<(u32, u32)>,
    host: String,
    protocol: Protocol,
    name: String,
}

impl Ports {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_published(&self) -> bool {
        self.0.values().any(|places| !places.is_empty())
    }

    /// As a container's ports.
    pub(crate) fn of_container(&self) -> Vec<Port> {
        let port = |(number, protocol): &(u32, i32)| Port {
            name: String::new(),
            container_port: *number,
            protocol: *protocol,
        };
        self.0.keys().map(port).collect()
    }

    /// As a service's ports: each at its own number, and published where the file says; `published: false` leaves that out.
    pub(crate) fn of_service(&self, published: bool) -> Vec<ServicePort> {
        let mut ports = Vec::new();
        for ((number, protocol), places) in &self.0 {
            let word = Protocol::try_from(*protocol).unwrap_or_default().as_str_name().to_lowercase();
            let name = self.1.get(&(*number, *protocol)).cloned().unwrap_or_else(|| format!("{word}-{number}"));
            let places = if published && !places.is_empty() { places.as_slice() } else { &[0] };
            for (i, place) in places.iter().enumerate() {
                // A second place needs a port of its own: at the address it has the number of the place.
                let (name, port) = if i == 0 { (name.clone(), *number) } else { (format!("{word}-{place}"), *place) };
                ports.push(ServicePort {
                    name,
                    protocol: *protocol,
                    port,
                    target_port: *number,
                    target_port_name: String::new(),
                    published_port: *place,
                });
            }
        }
        ports
    }
}

/// Reads `ports` and `expose` of a service.
pub(crate) fn read(of: &Fields<'_, '_>, report: &mut Report) -> Ports {
    let mut ports = Ports::default();
    if let Some(node) = of.get("ports") {
        let here = of.at().field("ports");
        let Value::List(items) = &node.value else {
            report.error(node.pos, here, format!("a list is expected, this is {}", node.what()));
            return ports;
        };
        for (i, item) in items.iter().enumerate() {
            let here = here.item(i);
            let found = match &item.value {
                Value::Map(_) => long(item, here, report),
                _ => loose::text(item, here, report).and_then(|text| short(&text, item.pos, here, report)),
            };
            if let Some(found) = found {
                add(&mut ports, found, item.pos, here, report);
            }
        }
    }
    for (text, pos) in loose::texts(of, "expose", report) {
        let here = of.at().field("expose");
        if let Some((targets, protocol)) = range_and_protocol(&text, pos, here, report) {
            let item = Item { targets, published: None, host: String::new(), protocol, name: String::new() };
            add(&mut ports, item, pos, here, report);
        }
    }
    if ports.0.len() > PORTS_MAX {
        let message = format!("{} ports, at most {PORTS_MAX} are read", ports.0.len());
        report.error(of.pos(), *of.at(), message);
    }
    ports
}

fn add(ports: &mut Ports, item: Item, pos: Pos, at: At<'_>, report: &mut Report) {
    let Item { targets: (first, last), published, host, protocol, name } = item;
    let mut published = published;
    if let Some((from, to)) = published
        && to - from != last - first
    {
        report.error(
            pos,
            at,
            "the ranges of published and container ports have different lengths: one for one is expected",
        );
        return;
    }
    let everywhere = matches!(host.as_str(), "" | "0.0.0.0" | "::" | "[::]");
    if published.is_some() && !everywhere {
        let message = format!(
            "is not published: publishing at one address ({}) only is not supported yet; reach it with `ctl port-forward`",
            cut(&host)
        );
        report.warn(pos, at, message);
        published = None;
    }
    for target in first..=last {
        let key = (target, protocol as i32);
        let places = ports.0.entry(key).or_default();
        if let Some((from, _)) = published {
            let place = from + (target - first);
            if !places.contains(&place) {
                places.push(place);
            }
        }
        if !name.is_empty() && first == last {
            ports.1.insert(key, name.clone());
        }
        // What is too much has been counted; it is refused by the caller.
        if ports.0.len() > PORTS_MAX {
            return;
        }
    }
}

/// `[[HOST:]PUBLISHED:]TARGET[/PROTOCOL]`, with ranges.
fn short(text: &str, pos: Pos, at: At<'_>, report: &mut Report) -> Option<Item> {
    let (before, target) = match text.rsplit_once(':') {
        Some((before, target)) => (Some(before), target),
        None => (None, text),
    };
    let (targets, protocol) = range_and_protocol(target, pos, at, report)?;
    let (host, published) = match before {
        None => ("", None),
        Some(before) => {
            let (host, published) = before.rsplit_once(':').unwrap_or(("", before));
            let published = if published.is_empty() { None } else { Some(range(published, pos, at, report)?) };
            (host, published)
        }
    };
    if published.is_none() {
        report.warn(pos, at, "no port of the nodes is chosen for it: in the cluster it is reached by the service's name; write PUBLISHED:CONTAINER to publish it");
    }
    let host = host.trim_matches(['[', ']']).to_owned();
    Some(Item { targets, published, host, protocol, name: String::new() })
}

fn long(node: &Node, at: At<'_>, report: &mut Report) -> Option<Item> {
    let p = fields(node, at, LONG, report)?;
    p.require("target", report)?;
    let targets = range(&loose::field(&p, "target", report)?, node.pos, at.field("target"), report)?;
    let published = match loose::field(&p, "published", report).filter(|text| !text.is_empty()) {
        Some(text) => Some(range(&text, node.pos, at.field("published"), report)?),
        None => None,
    };
    let protocol = match loose::field(&p, "protocol", report) {
        Some(word) => protocol(&word, node.pos, at.field("protocol"), report)?,
        None => Protocol::Tcp,
    };
    let host = loose::field(&p, "host_ip", report).unwrap_or_default();
    let name = loose::field(&p, "name", report).unwrap_or_default();
    Some(Item { targets, published, host, protocol, name })
}

fn range_and_protocol(text: &str, pos: Pos, at: At<'_>, report: &mut Report) -> Option<((u32, u32), Protocol)> {
    let (numbers, word) = text.split_once('/').unwrap_or((text, "tcp"));
    Some((range(numbers, pos, at, report)?, protocol(word, pos, at, report)?))
}

fn protocol(word: &str, pos: Pos, at: At<'_>, report: &mut Report) -> Option<Protocol> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => {
            report.error(pos, at, format!("{:?} is not one of tcp, udp, sctp", cut(word)));
            None
        }
    }
}

/// `80` or `8000-8010`.
fn range(text: &str, pos: Pos, at: At<'_>, report: &mut Report) -> Option<(u32, u32)> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| (1..=65_535).contains(n));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first.trim()), number(last.trim())) {
        (Some(first), Some(last)) if first <= last => Some((first, last)),
        _ => {
            report.error(pos, at, format!("{:?} is no port: 1 to 65535, or FIRST-LAST", cut(text)));
            None
        }
    }
}
