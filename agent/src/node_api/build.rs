//! Builds: the context comes in as a tar, progress goes out, and in the end the image or what went wrong.

use super::{NodeApi, Out, STREAM_WAITING_MAX};
use crate::node::spec_of_stored;
use std::sync::Arc;
use strata_build::{BuildError, BuildRequest, Builder, Built, Event, Events, limits};
use strata_model::{Digest, ImageName};
use strata_proto::node::{BuildChunk, BuildProgress, BuildStart, ImportedImage, build_chunk::Message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// The builds of this node.
pub struct Builds {
    builder: Arc<Builder>,
    context_bytes_max: u64,
    running: Arc<Semaphore>,
}

impl Builds {
    /// With the bound of a context, in bytes of its tar.
    #[must_use]
    pub fn new(builder: Arc<Builder>, context_bytes_max: u64) -> Self {
        Self { builder, context_bytes_max, running: Arc::new(Semaphore::new(limits::BUILDS_AT_ONCE)) }
    }

    /// The layer cache, for garbage collection.
    #[must_use]
    pub fn builder(&self) -> &Arc<Builder> {
        &self.builder
    }

    fn begin(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.running.clone().try_acquire_owned().map_err(|_| {
            let most = limits::BUILDS_AT_ONCE;
            Status::resource_exhausted(format!(
                "the node builds {most} images already; try again later or on another node"
            ))
        })
    }
}

/// A context that is removed when the build has ended.
struct Context {
    builder: Arc<Builder>,
    digest: Digest,
}

impl Drop for Context {
    fn drop(&mut self) {
        let (builder, digest) = (self.builder.clone(), self.digest.clone());
        // On a thread that may block; at the agent's end the next one sweeps.
        tokio::task::spawn_blocking(move || builder.forget(&digest));
    }
}

impl NodeApi {
    /// The context is taken in before the answer begins, so an error of it is the call's.
    pub(super) async fn build_image(&self, mut chunks: Streaming<BuildChunk>) -> Result<Out<BuildProgress>, Status> {
        let permits = (self.begin()?, self.builds.begin()?);
        let Some(Message::Start(start)) = chunks.message().await?.and_then(|chunk| chunk.message) else {
            return Err(Status::invalid_argument("the first message says what to build"));
        };
        if !start.name.is_empty() {
            ImageName::parse(&start.name).map_err(|e| Status::invalid_argument(format!("InvalidImageName: {e}")))?;
        }
        let name = start.name.clone();
        let request = request(start)?;
        let context = self.take_context(&mut chunks).await?;
        let (progress, answers) = mpsc::channel(STREAM_WAITING_MAX);
        let (builder, node) = (self.builds.builder.clone(), self.node.clone());
        tokio::spawn(async move {
            let _permits = permits;
            let (events, told) = mpsc::channel(limits::EVENTS_WAITING_MAX);
            let relay = tokio::spawn(relay(told, progress.clone()));
            let built = builder.build(&context.digest, &request, &Events::new(events)).await;
            let (step, steps) = relay.await.unwrap_or_default();
            node.inventory_changed();
            let last = BuildProgress { step, steps, ..last(name, &built) };
            // A client that has gone away needs no answer.
            progress.send(Ok(last)).await.ok();
            drop((built, context));
        });
        Ok(Box::pin(ReceiverStream::new(answers)))
    }

    /// Writes the tar as a layer of the builds' own store: it is bounded, indexed and checked while it comes, and never unpacked.
    async fn take_context(&self, chunks: &mut Streaming<BuildChunk>) -> Result<Context, Status> {
        let builder = self.builds.builder.clone();
        let opened = tokio::task::spawn_blocking(move || builder.context()).await;
        let mut writer = opened.map_err(|_| stopping())?.map_err(|e| status(&e))?;
        loop {
            match chunks.message().await?.and_then(|chunk| chunk.message) {
                Some(Message::Data(data)) => {
                    let bytes = writer.tar_bytes() + data.len() as u64;
                    if bytes > self.builds.context_bytes_max {
                        let most = self.builds.context_bytes_max;
                        return Err(Status::resource_exhausted(format!(
                            "ContextTooLarge: the context has more than {most} bytes; leave out what is not needed with a .dockerignore, or raise \
                             build_context_bytes_max in the node's settings"
                        )));
                    }
                    let pushed = tokio::task::spawn_blocking(move || writer.push(&data).map(|()| writer)).await;
                    writer = pushed.map_err(|_| stopping())?.map_err(|e| status(&e.into()))?;
                }
                Some(Message::End(true)) => break,
                Some(_) => {}
                // A stream that its sender has cancelled ends like one that is complete: only the last message tells them apart.
                None => return Err(Status::invalid_argument("Incomplete: the context was broken off before its end")),
            }
        }
        let finished = tokio::task::spawn_blocking(move || writer.finish(None)).await;
        let published = finished.map_err(|_| stopping())?.map_err(|e| status(&e.into()))?;
        Ok(Context { builder: self.builds.builder.clone(), digest: published.digest })
    }
}

/// Passes events on and says at which step of how many the build was. When nobody listens any more it ends, which ends the build.
async fn relay(mut told: mpsc::Receiver<Event>, progress: mpsc::Sender<Result<BuildProgress, Status>>) -> (u32, u32) {
    let mut place = (0, 0);
    loop {
        let event = tokio::select! {
            event = told.recv() => event,
            () = progress.closed() => None,
        };
        let Some(event) = event else { return place };
        let mut next = BuildProgress::default();
        match event {
            Event::Step { number, of, line } => {
                place = (number, of);
                next.line = line;
            }
            Event::Cached => next.cached = true,
            Event::Output(output) => next.output = output,
            Event::Warning(text) => next.line = format!("warning: {text}"),
        }
        (next.step, next.steps) = place;
        if progress.send(Ok(next)).await.is_err() {
            return place;
        }
    }
}

/// The last message.
fn last(name: String, built: &Result<Built, BuildError>) -> BuildProgress {
    match built {
        Ok(built) => {
            let image = Some(ImportedImage { name, image: Some(spec_of_stored(&built.image)) });
            BuildProgress { image, ..BuildProgress::default() }
        }
        Err(error) => BuildProgress { error: error.to_string(), ..BuildProgress::default() },
    }
}

fn request(start: BuildStart) -> Result<BuildRequest, Status> {
    let text = match start.dockerfile_text.is_empty() {
        true => None,
        false => Some(
            String::from_utf8(start.dockerfile_text)
                .map_err(|_| Status::invalid_argument("InvalidDockerfile: the Dockerfile is not UTF-8"))?,
        ),
    };
    Ok(BuildRequest {
        dockerfile: start.dockerfile,
        dockerfile_text: text,
        args: start.args.into_iter().collect(),
        target: start.target,
        no_cache: start.no_cache,
        pull: start.pull,
        labels: start.labels.into_iter().collect(),
    })
}

fn status(error: &BuildError) -> Status {
    let text = format!("{}: {error}", error.reason());
    match error.reason() {
        "NoSpace" | "DiskFull" => Status::resource_exhausted(text),
        "LayerMalformed" => Status::invalid_argument(text),
        _ => Status::internal(text),
    }
}

fn stopping() -> Status {
    Status::cancelled("the agent stops")
}
