//! Watching objects change.

use crate::{Client, ClientError, ErrorKind, limits, unary};
use strata_proto::{
    cluster::{WatchRequest, WatchResponse},
    document::kind_word,
    types::{Kind, Object},
};
use tonic::Streaming;

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// The store's revision it made.
    pub revision: u64,
    /// As it is now; of a deleted one its last state.
    pub object: Object,
    /// Whether it is gone.
    pub deleted: bool,
}

/// The changes after a revision, in order.
pub struct Watch {
    changes: Streaming<WatchResponse>,
    doing: String,
}

impl Client {
    /// Watches a kind ([`Kind::Unspecified`]: every kind) in a namespace ("": all). `from_revision` 0 means from now.
    ///
    /// # Errors
    /// By kind; [`ErrorKind::Compacted`] if the revision is too old: list again.
    pub async fn watch(&self, kind: Kind, namespace: &str, from_revision: u64) -> Result<Watch, ClientError> {
        let doing =
            format!("watch {}s", if kind == Kind::Unspecified { "object" } else { kind_word(kind) }.to_lowercase());
        let request = WatchRequest { kind: kind.into(), namespace: namespace.into(), from_revision };
        let mut objects = self.objects.clone();
        // The deadline is for the beginning only, so it does not go to the server, where it would end the stream.
        let start = unary(&doing, limits::STREAM_START_TIMEOUT, request, |r| async move {
            objects.watch(tonic::Request::new(r.into_inner())).await
        });
        Ok(Watch { changes: start.await?, doing })
    }
}

impl Watch {
    /// Waits for the next change.
    ///
    /// # Errors
    /// By kind; also if the server ends the stream: list and watch again.
    pub async fn next(&mut self) -> Result<Change, ClientError> {
        loop {
            match self.changes.message().await {
                Ok(Some(WatchResponse { revision, object: Some(object), deleted, bookmark: _ })) => {
                    return Ok(Change { revision, object, deleted });
                }
                Ok(Some(_bookmark)) => {}
                Ok(None) => {
                    return Err(ClientError::new(ErrorKind::Unreachable, &self.doing, "the server ended the stream"));
                }
                Err(status) => return Err(ClientError::from_status(&self.doing, &status)),
            }
        }
    }
}
