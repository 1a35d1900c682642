//! Services and the frames that tell nodes of them.

use super::{BadObject, template::check_labels};
use crate::{dispatch, types as wire};
use std::collections::BTreeSet;
use strata_model::{
    Endpoint, ObjectName, Protocol, ServicePort, ServiceSpec, ServiceView, TargetPort, limits::SERVICE_PORTS_MAX,
};

impl TryFrom<&wire::ServiceSpec> for ServiceSpec {
    type Error = BadObject;

    /// Paths of errors are relative to the spec.
    fn try_from(spec: &wire::ServiceSpec) -> Result<Self, BadObject> {
        check_labels("selector", &spec.selector)?;
        if spec.ports.len() > SERVICE_PORTS_MAX {
            return Err(BadObject::new("ports", format!("at most {SERVICE_PORTS_MAX}")));
        }
        if spec.ports.is_empty() && !spec.headless {
            return Err(BadObject::new("ports", "at least one is needed, unless the service is headless"));
        }
        let address = match spec.address.as_str() {
            "" => None,
            _ if spec.headless => {
                return Err(BadObject::new("address", "a headless service has no virtual address: leave it out"));
            }
            text => Some(text.parse().map_err(|_| BadObject::new("address", "an IPv4 address is expected"))?),
        };
        let only = spec.ports.len() == 1;
        let ports = spec
            .ports
            .iter()
            .enumerate()
            .map(|(i, p)| port(p, only, spec.headless).map_err(|e| e.below(&format!("ports[{i}]"))));
        let ports = ports.collect::<Result<Vec<_>, _>>()?;
        if spec.headless && (spec.node_ports || spec.local_only) {
            let why = "a headless service has no published ports: leave nodePorts and localOnly out";
            return Err(BadObject::new("headless", why));
        }
        no_port_twice(&ports)?;
        Ok(Self {
            selector: spec.selector.clone().into_iter().collect(),
            ports,
            address,
            headless: spec.headless,
            publish_not_ready: spec.publish_not_ready,
            client_affinity: spec.client_affinity,
            node_ports: spec.node_ports,
            local_only: spec.local_only,
        })
    }
}

impl From<&ServiceSpec> for wire::ServiceSpec {
    fn from(spec: &ServiceSpec) -> Self {
        let port = |p: &ServicePort| {
            let (target_port, target_port_name) = match &p.target {
                TargetPort::Number(number) => (u32::from(*number), String::new()),
                TargetPort::Named(name) => (0, name.clone()),
            };
            let protocol = match p.protocol {
                Protocol::Tcp => wire::port::Protocol::Tcp,
                Protocol::Udp => wire::port::Protocol::Udp,
                Protocol::Sctp => wire::port::Protocol::Sctp,
            };
            wire::ServicePort {
                name: p.name.clone(),
                protocol: protocol.into(),
                port: p.port.into(),
                target_port,
                target_port_name,
                published_port: p.published.map_or(0, u32::from),
            }
        };
        Self {
            selector: spec.selector.clone().into_iter().collect(),
            ports: spec.ports.iter().map(port).collect(),
            address: spec.address.map(|a| a.to_string()).unwrap_or_default(),
            headless: spec.headless,
            publish_not_ready: spec.publish_not_ready,
            client_affinity: spec.client_affinity,
            node_ports: spec.node_ports,
            local_only: spec.local_only,
        }
    }
}

fn port(port: &wire::ServicePort, only: bool, headless: bool) -> Result<ServicePort, BadObject> {
    const RANGE: &str = "1 to 65535";
    let number =
        |field: &str, n: u32| u16::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| BadObject::new(field, RANGE));
    let protocol = wire::port::Protocol::try_from(port.protocol);
    let protocol = match protocol.map_err(|_| BadObject::new("protocol", "TCP, UDP or SCTP"))? {
        wire::port::Protocol::Tcp => Protocol::Tcp,
        wire::port::Protocol::Udp => Protocol::Udp,
        wire::port::Protocol::Sctp => Protocol::Sctp,
    };
    let may_be_nameless = only && port.name.is_empty();
    if !may_be_nameless && !is_label(&port.name) {
        let why = "a name of at most 63 characters a-z, 0-9 and '-' is needed where a service has several ports";
        return Err(BadObject::new("name", why));
    }
    let target = match (port.target_port, port.target_port_name.as_str()) {
        (0, "") => TargetPort::Number(number("port", port.port)?),
        (0, name) if is_label(name) => TargetPort::Named(name.to_owned()),
        (0, _) => return Err(BadObject::new("targetPortName", "the name of a container port is expected")),
        (n, "") => TargetPort::Number(number("targetPort", n)?),
        _ => return Err(BadObject::new("targetPort", "set targetPort or targetPortName, not both")),
    };
    if headless && port.published_port != 0 {
        return Err(BadObject::new("publishedPort", "a headless service has no published ports: leave it out"));
    }
    let published = match port.published_port {
        0 => None,
        n => Some(number("publishedPort", n)?),
    };
    Ok(ServicePort { name: port.name.clone(), protocol, port: number("port", port.port)?, target, published })
}

fn no_port_twice(ports: &[ServicePort]) -> Result<(), BadObject> {
    let (mut names, mut numbers, mut published) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, p) in ports.iter().enumerate() {
        let at = |field: &str| format!("ports[{i}].{field}");
        let protocol = p.protocol as u8;
        if !names.insert(&p.name) {
            return Err(BadObject::new(at("name"), "another port of the service has this name"));
        }
        if !numbers.insert((protocol, p.port)) {
            return Err(BadObject::new(at("port"), "another port of the service has this number and protocol"));
        }
        if p.published.is_some_and(|n| !published.insert((protocol, n))) {
            return Err(BadObject::new(at("publishedPort"), "another port of the service is published there"));
        }
    }
    Ok(())
}

/// A DNS label (RFC 1123).
fn is_label(text: &str) -> bool {
    !text.contains('.') && strata_model::check_name("label", text).is_ok()
}

/// A service from its envelope, without endpoints.
impl TryFrom<&wire::Object> for ServiceView {
    type Error = BadObject;

    fn try_from(object: &wire::Object) -> Result<Self, BadObject> {
        let meta = object.meta.as_ref().ok_or_else(|| BadObject::new("meta", "is missing"))?;
        let Some(wire::object::Kind::Service(service)) = &object.kind else {
            return Err(BadObject::new("kind", "a Service is expected"));
        };
        meta.check(true)?;
        if !is_label(&meta.name) {
            let why = "a service's name is a part of a DNS name: at most 63 characters a-z, 0-9 and '-'";
            return Err(BadObject::new("meta.name", why));
        }
        let spec = service.spec.as_ref().ok_or_else(|| BadObject::new("spec", "is missing"))?;
        let spec = ServiceSpec::try_from(spec).map_err(|e| e.below("spec"))?;
        Ok(Self { name: ObjectName::new(meta.namespace.clone(), meta.name.clone()), spec, endpoints: Vec::new() })
    }
}

impl From<&Endpoint> for dispatch::ServiceEndpoint {
    fn from(e: &Endpoint) -> Self {
        Self {
            address: e.address.to_string(),
            node: e.node.clone(),
            hostname: e.hostname.clone(),
            ports: e.ports.iter().map(|p| u32::from(*p)).collect(),
        }
    }
}

impl TryFrom<&dispatch::ServiceEndpoint> for Endpoint {
    type Error = BadObject;

    fn try_from(e: &dispatch::ServiceEndpoint) -> Result<Self, BadObject> {
        let ports = e.ports.iter().map(|p| u16::try_from(*p).map_err(|_| BadObject::new("ports", "0 to 65535")));
        Ok(Self {
            address: e.address.parse().map_err(|_| BadObject::new("address", "an IPv4 address is expected"))?,
            node: e.node.clone(),
            hostname: e.hostname.clone(),
            ports: ports.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<&dispatch::ServiceEntry> for ServiceView {
    type Error = BadObject;

    fn try_from(entry: &dispatch::ServiceEntry) -> Result<Self, BadObject> {
        let spec = entry.spec.as_ref().ok_or_else(|| BadObject::new("spec", "is missing"))?;
        let endpoints = entry.endpoints.iter().map(Endpoint::try_from).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            name: ObjectName::new(entry.namespace.clone(), entry.name.clone()),
            spec: ServiceSpec::try_from(spec).map_err(|e| e.below("spec"))?,
            endpoints,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn service(name: &str, spec: wire::ServiceSpec) -> Result<ServiceView, String> {
        let meta = wire::Meta { namespace: "default".into(), name: name.into(), ..Default::default() };
        let service = wire::Service { spec: Some(spec), status: None };
        let object = wire::Object { meta: Some(meta), kind: Some(wire::object::Kind::Service(service)) };
        ServiceView::try_from(&object).map_err(|e| e.to_string())
    }

    fn port(name: &str, port: u32) -> wire::ServicePort {
        wire::ServicePort { name: name.into(), port, ..Default::default() }
    }

    #[test]
    fn the_target_is_the_port_itself_unless_said() {
        let spec = wire::ServiceSpec { ports: vec![port("", 80)], ..Default::default() };
        assert_eq!(service("web", spec).unwrap().spec.ports[0].target, TargetPort::Number(80));
        let mut named = port("", 80);
        named.target_port_name = "http".into();
        let spec = wire::ServiceSpec { ports: vec![named], ..Default::default() };
        assert_eq!(service("web", spec).unwrap().spec.ports[0].target, TargetPort::Named("http".into()));
    }

    #[test]
    fn what_cannot_work_is_named_with_its_place() {
        let spec = |ports: Vec<wire::ServicePort>| wire::ServiceSpec { ports, ..Default::default() };
        let published = |n| wire::ServicePort { published_port: n, ..port("a", 80) };
        for (name, spec, words) in [
            ("web.one", spec(vec![port("", 80)]), "meta.name"),
            ("web", spec(vec![]), "spec.ports"),
            ("web", spec(vec![port("", 0)]), "spec.ports[0].port: 1 to 65535"),
            ("web", spec(vec![port("", 65_536)]), "spec.ports[0].port"),
            ("web", spec(vec![port("a", 80), port("", 81)]), "spec.ports[1].name"),
            ("web", spec(vec![port("a", 80), port("a", 81)]), "has this name"),
            ("web", spec(vec![port("a", 80), port("b", 80)]), "has this number"),
            ("web", spec(vec![published(70_000)]), "spec.ports[0].publishedPort"),
            ("web", spec((0..257).map(|i| port(&format!("p{i}"), i + 1)).collect()), "at most 256"),
            (
                "web",
                wire::ServiceSpec { headless: true, address: "10.128.0.9".into(), ..Default::default() },
                "spec.address",
            ),
            ("web", wire::ServiceSpec { address: "::1".into(), ..spec(vec![port("", 80)]) }, "IPv4"),
        ] {
            let error = service(name, spec).unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
