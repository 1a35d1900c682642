//! Which nodes are connected, and what their sessions have to say to the loops.

use super::{Outgoing, down};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use strata_proto::{
    dispatch::{ControllerMessage, Refused, ResolveImage, ResolveReply, controller_message},
    types::ImageSpec,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// One open session.
pub struct Link {
    /// Whose.
    pub node: String,
    /// No two sessions have the same.
    pub id: u64,
    out: Outgoing,
    end: CancellationToken,
    /// Welcome has been sent: assignments may follow.
    announced: AtomicBool,
    acknowledged: AtomicU64,
    resync: AtomicBool,
    services_in_effect: AtomicU64,
}

impl Link {
    /// Room for one message, or `None` when the node does not read fast enough.
    #[must_use]
    pub fn room(&self) -> Option<mpsc::Permit<'_, Result<ControllerMessage, Status>>> {
        self.out.try_reserve().ok()
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.out.is_closed() || self.end.is_cancelled()
    }

    /// The newest generation that the node has in its ledger; 0 = none.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// The newest sequence of services that is in effect on the node; 0 = none.
    #[must_use]
    pub fn services_in_effect(&self) -> u64 {
        self.services_in_effect.load(Ordering::Acquire)
    }

    /// Whether the node asked for a full frame since the last look.
    #[must_use]
    pub fn take_resync(&self) -> bool {
        self.resync.swap(false, Ordering::AcqRel)
    }

    /// Waits until the session is told to end.
    pub(super) async fn ended(&self) {
        self.end.cancelled().await;
    }
}

/// Why an agent could not say what an image name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveError {
    /// One word: ImageNotFound, Unauthorized, RegistryUnreachable, TimedOut, NoNodes …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// All open sessions.
#[derive(Default)]
pub struct Sessions {
    inner: Mutex<Inner>,
    /// Wakes the dispatch loop.
    news: Notify,
}

#[derive(Default)]
struct Inner {
    links: BTreeMap<String, Arc<Link>>,
    /// Nodes whose session has something new for the dispatch loop.
    changed: BTreeSet<String>,
    next_id: u64,
    opened: u64,
    /// Questions under way, by their number: which session was asked, and who waits.
    questions: HashMap<u64, (u64, oneshot::Sender<ResolveReply>)>,
    /// Pods that nodes still have although the store does not know them, with their address indexes.
    strangers: HashMap<String, BTreeMap<String, u32>>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many were opened so far.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.lock().opened
    }

    /// Opens a session; an earlier one of the same node is told that it is superseded and ends.
    pub(super) fn open(&self, node: &str, out: Outgoing) -> Arc<Link> {
        let mut inner = self.lock();
        inner.next_id += 1;
        inner.opened += 1;
        let link = Arc::new(Link {
            node: node.to_owned(),
            id: inner.next_id,
            out,
            end: CancellationToken::new(),
            announced: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            resync: AtomicBool::new(false),
            services_in_effect: AtomicU64::new(0),
        });
        if let Some(old) = inner.links.insert(node.to_owned(), link.clone()) {
            let message = "another agent with this node's name has connected".to_owned();
            let refused = Refused { reason: "Superseded".to_owned(), message };
            // If its queue is full it learns it from the end of the stream.
            old.out.try_send(Ok(down(controller_message::Message::Refused(refused)))).ok();
            old.end.cancel();
        }
        link
    }

    /// The session is welcome: assignments may follow.
    pub(super) fn announce(&self, link: &Link) {
        link.announced.store(true, Ordering::Release);
        self.changed(link);
    }

    /// Forgets a session, unless a newer one took its place.
    pub(super) fn close(&self, link: &Link) {
        link.end.cancel();
        let mut inner = self.lock();
        if inner.links.get(&link.node).is_some_and(|l| l.id == link.id) {
            inner.links.remove(&link.node);
        }
        // Who waits for its answers learns that there are none.
        inner.questions.retain(|_, (session, _)| *session != link.id);
    }

    /// Ends the session of a node, if it has one: its lease has ended.
    pub fn end(&self, node: &str) {
        if let Some(link) = self.lock().links.get(node) {
            link.end.cancel();
        }
    }

    /// Ends every session: the controller is shutting down.
    pub fn end_all(&self) {
        self.lock().links.values().for_each(|link| link.end.cancel());
    }

    pub(super) fn acknowledged(&self, link: &Link, generation: u64) {
        link.acknowledged.fetch_max(generation, Ordering::AcqRel);
        self.changed(link);
    }

    pub(super) fn services_in_effect(&self, link: &Link, sequence: u64) {
        link.services_in_effect.fetch_max(sequence, Ordering::AcqRel);
        self.changed(link);
    }

    pub(super) fn wants_resync(&self, link: &Link) {
        link.resync.store(true, Ordering::Release);
        self.changed(link);
    }

    fn changed(&self, link: &Link) {
        self.lock().changed.insert(link.node.clone());
        self.news.notify_one();
    }

    /// Waits until a session has something new for the dispatch loop.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// The nodes whose sessions have something new; asked once.
    #[must_use]
    pub fn take_news(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.lock().changed)
    }

    /// The session of a node that may be sent assignments.
    #[must_use]
    pub fn link(&self, node: &str) -> Option<Arc<Link>> {
        self.lock().links.get(node).filter(|l| l.announced.load(Ordering::Acquire) && !l.is_closed()).cloned()
    }

    /// The names of the connected nodes.
    #[must_use]
    pub fn connected(&self) -> Vec<String> {
        let inner = self.lock();
        inner
            .links
            .values()
            .filter(|l| l.announced.load(Ordering::Acquire) && !l.is_closed())
            .map(|l| l.node.clone())
            .collect()
    }

    /// Asks a node what an image name means now.
    ///
    /// # Errors
    /// What the node answers, `TimedOut` after `timeout`, `NoNodes` if it is not connected any more.
    pub async fn resolve(&self, node: &str, image: &str, timeout: Duration) -> Result<ImageSpec, ResolveError> {
        let failed = |reason: &str, message: String| ResolveError { reason: reason.to_owned(), message };
        let gone = || failed("NoNodes", format!("node {node} disconnected before it could say what {image} is"));
        let link = self.link(node).ok_or_else(gone)?;
        let (reply, answer) = oneshot::channel();
        let id = {
            let mut inner = self.lock();
            inner.next_id += 1;
            let id = inner.next_id;
            inner.questions.insert(id, (link.id, reply));
            id
        };
        let ask = async {
            let question = ResolveImage { id, image: image.to_owned() };
            link.out.send(Ok(down(controller_message::Message::Resolve(question)))).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())
        };
        let result = tokio::time::timeout(timeout, ask).await;
        self.lock().questions.remove(&id);
        let reply = result.map_err(|_| {
            failed("TimedOut", format!("node {node} did not find out what {image} is within {} s", timeout.as_secs()))
        })??;
        match reply.image {
            Some(image) if reply.reason.is_empty() => Ok(image),
            _ if reply.reason.is_empty() => Err(failed("BadAnswer", format!("node {node} answered without an image"))),
            _ => Err(ResolveError { reason: reply.reason, message: reply.message }),
        }
    }

    pub(super) fn resolved(&self, link: &Link, reply: ResolveReply) {
        let mut inner = self.lock();
        // Only the session that was asked may answer.
        if inner.questions.get(&reply.id).is_some_and(|(session, _)| *session == link.id)
            && let Some((_, waiting)) = inner.questions.remove(&reply.id)
        {
            // Nobody waits any more if the time was up.
            waiting.send(reply).ok();
        }
    }

    /// Remembers which pods a node still has although it should not: their addresses are not free.
    pub(super) fn set_strangers(&self, node: &str, pods: BTreeMap<String, u32>) {
        let mut inner = self.lock();
        if pods.is_empty() {
            inner.strangers.remove(node);
        } else {
            inner.strangers.insert(node.to_owned(), pods);
        }
    }

    pub(super) fn stranger_gone(&self, node: &str, uid: &str) {
        let mut inner = self.lock();
        if let Some(pods) = inner.strangers.get_mut(node) {
            pods.remove(uid);
            if pods.is_empty() {
                inner.strangers.remove(node);
            }
        }
    }

    /// The address indexes on a node that pods hold which the store does not know any more.
    #[must_use]
    pub fn strangers(&self, node: &str) -> Vec<u32> {
        self.lock().strangers.get(node).map(|pods| pods.values().copied().collect()).unwrap_or_default()
    }
}
