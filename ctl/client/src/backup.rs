//! Backups.

use crate::{Client, ClientError, limits, unary};
use strata_proto::{cluster::BackupRequest, node::DataChunk};
use tonic::{Request, Streaming};

impl Client {
    /// Takes a consistent copy of all objects, in the form of [`strata_proto::backup`].
    ///
    /// # Errors
    /// By kind.
    pub async fn backup(&self) -> Result<Streaming<DataChunk>, ClientError> {
        let mut cluster = self.cluster.clone();
        unary("take a backup", limits::STREAM_START_TIMEOUT, BackupRequest {}, |r| async move {
            cluster.backup(Request::new(r.into_inner())).await
        })
        .await
    }
}
