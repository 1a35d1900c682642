//! `v1` Service.

use strata_proto::types::{self, ServicePort, ServiceSpec, object::Kind, port::Protocol};

use super::{TOP, container::PROTOCOL, meta};
use crate::{
    at::At,
    read::{fields, whole},
    report::Report,
    scalar::cut,
    table::{
        Class::{NoEffect, NotYet, Only, Read},
        Table,
    },
    tree::{Node, Value},
};

const BALANCER: &str = "a LoadBalancer is published on every node, at its `port`; put your own balancer in front";

const SPEC: Table = &[
    ("type", Read),
    ("selector", Read),
    ("ports", Read),
    ("clusterIP", Read),
    ("publishNotReadyAddresses", Read),
    ("sessionAffinity", Read),
    ("externalTrafficPolicy", Read),
    ("externalName", Read),
    ("clusterIPs", NoEffect("`clusterIP` says it")),
    ("ipFamilies", NoEffect("the cluster's own address family is used")),
    ("ipFamilyPolicy", NoEffect("the cluster's own address family is used")),
    ("sessionAffinityConfig", NoEffect("how long a client keeps its pod is not configurable")),
    ("internalTrafficPolicy", Only(&["Cluster"])),
    ("allocateLoadBalancerNodePorts", NoEffect(BALANCER)),
    ("loadBalancerClass", NoEffect(BALANCER)),
    ("loadBalancerIP", NoEffect(BALANCER)),
    ("loadBalancerSourceRanges", NotYet),
    ("healthCheckNodePort", NoEffect(BALANCER)),
    ("trafficDistribution", NoEffect("connections go to all ready pods alike")),
    ("externalIPs", NotYet),
];

const PORT: Table = &[
    ("name", Read),
    ("protocol", Read),
    ("port", Read),
    ("targetPort", Read),
    ("nodePort", Read),
    ("appProtocol", NoEffect("connections are balanced, whatever is spoken in them")),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

const TYPES: &[(&str, Type)] = &[
    ("ClusterIP", Type::ClusterIp),
    ("NodePort", Type::NodePort),
    ("LoadBalancer", Type::LoadBalancer),
    ("ExternalName", Type::ExternalName),
];

/// Reads the document.
pub(crate) fn read(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    let top = fields(root, at, TOP, report)?;
    let meta = meta::object(&top, true, report);
    let here = at.field("spec");
    let spec_node = top.require("spec", report)?;
    let spec = fields(spec_node, here, SPEC, report)?;
    let kind = spec.word("type", TYPES, report).unwrap_or(Type::ClusterIp);
    if kind == Type::ExternalName || spec.get("externalName").is_some_and(|n| !n.is_default()) {
        let pos = spec.get("type").map_or(spec_node.pos, |n| n.pos);
        let message =
            "ExternalName (another name for a host outside) is not supported yet: give the pods that name itself";
        report.error(pos, here.field("type"), message);
        return None;
    }
    let address = spec.text("clusterIP", report).unwrap_or_default();
    let headless = address == "None";
    if headless && kind != Type::ClusterIp {
        report.error(spec_node.pos, here.field("clusterIP"), "a headless service (None) cannot be published");
    }
    let selector = spec.strings("selector", report);
    if selector.is_empty() {
        report.warn(spec_node.pos, here, "without a `selector` the service has no pods: its connections are refused");
    }
    let ports = spec.list("ports", report, |node, at, report| port(node, at, kind, report));
    if ports.is_empty() && !headless && spec.get("ports").is_none_or(Node::is_default) {
        report.error(spec_node.pos, here, "`ports` is missing: only a headless service (clusterIP: None) has none");
    }
    let affinity = spec.word("sessionAffinity", &[("None", false), ("ClientIP", true)], report);
    let local = spec.word("externalTrafficPolicy", &[("Cluster", false), ("Local", true)], report);
    let spec = ServiceSpec {
        selector,
        ports,
        address: if headless { String::new() } else { address },
        headless,
        publish_not_ready: spec.flag("publishNotReadyAddresses", report).unwrap_or_default(),
        client_affinity: affinity.unwrap_or_default(),
        node_ports: kind == Type::NodePort,
        local_only: local.unwrap_or_default(),
    };
    Some(types::Object {
        meta: Some(meta?),
        kind: Some(Kind::Service(types::Service { spec: Some(spec), status: None })),
    })
}

fn port(node: &Node, at: At<'_>, kind: Type, report: &mut Report) -> Option<ServicePort> {
    let p = fields(node, at, PORT, report)?;
    let port = number(p.require("port", report)?, at.field("port"), report)?;
    let (target_port, target_port_name) = match p.get("targetPort") {
        None => (0, String::new()),
        Some(target) => match &target.value {
            Value::Scalar { text, plain } if !plain || !text.bytes().all(|b| b.is_ascii_digit()) => {
                if !is_port_name(text) {
                    let message = format!(
                        "{:?} is no name of a port: at most 15 of a-z, 0-9 and '-', a letter among them",
                        cut(text)
                    );
                    report.error(target.pos, at.field("targetPort"), message);
                    return None;
                }
                (0, text.clone())
            }
            _ => (number(target, at.field("targetPort"), report)?, String::new()),
        },
    };
    let node_port = match p.get("nodePort").filter(|n| !n.is_default()) {
        None => 0,
        Some(node) if kind == Type::LoadBalancer => {
            report.warn(node.pos, at.field("nodePort"), format!("has no effect here: {BALANCER}"));
            0
        }
        Some(node) if kind == Type::ClusterIp => {
            report.error(node.pos, at.field("nodePort"), "only a service of type NodePort has one");
            0
        }
        Some(node) => number(node, at.field("nodePort"), report)?,
    };
    let protocol: Protocol = p.word("protocol", PROTOCOL, report).unwrap_or_default();
    Some(ServicePort {
        name: p.text("name", report).unwrap_or_default(),
        protocol: protocol.into(),
        port,
        target_port,
        target_port_name,
        published_port: if kind == Type::LoadBalancer { port } else { node_port },
    })
}

fn is_port_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

fn number(node: &Node, at: At<'_>, report: &mut Report) -> Option<u32> {
    let port = whole(node, at, 65_535, report)?;
    if port == 0 {
        report.error(node.pos, at, "a port is 1 to 65535");
        return None;
    }
    u32::try_from(port).ok()
}
