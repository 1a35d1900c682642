//! Services: one name and address for the pods that labels choose.

use crate::{Labels, ObjectName, Protocol};
use alloc::{string::String, vec::Vec};
use core::net::Ipv4Addr;

/// What a service is asked to be, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceSpec {
    /// Labels of its pods, all must be equal; empty: no pods.
    pub selector: Labels,
    /// In the order of the spec.
    pub ports: Vec<ServicePort>,
    /// Virtual; `None` until the controller has given one, and in headless services.
    pub address: Option<Ipv4Addr>,
    /// DNS gives the pods' own addresses.
    pub headless: bool,
    /// Also pods that are not ready.
    pub publish_not_ready: bool,
    /// A client's connections go to one pod.
    pub client_affinity: bool,
    /// A published port is chosen for each port that has none.
    pub node_ports: bool,
    /// Published ports reach only pods of the node that was asked.
    pub local_only: bool,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Within the service; "" if it has only one.
    pub name: String,
    /// Transport.
    pub protocol: Protocol,
    /// At the virtual address.
    pub port: u16,
    /// Of the pods.
    pub target: TargetPort,
    /// On every node.
    pub published: Option<u16>,
}

/// Which port of a pod is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// This one.
    Number(u16),
    /// The container port of this name.
    Named(String),
}

/// A service with the pods behind it, as a node is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceView {
    /// Namespace and name.
    pub name: ObjectName,
    /// Checked.
    pub spec: ServiceSpec,
    /// Where its connections go.
    pub endpoints: Vec<Endpoint>,
}

/// A pod behind a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The pod's.
    pub address: Ipv4Addr,
    /// Where it is.
    pub node: String,
    /// Its own name below the service's in DNS; "" = none.
    pub hostname: String,
    /// The target port of each of the spec's ports, in order; 0 = the pod has none of that name.
    pub ports: Vec<u16>,
}
