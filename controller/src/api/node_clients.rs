//! Channels to the agents' node API: one per node, made when first needed, verified by the node's name.

use super::Refusal;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use strata_proto::{
    node::node_client::NodeClient,
    types::{Kind, NodeStatus, Object, object},
};
use strata_store::{Key, Snapshot};
use strata_transport::{Identity, client, node_server_name};
use tonic::{Code, Status, transport::Channel};

/// The channels that are open. One per node that exists; those of nodes that are gone are dropped on the way.
pub struct NodeClients {
    identity: Identity,
    open: Mutex<HashMap<String, Open>>,
}

struct Open {
    address: String,
    channel: Channel,
}

/// A node's API with the name for messages.
#[derive(Clone)]
pub(super) struct NodeApi {
    pub name: String,
    pub address: String,
    pub client: NodeClient<Channel>,
}

impl NodeClients {
    /// With the controller's identity.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self { identity, open: Mutex::default() }
    }

    /// The API of a node as the store knows it.
    pub(super) async fn of(&self, snapshot: &Snapshot, node: &str) -> Result<NodeApi, Refusal> {
        let object = snapshot.get(&Key::new(Kind::Node, "", node));
        let address =
            object.as_deref().and_then(status).and_then(address_of).ok_or_else(|| {
                unreachable(node, "it has not told its address yet: wait until its agent is connected")
            })?;
        if let Some(channel) = self.known(snapshot, node, &address) {
            return Ok(api(node, address, channel));
        }
        let channel = client::channel(&address, &self.identity, &node_server_name(node))
            .await
            .map_err(|e| unreachable(node, &e.to_string()))?;
        let open = Open { address: address.clone(), channel: channel.clone() };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), open);
        Ok(api(node, address, channel))
    }

    fn known(&self, snapshot: &Snapshot, node: &str, address: &str) -> Option<Channel> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(node).filter(|o| o.address == address) {
            return Some(known.channel.clone());
        }
        open.remove(node);
        open.retain(|name, _| snapshot.get(&Key::new(Kind::Node, "", name)).is_some());
        None
    }
}

fn api(node: &str, address: String, channel: Channel) -> NodeApi {
    NodeApi { name: node.to_owned(), address, client: NodeClient::new(channel) }
}

fn unreachable(node: &str, why: &str) -> Refusal {
    Refusal::new(Code::Unavailable, "NodeUnreachable", format!("node {node} cannot be reached: {why}"))
}

impl NodeApi {
    /// Waits for the node's first answer to a call, within a bound, and names the node in what goes wrong.
    pub async fn answer<T>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(within, call).await {
            Ok(result) => result.map_err(|status| self.name_it(status)),
            Err(_) => Err(Refusal::new(
                Code::Unavailable,
                "NodeUnreachable",
                format!("node {} ({}) did not answer within {} s", self.name, self.address, within.as_secs()),
            )
            .into()),
        }
    }

    /// A node's own refusal passes with its words; a broken connection is said to be one.
    pub fn name_it(&self, status: Status) -> Status {
        let broken = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
        if broken && status.metadata().get(super::REASON_KEY).is_none() {
            return unreachable(&self.name, &format!("{} ({})", status.message(), self.address)).into();
        }
        status
    }
}

/// The status of a node's object.
pub(super) fn status(object: &Object) -> Option<&NodeStatus> {
    match &object.kind {
        Some(object::Kind::Node(node)) => node.status.as_ref(),
        _ => None,
    }
}

/// `host:port` of a node's API.
pub(super) fn address_of(status: &NodeStatus) -> Option<String> {
    let known = !status.address.is_empty() && status.port != 0;
    known.then(|| match status.address.contains(':') {
        true => format!("[{}]:{}", status.address, status.port),
        false => format!("{}:{}", status.address, status.port),
    })
}
