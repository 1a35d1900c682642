//! From services to the text that `nft` reads. Pure.

use super::ServiceSettings;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
};
use strata_model::{Digest, Endpoint, Protocol, ServicePort, ServiceView};

/// What a service is in the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rendered {
    /// Chains with their one rule.
    pub chains: BTreeMap<String, String>,
    /// Keys of the map of virtual addresses, with their chains.
    pub addresses: BTreeMap<String, String>,
    /// Keys of the map of published ports, with their chains.
    pub published: BTreeMap<String, String>,
    /// Pods of this node behind it.
    pub hairpins: BTreeSet<Ipv4Addr>,
    /// Where its UDP goes.
    pub udp: BTreeSet<(Ipv4Addr, u16)>,
}

/// A service on the node of this name. Ports without pods have no rule: they are refused.
pub(super) fn service(view: &ServiceView, node: &str) -> Rendered {
    let mut rendered = Rendered::default();
    let Some(address) = view.spec.address.filter(|_| !view.spec.headless) else { return rendered };
    for (index, port) in view.spec.ports.iter().enumerate() {
        let target = |e: &Endpoint| e.ports.get(index).copied().filter(|p| *p > 0).map(|p| (e.address, p));
        let all: Vec<(Ipv4Addr, u16)> = view.endpoints.iter().filter_map(target).collect();
        let here: Vec<(Ipv4Addr, u16)> = view.endpoints.iter().filter(|e| e.node == node).filter_map(target).collect();
        rendered.hairpins.extend(here.iter().map(|(address, _)| *address));
        if all.is_empty() {
            continue;
        }
        if port.protocol == Protocol::Udp {
            rendered.udp.extend(all.iter().copied());
        }
        let protocol = word(port.protocol);
        let chain = chain_name("s", view, port);
        rendered.chains.insert(chain.clone(), rule(protocol, &all, view.spec.client_affinity));
        rendered.addresses.insert(format!("{address} . {protocol} . {}", port.port), chain.clone());
        let Some(published) = port.published else { continue };
        let key = format!("{protocol} . {published}");
        if !view.spec.local_only {
            rendered.published.insert(key, chain);
        } else if !here.is_empty() {
            let chain = chain_name("l", view, port);
            rendered.chains.insert(chain.clone(), rule(protocol, &here, view.spec.client_affinity));
            rendered.published.insert(key, chain);
        }
    }
    rendered
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn chain_name(prefix: &str, view: &ServiceView, port: &ServicePort) -> String {
    let identity = format!("{}/{}/{}", view.name, word(port.protocol), port.port);
    format!("{prefix}-{}", &Digest::of(identity.as_bytes()).hex()[..16])
}

/// Chooses one of the pods.
fn rule(protocol: &str, to: &[(Ipv4Addr, u16)], affinity: bool) -> String {
    if let [(address, port)] = to {
        return format!("meta l4proto {protocol} dnat to {address}:{port}");
    }
    let how = if affinity { "jhash ip saddr" } else { "numgen random" };
    let mut rule = format!("meta l4proto {protocol} dnat ip to {how} mod {} map {{ ", to.len());
    for (n, (address, port)) in to.iter().enumerate() {
        // Writing to a String cannot fail.
        write!(rule, "{}{n} : {address} . {port}", if n == 0 { "" } else { ", " }).ok();
    }
    rule + " }"
}

/// The whole table, made anew.
pub(super) fn everything<'a>(
    settings: &ServiceSettings,
    table: &str,
    services: impl Iterator<Item = &'a Rendered> + Clone,
    hairpins: impl Iterator<Item = &'a Ipv4Addr>,
) -> String {
    let ServiceSettings { subnet, cluster_range, service_range, .. } = settings;
    let mut script = format!(
        "add table ip {table}
delete table ip {table}
table ip {table} {{
  map addresses {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map published {{ type inet_proto . inet_service : verdict; }}
  set hairpins {{ type ipv4_addr . ipv4_addr; }}
  chain services {{
    ip daddr {service_range} ip daddr . meta l4proto . th dport vmap @addresses
    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @published
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump services
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ct status dnat ip saddr . ip daddr @hairpins masquerade
    ct status dnat ip daddr {cluster_range} ip daddr != {subnet} ip saddr != {subnet} masquerade
    ip saddr {subnet} ip daddr != {cluster_range} masquerade
  }}
  chain refuse {{
    ip daddr {service_range} meta l4proto tcp reject with tcp reset
    ip daddr {service_range} reject with icmp type port-unreachable
  }}
  chain refuse-forwarded {{
    type filter hook forward priority -10; policy accept;
    jump refuse
  }}
  chain refuse-sent {{
    type filter hook output priority -10; policy accept;
    jump refuse
  }}
}}
"
    );
    let nothing = Rendered::default();
    for service in services {
        script += &difference(table, &nothing, service, &BTreeSet::new(), &BTreeSet::new());
    }
    elements(&mut script, "add", table, "hairpins", hairpins.map(|a| format!("{a} . {a}")));
    script
}

/// From one state of a service to another. `fresh` and `free` are the pods of this node that come and go with it.
pub(super) fn difference(
    table: &str,
    old: &Rendered,
    new: &Rendered,
    fresh: &BTreeSet<Ipv4Addr>,
    free: &BTreeSet<Ipv4Addr>,
) -> String {
    let mut script = String::new();
    let mut line = |text: String| {
        script += &text;
        script.push('\n');
    };
    for (chain, rule) in &new.chains {
        match old.chains.get(chain) {
            Some(same) if same == rule => continue,
            Some(_) => line(format!("flush chain ip {table} {chain}")),
            None => line(format!("add chain ip {table} {chain}")),
        }
        line(format!("add rule ip {table} {chain} {rule}"));
    }
    for (map, old, new) in
        [("addresses", &old.addresses, &new.addresses), ("published", &old.published, &new.published)]
    {
        let gone = old.iter().filter(|(key, chain)| new.get(*key) != Some(chain)).map(|(key, _)| key.clone());
        elements(&mut script, "delete", table, map, gone);
        let come = new.iter().filter(|(key, chain)| old.get(*key) != Some(chain));
        elements(&mut script, "add", table, map, come.map(|(key, chain)| format!("{key} : goto {chain}")));
    }
    for chain in old.chains.keys().filter(|c| !new.chains.contains_key(*c)) {
        script += &format!("flush chain ip {table} {chain}\ndelete chain ip {table} {chain}\n");
    }
    elements(&mut script, "add", table, "hairpins", fresh.iter().map(|a| format!("{a} . {a}")));
    elements(&mut script, "delete", table, "hairpins", free.iter().map(|a| format!("{a} . {a}")));
    script
}

fn elements(script: &mut String, verb: &str, table: &str, set: &str, elements: impl Iterator<Item = String>) {
    let all: Vec<String> = elements.collect();
    if !all.is_empty() {
        *script += &format!("{verb} element ip {table} {set} {{ {} }}\n", all.join(", "));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_model::{ObjectName, ServiceSpec, TargetPort};

    fn view(local_only: bool, pods: &[(&str, &str)]) -> ServiceView {
        let port = ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            target: TargetPort::Number(8080),
            published: Some(30_080),
        };
        let endpoint = |(address, node): &(&str, &str)| Endpoint {
            address: address.parse().unwrap(),
            node: (*node).to_owned(),
            hostname: String::new(),
            ports: vec![8080],
        };
        ServiceView {
            name: ObjectName::new("default", "web"),
            spec: ServiceSpec {
                address: Some(Ipv4Addr::new(10, 128, 0, 7)),
                ports: vec![port],
                local_only,
                ..ServiceSpec::default()
            },
            endpoints: pods.iter().map(endpoint).collect(),
        }
    }

    #[test]
    fn one_rule_chooses_among_the_pods_and_one_pod_needs_no_choice() {
        let two = service(&view(false, &[("10.64.16.2", "a"), ("10.64.32.2", "b")]), "a");
        let rule = two.chains.values().next().unwrap();
        assert_eq!(
            rule,
            "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.64.16.2 . 8080, 1 : 10.64.32.2 . 8080 }"
        );
        assert_eq!(two.hairpins.len(), 1);
        let one = service(&view(false, &[("10.64.16.2", "a")]), "a");
        assert_eq!(one.chains.values().next().unwrap(), "meta l4proto tcp dnat to 10.64.16.2:8080");
        assert_eq!(service(&view(false, &[]), "a"), Rendered::default());
    }

    #[test]
    fn a_local_service_publishes_only_what_is_here() {
        let pods = [("10.64.16.2", "a"), ("10.64.32.2", "b")];
        let here = service(&view(true, &pods), "a");
        assert_eq!((here.chains.len(), here.published.len()), (2, 1));
        assert!(here.chains.values().any(|rule| rule.ends_with("dnat to 10.64.16.2:8080")));
        let elsewhere = service(&view(true, &pods), "c");
        assert_eq!((elsewhere.chains.len(), elsewhere.published.len()), (1, 0));
    }

    #[test]
    fn a_change_touches_only_what_differs() {
        let old = service(&view(false, &[("10.64.16.2", "a")]), "a");
        let none = BTreeSet::new();
        assert_eq!(difference("t", &old, &old.clone(), &none, &none), "");
        let new = service(&view(false, &[("10.64.32.2", "b")]), "a");
        let script = difference("t", &old, &new, &none, &none);
        assert_eq!(script.lines().count(), 2, "{script}");
        assert!(script.starts_with("flush chain ip t s-"), "{script}");
        let gone = difference("t", &old, &Rendered::default(), &none, &none);
        assert_eq!(
            gone.lines().map(|l| l.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>(),
            ["delete element", "delete element", "flush chain", "delete chain"]
        );
    }
}
