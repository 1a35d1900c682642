//! Who has it: the controller's answer, as sources.

use crate::{PeerSource, limits};
use futures::{FutureExt as _, future::BoxFuture};
use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
};
use strata_image::{Holder, ImageError, Locate, Result};
use strata_model::Digest;
use strata_proto::cluster::{self, LocateRequest, LocateResponse};
use strata_transport::{Identity, client::channel_lazy, node_server_name};
use tokio::time::timeout;
use tonic::{Status, transport::Channel};

/// Asks the controller who has layers or images.
pub trait AskController: Send + Sync {
    /// Performs the controller's `Locate`.
    fn locate(&self, request: LocateRequest) -> BoxFuture<'_, Result<LocateResponse, Status>>;
}

impl<F> AskController for F
where
    F: Fn(LocateRequest) -> BoxFuture<'static, Result<LocateResponse, Status>> + Send + Sync,
{
    fn locate(&self, request: LocateRequest) -> BoxFuture<'_, Result<LocateResponse, Status>> {
        self(request)
    }
}

/// The other nodes.
pub struct Peers {
    node: String,
    controller: Arc<dyn AskController>,
    state: Mutex<State>,
}

struct State {
    identity: Identity,
    /// By node and address.
    channels: HashMap<(String, String), Channel>,
}

impl Peers {
    /// `node` is this node's own name, `identity` what it shows to the others.
    pub fn new(node: &str, identity: Identity, controller: Arc<dyn AskController>) -> Self {
        Self { node: node.to_owned(), controller, state: Mutex::new(State { identity, channels: HashMap::new() }) }
    }

    /// Shows a renewed certificate from the next connection on.
    pub fn set_identity(&self, identity: Identity) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.identity = identity;
        state.channels.clear();
    }

    fn channel(&self, node: &str, address: &str) -> Result<Channel> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (node.to_owned(), address.to_owned());
        if let Some(channel) = state.channels.get(&key) {
            return Ok(channel.clone());
        }
        let channel = channel_lazy(address, &state.identity, &node_server_name(node)).map_err(|e| {
            ImageError::PeerUnreachable {
                what: "a channel".into(),
                from: format!("node {node}"),
                detail: e.to_string(),
            }
        })?;
        if state.channels.len() >= limits::CHANNELS_KEPT {
            state.channels.clear();
        }
        state.channels.insert(key, channel.clone());
        Ok(channel)
    }

    async fn ask(&self, diff_ids: &[Digest], images: &[Digest]) -> Result<Vec<Holder>> {
        let failed = |detail: String| ImageError::PeerUnreachable {
            what: "the list of nodes that have the image".into(),
            from: "the controller".into(),
            detail,
        };
        let text = |digests: &[Digest]| digests.iter().map(ToString::to_string).collect();
        let request =
            LocateRequest { diff_ids: text(diff_ids), image_digests: text(images), ..LocateRequest::default() };
        let answer = timeout(limits::LOCATE_TIMEOUT, self.controller.locate(request))
            .await
            .map_err(|_| failed("it does not answer in time".into()))?
            .map_err(|status| failed(status.message().to_owned()))?;
        let mut holders: Vec<cluster::Holder> = answer
            .holders
            .into_iter()
            .filter(|holder| holder.node != self.node && !holder.address.is_empty())
            .collect();
        self.spread(&mut holders, images.first().or(diff_ids.first()));
        let usable = holders.into_iter().take(limits::HOLDERS_MAX).filter_map(|holder| {
            let channel = self.channel(&holder.node, &holder.address).inspect_err(|error| {
                tracing::warn!(node = holder.node, %error, "cannot use a peer");
            });
            let parsed = |texts: Vec<String>| texts.iter().filter_map(|text| text.parse().ok()).collect::<HashSet<_>>();
            Some(Holder {
                source: Arc::new(PeerSource::new(&holder.node, channel.ok()?)),
                diff_ids: parsed(holder.diff_ids),
                images: parsed(holder.image_digests),
            })
        });
        Ok(usable.collect())
    }

    /// Lets every node begin with another holder, so that one is not asked by all.
    fn spread(&self, holders: &mut [cluster::Holder], what: Option<&Digest>) {
        if holders.is_empty() {
            return;
        }
        let mut hasher = DefaultHasher::new();
        (&self.node, what.map(Digest::hex)).hash(&mut hasher);
        let first = hasher.finish() % holders.len() as u64;
        holders.rotate_left(usize::try_from(first).unwrap_or(0));
    }
}

impl Locate for Peers {
    fn locate<'a>(&'a self, diff_ids: &'a [Digest], images: &'a [Digest]) -> BoxFuture<'a, Result<Vec<Holder>>> {
        self.ask(diff_ids, images).boxed()
    }
}
