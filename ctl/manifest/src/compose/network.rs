//! `networks`, `links` and other names of a service. There is one flat network: everyone reaches everyone by name.

use super::{loose, names, project::Project};
use crate::{
    at::At,
    read::{EXTENSION, Fields, fields},
    report::Report,
    scalar::cut,
    suggest::did_you_mean,
    table::{
        Class::{NoEffect, NotYet, Read},
        Table,
    },
    tree::{Pos, Value},
};

const FLAT: &str = "all pods share the cluster's one network";

const NETWORK: Table = &[
    ("name", NoEffect(FLAT)),
    ("driver", Read),
    ("driver_opts", NoEffect(FLAT)),
    ("attachable", NoEffect(FLAT)),
    ("enable_ipv4", NoEffect(FLAT)),
    ("enable_ipv6", NoEffect(FLAT)),
    ("external", Read),
    ("ipam", NoEffect(FLAT)),
    ("labels", NoEffect(FLAT)),
    ("internal", NotYet),
    (EXTENSION, Read),
];

const ATTACHMENT: Table = &[
    ("aliases", Read),
    ("priority", NoEffect(FLAT)),
    ("gw_priority", NoEffect(FLAT)),
    ("interface_name", NotYet),
    ("driver_opts", NoEffect(FLAT)),
    ("ipv4_address", NotYet),
    ("ipv6_address", NotYet),
    ("link_local_ips", NotYet),
    ("mac_address", NotYet),
    (EXTENSION, Read),
];

/// The names of the file's networks.
pub(crate) fn top<'n>(top: &Fields<'n, '_>, report: &mut Report) -> Vec<&'n str> {
    let Some(node) = top.get("networks") else { return Vec::new() };
    let at = top.at().field("networks");
    let Value::Map(entries) = &node.value else {
        report.error(node.pos, at, format!("a map is expected, this is {}", node.what()));
        return Vec::new();
    };
    let entries = || entries.iter().filter(|e| !e.key.starts_with("x-"));
    for entry in entries().filter(|e| !e.node.is_null()) {
        let here = at.field(&entry.key);
        let Some(network) = fields(&entry.node, here, NETWORK, report) else { continue };
        match loose::field(&network, "driver", report).as_deref() {
            None | Some("" | "bridge" | "overlay" | "default") => {}
            Some(driver) => {
                let message = format!("the driver {:?} is not supported: {FLAT}", cut(driver));
                report.error(entry.pos, here.field("driver"), message);
            }
        }
    }
    if entries().count() > 1 {
        report.warn(node.pos, at, format!("{FLAT}: networks do not keep services apart"));
    }
    entries().map(|e| e.key.as_str()).collect()
}

/// The other names of a service, each with its place.
pub(crate) fn aliases(of: &Fields<'_, '_>, project: &Project<'_, '_>, report: &mut Report) -> Vec<(String, Pos)> {
    let mut found = Vec::new();
    let Some(node) = of.get("networks") else { return found };
    let at = of.at().field("networks");
    let known = |name: &str, pos: Pos, report: &mut Report| {
        if name != "default" && !project.networks.contains(&name) {
            let hint = did_you_mean(name, project.networks.iter().copied());
            report.error(pos, at, format!("the file has no network {:?}{hint}", cut(name)));
        }
    };
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                known(&entry.key, entry.pos, report);
                if entry.node.is_null() {
                    continue;
                }
                let here = at.field(&entry.key);
                let Some(attachment) = fields(&entry.node, here, ATTACHMENT, report) else { continue };
                found.extend(loose::texts(&attachment, "aliases", report));
            }
        }
        _ => loose::texts(of, "networks", report).iter().for_each(|(name, pos)| known(name, *pos, report)),
    }
    found
}

/// `links`: `service` or `service:alias`, the second a further name of that service.
pub(crate) fn links(of: &Fields<'_, '_>, project: &Project<'_, '_>, report: &mut Report) -> Vec<(String, String, Pos)> {
    let at = of.at().field("links");
    let mut found = Vec::new();
    for (text, pos) in loose::texts(of, "links", report) {
        let (service, alias) = text.split_once(':').unwrap_or((&text, ""));
        if !project.services.contains(&service) {
            let hint = did_you_mean(service, project.services.iter().copied());
            report.error(pos, at, format!("the file has no service {:?}{hint}", cut(service)));
        } else if !alias.is_empty() && alias != service {
            found.push((service.to_owned(), alias.to_owned(), pos));
        }
    }
    found
}

/// `network_mode`: only what means the one network.
pub(crate) fn mode(of: &Fields<'_, '_>, report: &mut Report) {
    let Some(node) = of.get("network_mode") else { return };
    if !matches!(node.scalar(), Some("bridge" | "default")) {
        let message = format!("only bridge is supported yet, this is {}", node.what());
        report.error(node.pos, of.at().field("network_mode"), message);
    }
}

/// The name as a service object can have it, or an error at its place.
pub(crate) fn service_name(name: &str, pos: Pos, at: At<'_>, report: &mut Report) -> Option<String> {
    let dns = names::dns(name);
    if !names::is_dns_label(&dns) {
        report.error(pos, at, format!("{:?} cannot be a name in DNS: at most 63 letters, digits and '-'", cut(name)));
        return None;
    }
    Some(dns)
}
