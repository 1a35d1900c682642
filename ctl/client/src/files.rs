//! Files of a container: what it has changed, and copies both ways.

use crate::{Client, ClientError, ErrorKind, limits, objects::describe, unary};
use strata_proto::{
    cluster::{CopyInRequest, CopyOutRequest, PodRequest},
    node::{CopyInChunk, DataChunk, DiffEntry, copy_in_chunk::Message},
    types::Kind,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

/// A container of a pod; container "" = the only one.
#[derive(Debug, Clone, Default)]
pub struct ContainerRef {
    /// Its namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's.
    pub container: String,
}

impl ContainerRef {
    pub(crate) fn request(&self) -> PodRequest {
        let Self { namespace, pod, container } = self.clone();
        PodRequest { namespace, pod, container }
    }
    pub(crate) fn shown(&self) -> String {
        describe(Kind::Pod, &self.namespace, &self.pod)
    }
}

impl Client {
    /// Lists what a container has changed of its image, in the order of the names.
    ///
    /// # Errors
    /// By kind.
    pub async fn diff(&self, of: &ContainerRef) -> Result<Vec<DiffEntry>, ClientError> {
        let doing = format!("list what has changed in {}", of.shown());
        let mut cluster = self.cluster.clone();
        let stream = unary(&doing, limits::STREAM_START_TIMEOUT, of.request(), |r| async move {
            cluster.diff(Request::new(r.into_inner())).await
        });
        let (mut stream, mut entries) = (stream.await?, Vec::new());
        while let Some(part) = stream.message().await.map_err(|s| ClientError::from_status(&doing, &s))? {
            entries.extend(part.entries);
        }
        Ok(entries)
    }

    /// Begins to read a tar of a path of a container.
    ///
    /// # Errors
    /// By kind; some only come with the stream.
    pub async fn copy_out(&self, of: &ContainerRef, path: &str) -> Result<Streaming<DataChunk>, ClientError> {
        let doing = format!("copy {path} out of {}", of.shown());
        let mut cluster = self.cluster.clone();
        let request = CopyOutRequest { pod: Some(of.request()), path: path.to_owned() };
        unary(&doing, limits::STREAM_START_TIMEOUT, request, |r| async move {
            cluster.copy_out(Request::new(r.into_inner())).await
        })
        .await
    }

    /// Unpacks a tar, which comes in pieces, in a directory of a container; gives the number of its entries. An error among the pieces breaks the copy
    /// off.
    ///
    /// # Errors
    /// By kind.
    pub async fn copy_in(
        &self,
        to: &ContainerRef,
        path: &str,
        mut pieces: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    ) -> Result<u64, ClientError> {
        let doing = format!("copy into {path} of {}", to.shown());
        let (outgoing, queue) = mpsc::channel(limits::OUTGOING_MAX);
        let begin = CopyInRequest { pod: Some(to.request()), path: path.to_owned(), chunk: None };
        // The queue is empty and its receiver alive, so this cannot fail.
        drop(outgoing.try_send(begin));
        let mut cluster = self.cluster.clone();
        let answer = cluster.copy_in(ReceiverStream::new(queue));
        tokio::pin!(answer);
        let chunk =
            |message| CopyInRequest { chunk: Some(CopyInChunk { message: Some(message) }), ..Default::default() };
        let pump = async {
            while let Some(piece) = pieces.recv().await {
                if outgoing.send(chunk(Message::Data(piece?))).await.is_err() {
                    // The server has answered before it had everything: its answer says why.
                    return Ok(());
                }
            }
            outgoing.send(chunk(Message::End(true))).await.ok();
            Ok::<(), std::io::Error>(())
        };
        let early = tokio::select! {
            early = &mut answer => Some(early),
            pumped = pump => {
                pumped.map_err(|e| ClientError::new(ErrorKind::Failed, &doing, e.to_string()))?;
                None
            }
        };
        drop(outgoing);
        let answer = match early {
            Some(answer) => answer,
            None => timeout(limits::IMPORT_TIMEOUT, answer)
                .await
                .map_err(|_| ClientError::timed_out(&doing, limits::IMPORT_TIMEOUT))?,
        };
        Ok(answer.map_err(|status| ClientError::from_status(&doing, &status))?.into_inner().entries)
    }
}
