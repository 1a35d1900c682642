//! Bridge, addresses and routes of this machine.

use super::{Node, lock, sandboxes::hostname};
use crate::world::{Network, PeerNode, PodSpec, ServiceRanges, Trouble};
use std::{collections::HashSet, net::IpAddr, net::Ipv4Addr, os::fd::BorrowedFd, sync::Arc};
use strata_model::Subnet;
use strata_network::{NetworkError, NodeNetwork, Peer, host_ifname};

/// In a pod's directory: the name of the host's end of its link.
pub(super) const LINK: &str = "link";

impl Network for Node {
    async fn set_subnet(&self, subnet: Subnet) -> Result<(), Trouble> {
        *lock(&self.subnet) = Some(subnet);
        let network =
            Arc::new(NodeNetwork::ensure(&self.setup.bridge, subnet, None, self.setup.overlay).await.map_err(trouble)?);
        let first = lock(&self.network).is_none();
        if first {
            // Before any pod can be attached: what no pod's directory names is left of a crash or a reboot.
            network.sweep(&self.links()).await.map_err(trouble)?;
        }
        *lock(&self.network) = Some(network);
        Ok(())
    }

    async fn set_peers(&self, peers: &[PeerNode]) -> Result<(), Trouble> {
        let network = self.network()?;
        let v4 = |p: &PeerNode| match p.address {
            IpAddr::V4(address) => Some(Peer { subnet: p.subnet, address }),
            IpAddr::V6(_) => None,
        };
        let wanted: Vec<Peer> = peers.iter().filter_map(v4).collect();
        let changes = network.ensure_peer_routes(&wanted).await.map_err(trouble)?;
        if changes.set + changes.removed > 0 {
            tracing::info!(set = changes.set, removed = changes.removed, "routes to the other nodes' pods");
        }
        match changes.failed.into_iter().next() {
            None => Ok(()),
            Some((peer, e)) => {
                Err(Trouble::new(e.reason(), format!("no route to {} by {}: {e}", peer.subnet, peer.address)))
            }
        }
    }

    async fn set_services(
        &self,
        ranges: &ServiceRanges,
        frame: &strata_proto::dispatch::Services,
    ) -> Result<(), Trouble> {
        self.take_services(ranges, frame).await
    }

    fn pod_address(&self, index: u32) -> Option<Ipv4Addr> {
        lock(&self.subnet).and_then(|s| s.address(index)).filter(|_| index > 1)
    }
}

impl Node {
    pub(super) fn network(&self) -> Result<Arc<NodeNetwork>, Trouble> {
        lock(&self.network).clone().ok_or_else(|| {
            Trouble::new(
                "NetworkNotReady",
                "the node's bridge is not made yet: the controller has not given it a subnet, or the log says why",
            )
        })
    }

    /// Gives the pod its address. The link's name is new for each sandbox: the one before may still be on its way out.
    pub(super) async fn attach(&self, pod: &PodSpec, netns: BorrowedFd<'_>) -> Result<(), Trouble> {
        let network = self.network()?;
        let address = self.pod_address(pod.address_index).ok_or_else(|| {
            let index = pod.address_index;
            Trouble::new("CreateError", format!("index {index} is no address of a pod in {}", network.subnet()))
        })?;
        let link = host_ifname(&format!("{}/{}", pod.uid, uuid::Uuid::new_v4()));
        // Its name is on disk before it is there: a sweep spares it.
        std::fs::write(pod.dir.join(LINK), &link)
            .map_err(|e| Trouble::new("CreateError", format!("writing {}: {e}", pod.dir.join(LINK).display())))?;
        network.attach(netns, &link, address).await.map_err(trouble)?;
        let told = self.names.domain();
        let domain = if told.is_empty() { strata_model::limits::CLUSTER_DOMAIN } else { &told };
        super::etc::write(&pod.dir, &hostname(pod), address, &pod.name.namespace, (network.gateway(), domain))
            .map_err(|e| Trouble::new("CreateError", format!("writing {}: {e}", pod.dir.join("etc").display())))
    }

    fn links(&self) -> HashSet<String> {
        let pods = std::fs::read_dir(self.setup.state_dir.join("pods"));
        let entries = pods.into_iter().flatten().flatten();
        entries.filter_map(|e| std::fs::read_to_string(e.path().join(LINK)).ok()).collect()
    }
}

pub(super) fn trouble(e: NetworkError) -> Trouble {
    Trouble::new(e.reason(), e.to_string())
}
