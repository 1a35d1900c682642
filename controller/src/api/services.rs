//! Services: what the controller adds when one is applied, and the pods behind one when it is asked for.

use super::Refusal;
use crate::{
    loops::services::facts,
    objects::{meta, service_spec},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::Ipv4Addr,
    sync::Arc,
};
use strata_dispatcher::{PodFacts, Serving};
use strata_model::{
    ServiceView, Subnet, Uid,
    limits::{ENDPOINTS_MAX, NODE_PORTS, SERVICES_MAX},
};
use strata_proto::{
    BadObject,
    types::{self, Endpoint, Kind, Object, ServiceSpec, object},
};
use strata_store::{Key, Snapshot};

/// A transport and a port on every node.
type Published = (i32, u32);

/// Fills in what the controller gives a service: its virtual address, and published ports where they are wanted. What it was given before stays.
/// The caller sees to it that no two services are completed at the same time.
pub(super) fn complete(
    snapshot: &Snapshot,
    range: Subnet,
    wanted: &Object,
    present: Option<&Object>,
) -> Result<Object, Refusal> {
    let mut object = wanted.clone();
    let key = Key::of(wanted);
    let old = present.and_then(service_spec);
    let Some(object::Kind::Service(service)) = &mut object.kind else { return Ok(object) };
    let Some(spec) = service.spec.as_mut() else { return Ok(object) };
    let mut others: Vec<Arc<Object>> = snapshot.list(Kind::Service, None).collect();
    others.retain(|o| Key::of(o) != key);
    if old.is_none() && others.len() >= SERVICES_MAX {
        let message = format!("there are {SERVICES_MAX} services, the limit of a cluster: delete some first");
        return Err(Refusal::precondition("TooManyServices", message));
    }
    if old.is_some_and(|old| old.headless != spec.headless) {
        return Err(Refusal::precondition(
            "Immutable",
            "spec.headless: a service has or has not a virtual address for life; delete it and apply it again",
        ));
    }
    give_address(range, &key, spec, old, &others)?;
    give_ports(spec, old, &others)?;
    Ok(object)
}

fn give_address(
    range: Subnet,
    key: &Key,
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    others: &[Arc<Object>],
) -> Result<(), Refusal> {
    if spec.headless {
        return Ok(());
    }
    if let Some(old) = old.filter(|old| !old.address.is_empty()) {
        if !spec.address.is_empty() && spec.address != old.address {
            let message = format!(
                "spec.address: a service keeps its address {} for life; delete it and apply it again",
                old.address
            );
            return Err(Refusal::precondition("Immutable", message));
        }
        spec.address.clone_from(&old.address);
        return Ok(());
    }
    let used: HashMap<&str, &Arc<Object>> =
        others.iter().filter_map(|o| Some((service_spec(o)?.address.as_str(), o))).collect();
    if let Ok(address) = spec.address.parse::<Ipv4Addr>() {
        let why = if !range.contains(address) {
            format!("{address} is not in service_cidr ({range})")
        } else if let Some(other) = used.get(spec.address.as_str()) {
            format!("{address} is the address of {}", Key::of(other))
        } else {
            return Ok(());
        };
        return Err(BadObject::new("spec.address", format!("{why}: leave it out, or choose another")).into());
    }
    // Where the search begins depends on the name: a service that is made anew likely finds the address it had.
    let last = range.last_index();
    let hash = strata_model::Digest::of(key.to_string().as_bytes());
    let start = u32::from_str_radix(&hash.hex()[..8], 16).unwrap_or(0) % last;
    let free = (0..last).filter_map(|n| range.address((start + n) % last + 1)).map(|a| a.to_string());
    let address = free.into_iter().find(|a| !used.contains_key(a.as_str()));
    spec.address = address.ok_or_else(|| {
        Refusal::precondition("NoAddress", format!("every address of service_cidr ({range}) is a service's"))
    })?;
    Ok(())
}

fn give_ports(spec: &mut ServiceSpec, old: Option<&ServiceSpec>, others: &[Arc<Object>]) -> Result<(), Refusal> {
    let mut used: HashMap<Published, &Arc<Object>> = HashMap::new();
    for other in others {
        let ports = service_spec(other).into_iter().flat_map(|s| &s.ports).filter(|p| p.published_port != 0);
        used.extend(ports.map(|p| ((p.protocol, p.published_port), other)));
    }
    let mut own: HashSet<Published> =
        spec.ports.iter().filter(|p| p.published_port != 0).map(|p| (p.protocol, p.published_port)).collect();
    for (i, port) in spec.ports.iter_mut().enumerate() {
        if port.published_port != 0 {
            if let Some(other) = used.get(&(port.protocol, port.published_port)) {
                let why = format!(
                    "{} {} is published by {}: choose another port, or delete that service",
                    port.protocol().as_str_name(),
                    port.published_port,
                    Key::of(other)
                );
                let message = format!("spec.ports[{i}].publishedPort: {why}");
                return Err(Refusal::precondition("PortInUse", message));
            }
            continue;
        }
        if !spec.node_ports {
            continue;
        }
        let before =
            old.into_iter().flat_map(|o| &o.ports).find(|p| p.protocol == port.protocol && p.port == port.port);
        let before = before.map(|p| p.published_port).filter(|p| *p != 0);
        let mut choices = before.into_iter().chain(u32::from(NODE_PORTS.0)..=u32::from(NODE_PORTS.1));
        let chosen = choices.find(|n| !used.contains_key(&(port.protocol, *n)) && !own.contains(&(port.protocol, *n)));
        port.published_port = chosen.ok_or_else(|| {
            let message = format!("every port from {} to {} is published by a service", NODE_PORTS.0, NODE_PORTS.1);
            Refusal::precondition("NoPort", message)
        })?;
        own.insert((port.protocol, port.published_port));
    }
    Ok(())
}

/// Puts the pods behind services into their status. The pods of a namespace are looked at once for all of its services.
#[derive(Default)]
pub(super) struct Endpoints {
    pods: BTreeMap<String, Vec<(String, PodFacts)>>,
}

impl Endpoints {
    /// Other objects than services stay as they are.
    pub fn fill(&mut self, snapshot: &Snapshot, object: &mut Object) {
        let Ok(view) = ServiceView::try_from(&*object) else { return };
        let namespace = view.name.namespace;
        let pods = self.pods.entry(namespace.clone()).or_insert_with(|| {
            let pods = snapshot.list(Kind::Pod, Some(&namespace)).map(|o| (meta(&o).name.clone(), facts(snapshot, &o)));
            pods.filter(|(_, pod)| pod.serving > Serving::Not && pod.address.is_some()).collect()
        });
        // Those that are not ready are shown too.
        let shown = strata_model::ServiceSpec { publish_not_ready: true, ..view.spec };
        let mut found: Vec<(&Uid, Endpoint)> = Vec::new();
        for (name, pod) in pods.iter() {
            if let Some(endpoint) = pod.endpoint(&shown) {
                let endpoint = Endpoint {
                    pod: name.clone(),
                    address: endpoint.address.to_string(),
                    node: endpoint.node,
                    ready: pod.serving == Serving::Ready,
                };
                found.push((&pod.uid, endpoint));
            }
        }
        found.sort_by_key(|(uid, _)| *uid);
        if let Some(object::Kind::Service(service)) = &mut object.kind {
            let endpoints = found.into_iter().take(ENDPOINTS_MAX).map(|(_, e)| e).collect();
            service.status = Some(types::ServiceStatus { endpoints });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use strata_proto::types::port::Protocol;

    fn spec(ports: &[(u32, u32)]) -> ServiceSpec {
        let port = |(port, published_port): &(u32, u32)| types::ServicePort {
            name: format!("p{port}"),
            port: *port,
            published_port: *published_port,
            protocol: Protocol::Tcp.into(),
            ..Default::default()
        };
        ServiceSpec { ports: ports.iter().map(port).collect(), ..Default::default() }
    }

    fn service(name: &str, spec: ServiceSpec) -> Object {
        let meta = types::Meta { namespace: "default".into(), name: name.into(), ..Default::default() };
        let service = types::Service { spec: Some(spec), status: None };
        Object { meta: Some(meta), kind: Some(object::Kind::Service(service)) }
    }

    fn range() -> Subnet {
        "10.128.0.0/29".parse().unwrap()
    }

    #[test]
    fn addresses_are_unique_until_there_are_none() {
        let mut others: Vec<Arc<Object>> = Vec::new();
        for n in 0..6 {
            let mut spec = spec(&[(80, 0)]);
            let key = Key::new(Kind::Service, "default", format!("s{n}"));
            give_address(range(), &key, &mut spec, None, &others).unwrap();
            assert!(others.iter().all(|o| service_spec(o).unwrap().address != spec.address), "{}", spec.address);
            others.push(Arc::new(service(&key.name, spec)));
        }
        let key = Key::new(Kind::Service, "default", "more");
        let refusal = give_address(range(), &key, &mut spec(&[(80, 0)]), None, &others).unwrap_err();
        assert_eq!(refusal.reason, "NoAddress");
    }

    #[test]
    fn a_published_port_that_is_taken_names_its_service_and_chosen_ones_avoid_it() {
        let others = [Arc::new(service("first", spec(&[(80, 30_000)])))];
        let refusal = give_ports(&mut spec(&[(81, 30_000)]), None, &others).unwrap_err();
        assert!(refusal.message.contains("default/first"), "{refusal}");
        let mut chosen = ServiceSpec { node_ports: true, ..spec(&[(80, 0), (81, 0), (82, 30_001)]) };
        give_ports(&mut chosen, None, &others).unwrap();
        let ports: Vec<u32> = chosen.ports.iter().map(|p| p.published_port).collect();
        assert_eq!(ports, [30_002, 30_003, 30_001]);
        let mut again = ServiceSpec { node_ports: true, ..spec(&[(81, 0)]) };
        give_ports(&mut again, Some(&chosen), &others).unwrap();
        assert_eq!(again.ports[0].published_port, 30_003);
    }
}
