//! What a step's command writes, as it comes, to who watches the build.

use std::{path::Path, time::Duration};
use strata_build::{Event, Events};
use strata_runtime::logs::{self, ReadOptions};
use tokio::{sync::watch, task::JoinHandle};

/// How long the rest of the output may take once the command has ended.
const REST_TIMEOUT: Duration = Duration::from_secs(30);

/// A log that is read while it is written.
pub(super) struct Output {
    relay: JoinHandle<()>,
    ended: watch::Sender<bool>,
}

impl Output {
    /// Passes on what comes.
    pub(super) fn follow(dir: &Path, container: &str, events: Events) -> Self {
        let (ended, follow) = watch::channel(false);
        let mut entries = logs::read(dir, container, ReadOptions { tail: None, follow: Some(follow) });
        let relay = tokio::spawn(async move {
            while let Some(entry) = entries.recv().await {
                match entry {
                    Ok(entry) => events.tell(Event::Output(entry.bytes())).await,
                    Err(error) => tracing::warn!("the output of a build's step cannot be read: {error}"),
                }
            }
        });
        Self { relay, ended }
    }

    /// Passes on the rest, after the end of the container.
    pub(super) async fn finish(mut self) {
        self.ended.send_replace(true);
        if tokio::time::timeout(REST_TIMEOUT, &mut self.relay).await.is_err() {
            tracing::debug!("the rest of a step's output was not read in time");
            self.relay.abort();
        }
    }
}
