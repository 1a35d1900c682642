//! Where the world begins for a build: images by name, and containers for its RUN steps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use strata_image::StoredImage;
use strata_model::{Digest, ImageName};
use tokio::sync::mpsc;

/// What a build asks of its node.
pub trait World: Send + Sync {
    /// Makes an image be here, by what the cluster knows its name to mean, else from its registry; with `fresh` the registry is asked first.
    /// The error is a sentence.
    fn image<'a>(&'a self, name: &'a ImageName, fresh: bool) -> BoxFuture<'a, Result<Arc<StoredImage>, String>>;

    /// Runs a command in a container of its own and waits for its end, or until nobody hears `events` any more. When the future is ready, nothing of
    /// the container is left but its writable layer in [`RunStep::writable`]. Output goes to `events`. The error is a sentence.
    fn run<'a>(&'a self, step: RunStep, events: &'a Events) -> BoxFuture<'a, Result<Ended, String>>;
}

/// A command of a build.
#[derive(Debug)]
pub struct RunStep {
    /// The stage so far, lowest first.
    pub layers: Vec<Digest>,
    /// The directory that holds its writable layer (see `strata_layer::prepare_writable`).
    pub writable: PathBuf,
    /// Program and arguments.
    pub args: Vec<String>,
    /// All variables but PATH, HOME and HOSTNAME where they are not set.
    pub env: Vec<(String, String)>,
    /// As USER has it; "" is root.
    pub user: String,
    /// Absolute.
    pub working_dir: String,
    /// Whether it has a network beside loopback.
    pub network: bool,
    /// How long it may take.
    pub timeout: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this code; 128+N for signal N.
    Exit(i32),
    /// It was killed after [`RunStep::timeout`].
    TooLong,
    /// It was killed because nobody hears the build any more.
    Cancelled,
}

/// What a build tells while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A step begins.
    Step {
        /// From 1.
        number: u32,
        /// Of how many.
        of: u32,
        /// The instruction.
        line: String,
    },
    /// The present step was done before.
    Cached,
    /// What a command wrote.
    Output(Vec<u8>),
    /// Something that people should know.
    Warning(String),
}

/// Where a build's events go. A slow reader slows the build; one that has gone away cancels it.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<Event>);

impl Events {
    /// Into a queue.
    #[must_use]
    pub fn new(sender: mpsc::Sender<Event>) -> Self {
        Self(sender)
    }

    /// Tells one.
    pub async fn tell(&self, event: Event) {
        // Who does not listen any more misses nothing.
        self.0.send(event).await.ok();
    }

    /// Waits until nobody hears them any more: the build is cancelled.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// Whether nobody hears them any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}
