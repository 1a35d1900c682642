//! What nodes and pods use: asked of the nodes when somebody wants to know.

use crate::{
    api::{ApiState, Refusal, limits, select},
    objects::{meta, pod_spec},
};
use futures::{StreamExt as _, stream};
use strata_proto::{
    cluster::{NodeStats, StatsRequest, StatsResponse},
    node,
    types::Kind,
};
use strata_store::{Key, Snapshot};
use tonic::Status;

/// Asks every ready node, or the one that is named.
pub async fn stats(state: &ApiState, request: StatsRequest) -> Result<StatsResponse, Status> {
    let snapshot = &state.store.snapshot();
    let names = if request.node.is_empty() {
        select::ready_nodes(snapshot)
    } else {
        let key = Key::new(Kind::Node, "", request.node.clone());
        snapshot.get(&key).ok_or_else(|| Refusal::not_found(&key))?;
        vec![request.node.clone()]
    };
    let (request, namespace) = (&request, request.namespace.as_str());
    let mut nodes: Vec<NodeStats> = stream::iter(names)
        .map(|name| async move {
            let pod_uids = uids(snapshot, &name, namespace);
            let asked = match request.pods {
                true => node::StatsRequest { pod_uids },
                // No pod has this uid: the node's own figures are wanted.
                false => node::StatsRequest { pod_uids: vec!["-".into()] },
            };
            let found = async {
                let api = state.nodes.of(snapshot, &name).await?;
                let mut client = api.client.clone();
                Ok::<_, Status>(api.answer(limits::NODE_ANSWER_TIMEOUT, client.stats(asked)).await?.into_inner())
            };
            match found.await {
                Ok(stats) => NodeStats { node: name, stats: Some(stats), error: String::new() },
                Err(status) => NodeStats { node: name, stats: None, error: status.message().to_owned() },
            }
        })
        .buffer_unordered(limits::NODES_AT_ONCE)
        .collect()
        .await;
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(StatsResponse { nodes })
}

fn uids(snapshot: &Snapshot, node: &str, namespace: &str) -> Vec<String> {
    let pods = snapshot.pods_of_node(node);
    let wanted = pods.filter(|p| namespace.is_empty() || meta(p).namespace == namespace);
    let mut uids: Vec<String> =
        wanted.filter(|p| pod_spec(p).address_index > 0).map(|p| meta(&p).uid.clone()).collect();
    // An empty list would mean all.
    uids.push("-".into());
    uids
}
