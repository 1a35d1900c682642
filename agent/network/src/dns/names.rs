//! Names of services, as Kubernetes' DNS specification has them. No I/O.
//!
//! ```text
//! <service>.<namespace>.svc.<domain>                A     the virtual address; of a headless service its pods' addresses
//! <hostname>.<service>.<namespace>.svc.<domain>     A     of one pod of a headless service (also 10-64-16-2 for the pod at 10.64.16.2)
//! _<port>._<protocol>.<service>...                  SRV   the port, at the name of the service or of each pod
//! <reversed address>.in-addr.arpa                   PTR   of virtual addresses and of pods of headless services
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::{PoisonError, RwLock},
};
use strata_model::{Endpoint, ObjectName, Protocol, ServiceView};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// IPv4 addresses.
    A,
    /// Ports.
    Srv,
    /// The name of an address.
    Ptr,
    /// Another type: there is nothing of it here.
    Other,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address.
    A(Ipv4Addr),
    /// A port at a name (without ending dot).
    Srv {
        /// The port.
        port: u16,
        /// Whose.
        target: String,
    },
    /// A name (without ending dot).
    Ptr(String),
}

/// What there is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These; none: the name exists, but nothing of that type (NODATA).
    Records(Vec<Data>),
    /// There is no such name (NXDOMAIN).
    NoName,
    /// Not a name of this domain.
    NotOurs,
}

/// The names, as they are now.
#[derive(Debug, Default)]
pub struct Names(RwLock<Zone>);

#[derive(Debug, Default)]
struct Zone {
    domain: String,
    services: BTreeMap<ObjectName, ServiceView>,
    /// Services and, of headless ones, hosts by their addresses: a pod may be behind several.
    by_address: HashMap<Ipv4Addr, BTreeMap<ObjectName, String>>,
}

impl Names {
    /// The services are exactly these; names end in `domain`.
    pub fn replace<'a>(&self, domain: &str, services: impl Iterator<Item = &'a ServiceView>) {
        let mut zone = Zone { domain: domain.trim_matches('.').to_ascii_lowercase(), ..Zone::default() };
        services.for_each(|view| zone.set(&view.name, Some(view)));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = zone;
    }

    /// Some services have changed; `None`: one is no more.
    pub fn change<'a>(&self, changes: impl IntoIterator<Item = (&'a ObjectName, Option<&'a ServiceView>)>) {
        let mut zone = self.0.write().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().for_each(|(name, view)| zone.set(name, view));
    }

    /// What the domain's own records (SOA) are named.
    #[must_use]
    pub fn domain(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).domain.clone()
    }

    /// Answers a question about a name, in any case, without ending dot.
    #[must_use]
    pub fn answer(&self, name: &str, question: Question) -> Answer {
        let name = name.to_ascii_lowercase();
        let zone = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
            return zone.reverse(reversed, question);
        }
        if zone.domain.is_empty() {
            return Answer::NotOurs;
        }
        let inner = match name.strip_suffix(&zone.domain) {
            Some("") => "",
            Some(rest) if rest.ends_with('.') => rest.trim_end_matches('.'),
            _ => return Answer::NotOurs,
        };
        let mut labels: Vec<&str> = inner.split('.').filter(|l| !l.is_empty()).collect();
        labels.reverse();
        zone.inner(&labels, question)
    }
}

impl Zone {
    fn set(&mut self, name: &ObjectName, view: Option<&ServiceView>) {
        if let Some(old) = self.services.remove(name) {
            for (address, _) in addresses(&old, &self.domain) {
                if let Some(named) = self.by_address.get_mut(&address) {
                    named.remove(name);
                    if named.is_empty() {
                        self.by_address.remove(&address);
                    }
                }
            }
        }
        if let Some(view) = view {
            for (address, text) in addresses(view, &self.domain) {
                self.by_address.entry(address).or_default().insert(name.clone(), text);
            }
            self.services.insert(name.clone(), view.clone());
        }
    }

    /// A name below the domain, its labels from the right.
    fn inner(&self, labels: &[&str], question: Question) -> Answer {
        const NODATA: Answer = Answer::Records(Vec::new());
        let (namespace, service, rest) = match labels {
            [] | ["svc"] => return NODATA,
            ["svc", namespace] => {
                let first = self.services.range(ObjectName::new(*namespace, "")..).next();
                let is_there = first.is_some_and(|(name, _)| name.namespace == *namespace);
                return if is_there { NODATA } else { Answer::NoName };
            }
            ["svc", namespace, service, rest @ ..] => (*namespace, *service, rest),
            _ => return Answer::NoName,
        };
        let Some(view) = self.services.get(&ObjectName::new(namespace, service)) else { return Answer::NoName };
        match rest {
            [] if question != Question::A => NODATA,
            [] if view.spec.headless => Answer::Records(view.endpoints.iter().map(|e| Data::A(e.address)).collect()),
            [] => Answer::Records(view.spec.address.map(Data::A).into_iter().collect()),
            [protocol] if protocol.starts_with('_') => {
                let any = view.spec.ports.iter().any(|p| word(p.protocol) == *protocol);
                if any { NODATA } else { Answer::NoName }
            }
            [protocol, port] if protocol.starts_with('_') => self.ports(view, protocol, port, question),
            [host] if view.spec.headless => {
                let found: Vec<Data> = view
                    .endpoints
                    .iter()
                    .filter(|e| e.hostname == *host || dashed(e.address) == *host)
                    .map(|e| Data::A(e.address))
                    .collect();
                match (found.is_empty(), question) {
                    (true, _) => Answer::NoName,
                    (false, Question::A) => Answer::Records(found),
                    (false, _) => NODATA,
                }
            }
            _ => Answer::NoName,
        }
    }

    fn ports(&self, view: &ServiceView, protocol: &str, port: &str, question: Question) -> Answer {
        let name = port.strip_prefix('_').unwrap_or_default();
        let wanted = |p: &strata_model::ServicePort| word(p.protocol) == protocol && !name.is_empty() && p.name == name;
        let Some((index, port)) = view.spec.ports.iter().enumerate().find(|(_, p)| wanted(p)) else {
            return Answer::NoName;
        };
        if question != Question::Srv {
            return Answer::Records(Vec::new());
        }
        let service = full_name(&view.name, &self.domain);
        if !view.spec.headless {
            return Answer::Records(vec![Data::Srv { port: port.port, target: service }]);
        }
        let of = |e: &Endpoint| {
            let port = e.ports.get(index).copied().filter(|p| *p > 0)?;
            Some(Data::Srv { port, target: format!("{}.{service}", host(e)) })
        };
        Answer::Records(view.endpoints.iter().filter_map(of).collect())
    }

    fn reverse(&self, reversed: &str, question: Question) -> Answer {
        let mut parts: Vec<&str> = reversed.split('.').collect();
        parts.reverse();
        let address = parts.join(".").parse::<Ipv4Addr>().ok();
        match address.and_then(|address| self.by_address.get(&address)) {
            None => Answer::NotOurs,
            Some(_) if question != Question::Ptr => Answer::Records(Vec::new()),
            Some(named) => Answer::Records(named.values().cloned().map(Data::Ptr).collect()),
        }
    }
}

fn full_name(name: &ObjectName, domain: &str) -> String {
    format!("{}.{}.svc.{domain}", name.name, name.namespace)
}

/// The addresses that have names by this service, with these.
fn addresses(view: &ServiceView, domain: &str) -> Vec<(Ipv4Addr, String)> {
    let service = full_name(&view.name, domain);
    if view.spec.headless {
        return view.endpoints.iter().map(|e| (e.address, format!("{}.{service}", host(e)))).collect();
    }
    view.spec.address.map(|address| (address, service)).into_iter().collect()
}

fn host(endpoint: &Endpoint) -> String {
    if endpoint.hostname.is_empty() { dashed(endpoint.address) } else { endpoint.hostname.clone() }
}

fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "_tcp",
        Protocol::Udp => "_udp",
        Protocol::Sctp => "_sctp",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_model::{ServicePort, ServiceSpec, TargetPort};

    fn names() -> Names {
        let port = ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            target: TargetPort::Number(8080),
            published: None,
        };
        let endpoint = |address: [u8; 4], hostname: &str| Endpoint {
            address: address.into(),
            node: "a".into(),
            hostname: hostname.into(),
            ports: vec![8080],
        };
        let endpoints = vec![endpoint([10, 64, 16, 2], "db-0"), endpoint([10, 64, 32, 2], "db-1")];
        let web = ServiceView {
            name: ObjectName::new("default", "web"),
            spec: ServiceSpec {
                address: Some([10, 128, 0, 7].into()),
                ports: vec![port.clone()],
                ..Default::default()
            },
            endpoints: endpoints.clone(),
        };
        let db = ServiceView {
            name: ObjectName::new("shop", "db"),
            spec: ServiceSpec { headless: true, ports: vec![port], ..Default::default() },
            endpoints,
        };
        let names = Names::default();
        names.replace("cluster.local", [web, db].iter());
        names
    }

    fn shown(answer: &Answer) -> String {
        match answer {
            Answer::NoName => "NXDOMAIN".into(),
            Answer::NotOurs => "elsewhere".into(),
            Answer::Records(records) => {
                let one = |data: &Data| match data {
                    Data::A(address) => address.to_string(),
                    Data::Srv { port, target } => format!("{port} {target}"),
                    Data::Ptr(name) => name.clone(),
                };
                records.iter().map(one).collect::<Vec<_>>().join(", ")
            }
        }
    }

    #[test]
    fn every_form_of_a_name_has_its_answer() {
        let names = names();
        for (name, question, wanted) in [
            ("web.default.svc.cluster.local", Question::A, "10.128.0.7"),
            ("WEB.Default.svc.Cluster.local", Question::A, "10.128.0.7"),
            ("web.default.svc.cluster.local", Question::Other, ""),
            ("nope.default.svc.cluster.local", Question::A, "NXDOMAIN"),
            ("web.shop.svc.cluster.local", Question::A, "NXDOMAIN"),
            ("x.web.default.svc.cluster.local", Question::A, "NXDOMAIN"),
            ("db.shop.svc.cluster.local", Question::A, "10.64.16.2, 10.64.32.2"),
            ("db-1.db.shop.svc.cluster.local", Question::A, "10.64.32.2"),
            ("10-64-16-2.db.shop.svc.cluster.local", Question::A, "10.64.16.2"),
            ("db-2.db.shop.svc.cluster.local", Question::A, "NXDOMAIN"),
            ("db-1.db.shop.svc.cluster.local", Question::Other, ""),
            ("_http._tcp.web.default.svc.cluster.local", Question::Srv, "80 web.default.svc.cluster.local"),
            (
                "_http._tcp.db.shop.svc.cluster.local",
                Question::Srv,
                "8080 db-0.db.shop.svc.cluster.local, 8080 db-1.db.shop.svc.cluster.local",
            ),
            ("_http._udp.web.default.svc.cluster.local", Question::Srv, "NXDOMAIN"),
            ("_tcp.web.default.svc.cluster.local", Question::Srv, ""),
            ("cluster.local", Question::A, ""),
            ("svc.cluster.local", Question::A, ""),
            ("default.svc.cluster.local", Question::A, ""),
            ("other.svc.cluster.local", Question::A, "NXDOMAIN"),
            ("7.0.128.10.in-addr.arpa", Question::Ptr, "web.default.svc.cluster.local"),
            ("2.32.64.10.in-addr.arpa", Question::Ptr, "db-1.db.shop.svc.cluster.local"),
            ("1.1.1.1.in-addr.arpa", Question::Ptr, "elsewhere"),
            ("web.default", Question::A, "elsewhere"),
            ("mycluster.local", Question::A, "elsewhere"),
            ("example.com", Question::A, "elsewhere"),
        ] {
            assert_eq!(shown(&names.answer(name, question)), wanted, "{name} {question:?}");
        }
    }

    #[test]
    fn a_service_that_goes_takes_its_names_along() {
        let names = names();
        names.change([(&ObjectName::new("default", "web"), None)]);
        assert_eq!(names.answer("web.default.svc.cluster.local", Question::A), Answer::NoName);
        assert_eq!(names.answer("7.0.128.10.in-addr.arpa", Question::Ptr), Answer::NotOurs);
        assert_eq!(names.answer("default.svc.cluster.local", Question::A), Answer::NoName);
    }
}
