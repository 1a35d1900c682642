//! Finding out what an image's name means now, for the controller.

use super::{RESOLVES_AT_ONCE, RESOLVES_WAITING_MAX, SEND_TIMEOUT};
use crate::world::World;
use std::sync::Arc;
use strata_model::ImageName;
use strata_proto::dispatch::{AgentMessage, ResolveImage, ResolveReply, agent_message::Message};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

/// The resolutions of one session; they end with it.
pub(super) struct Resolver<W> {
    world: Arc<W>,
    up: mpsc::Sender<AgentMessage>,
    at_once: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl<W: World> Resolver<W> {
    pub(super) fn new(world: Arc<W>, up: mpsc::Sender<AgentMessage>) -> Self {
        Self { world, up, at_once: Arc::new(Semaphore::new(RESOLVES_AT_ONCE)), tasks: JoinSet::new() }
    }

    pub(super) fn ask(&mut self, request: ResolveImage) {
        while self.tasks.try_join_next().is_some() {}
        let overloaded = self.tasks.len() >= RESOLVES_WAITING_MAX;
        let (world, up, at_once) = (self.world.clone(), self.up.clone(), self.at_once.clone());
        self.tasks.spawn(async move {
            let reply = if overloaded {
                let message = format!("{RESOLVES_WAITING_MAX} references wait on this node; ask another one or later");
                ResolveReply { id: request.id, image: None, reason: "Overloaded".into(), message }
            } else {
                let _permit = at_once.acquire().await.ok();
                answer(&*world, request).await
            };
            // A session that has ended asks again in the next one.
            drop(up.send_timeout(AgentMessage { message: Some(Message::Resolved(reply)) }, SEND_TIMEOUT).await);
        });
    }
}

async fn answer<W: World>(world: &W, request: ResolveImage) -> ResolveReply {
    let failed = |reason: String, message: String| ResolveReply { id: request.id, image: None, reason, message };
    let name = match ImageName::parse(&request.image) {
        Ok(name) => name,
        Err(e) => return failed("InvalidImageName".into(), e.to_string()),
    };
    match world.resolve(&name).await {
        Ok(image) => ResolveReply { id: request.id, image: Some(image), ..Default::default() },
        Err(trouble) => failed(trouble.reason, trouble.message),
    }
}
