//! What a pull says while it goes on.

use std::sync::Arc;
use strata_model::Digest;

/// What has happened last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The name is being resolved.
    Resolving,
    /// Bytes arrive.
    Fetching,
    /// The layer is here and its digest is right.
    Verified,
    /// It was here before.
    Present,
    /// The whole image is here.
    Done,
}

impl Step {
    /// The word used on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Resolving => "Resolving",
            Self::Fetching => "Fetching",
            Self::Verified => "Verified",
            Self::Present => "Present",
            Self::Done => "Done",
        }
    }
}

/// One piece of news about a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The layer's diff ID; `None` for the image as a whole.
    pub layer: Option<Digest>,
    /// Bytes received, as the source sends them.
    pub done_bytes: u64,
    /// Bytes of the whole; 0 while unknown.
    pub total_bytes: u64,
    /// What has happened.
    pub step: Step,
}

impl Progress {
    pub(crate) fn image(step: Step) -> Self {
        Self { layer: None, done_bytes: 0, total_bytes: 0, step }
    }
    pub(crate) fn layer(layer: &Digest, done_bytes: u64, total_bytes: u64, step: Step) -> Self {
        Self { layer: Some(layer.clone()), done_bytes, total_bytes, step }
    }
}

/// Takes the news; must not block. News may be skipped when many arrive, the last of each layer never is.
#[derive(Clone)]
pub struct ProgressSink(Arc<dyn Fn(Progress) + Send + Sync>);

impl ProgressSink {
    /// Calls `take` for each piece of news.
    pub fn new(take: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
    /// Tells nobody.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| ())
    }
    pub(crate) fn tell(&self, news: Progress) {
        (self.0)(news);
    }
}
