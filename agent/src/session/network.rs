//! Keeping the node's network as the controller last described it: the newest word counts, and is tried until it is true.

use crate::world::{Network, PeerNode, World};
use std::{sync::Arc, time::Duration};
use strata_model::Subnet;
use strata_proto::dispatch::Peer;
use tokio::sync::watch;

/// The wait before the network is tried again.
const RETRY: Duration = Duration::from_secs(3);

/// What the network should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub subnet: Option<Subnet>,
    pub peers: Vec<PeerNode>,
}

pub(super) async fn keep<W: World>(world: Arc<W>, mut wanted: watch::Receiver<Wanted>) {
    loop {
        let now = wanted.borrow_and_update().clone();
        let done = match now.subnet {
            None => Ok(()),
            Some(subnet) => match Network::set_subnet(&*world, subnet).await {
                Ok(()) => world.set_peers(&now.peers).await,
                error => error,
            },
        };
        let retry = async {
            match &done {
                Ok(()) => std::future::pending().await,
                Err(trouble) => {
                    tracing::warn!(reason = trouble.reason, "the node's network is not as it should be: {trouble}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = retry => {}
        }
    }
}

/// The peers that make sense; others are warned of.
pub(super) fn peers(list: Vec<Peer>) -> Vec<PeerNode> {
    let peer = |p: Peer| {
        let port = u16::try_from(p.port).ok()?;
        Some(PeerNode { address: p.address.parse().ok()?, subnet: p.subnet.parse().ok()?, port, node: p.node })
    };
    list.into_iter()
        .filter_map(|p| {
            let name = p.node.clone();
            let made = peer(p);
            if made.is_none() {
                tracing::warn!(node = name, "a peer without a usable address or subnet is left out");
            }
            made
        })
        .collect()
}
