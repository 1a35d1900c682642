//! Builds: a context goes out, progress comes back.

use crate::{Client, ClientError, ErrorKind, limits};
use std::io;
use strata_proto::{
    cluster::BuildRequest,
    node::{BuildChunk, BuildProgress, build_chunk},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

pub use strata_proto::node::BuildStart;

/// A piece of a context, which is a tar.
#[derive(Debug)]
pub enum ContextPiece {
    /// Its next bytes.
    Data(Vec<u8>),
    /// It is whole. Without this nothing is built.
    End,
}

/// A build that goes on. Dropping it cancels the build.
#[derive(Debug)]
pub struct BuildSession(Streaming<BuildProgress>);

const DOING: &str = "build an image";

impl Client {
    /// Builds an image on a node ("" = the controller chooses) of a context that comes through a queue. Returns once the context is there and the
    /// build begins. `sent` is told how many bytes went out.
    ///
    /// # Errors
    /// By kind; also what the queue gives.
    pub async fn build_image(
        &self,
        start: BuildStart,
        node: &str,
        mut context: mpsc::Receiver<io::Result<ContextPiece>>,
        mut sent: impl FnMut(u64) + Send,
    ) -> Result<BuildSession, ClientError> {
        let (outgoing, queue) = mpsc::channel(limits::OUTGOING_MAX);
        let chunk = |message| BuildRequest { chunk: Some(BuildChunk { message: Some(message) }), node: String::new() };
        let first = BuildRequest { node: node.to_owned(), ..chunk(build_chunk::Message::Start(start)) };
        // The queue is empty and its receiver alive, so this cannot fail.
        drop(outgoing.try_send(first));
        let mut cluster = self.cluster.clone();
        let answer = cluster.build_image(Request::new(ReceiverStream::new(queue)));
        tokio::pin!(answer);
        let pump = async {
            while let Some(piece) = context.recv().await {
                let (message, bytes, last) = match piece? {
                    ContextPiece::Data(data) => {
                        let bytes = data.len() as u64;
                        (build_chunk::Message::Data(data), bytes, false)
                    }
                    ContextPiece::End => (build_chunk::Message::End(true), 0, true),
                };
                // An error says that the answer is there already: it says why.
                if outgoing.send(chunk(message)).await.is_err() || last {
                    return Ok(());
                }
                sent(bytes);
            }
            Err(io::Error::other("it was not packed to its end"))
        };
        let early = tokio::select! {
            early = &mut answer => Some(early),
            pumped = pump => {
                pumped.map_err(|e| ClientError::new(ErrorKind::Failed, DOING, format!("the context cannot be read: {e}")))?;
                None
            }
        };
        drop(outgoing);
        let answer = match early {
            Some(answer) => answer,
            None => timeout(limits::IMPORT_TIMEOUT, answer)
                .await
                .map_err(|_| ClientError::timed_out(DOING, limits::IMPORT_TIMEOUT))?,
        };
        Ok(BuildSession(answer.map_err(|status| ClientError::from_status(DOING, &status))?.into_inner()))
    }
}

impl BuildSession {
    /// The next progress; the last has an image or an error.
    ///
    /// # Errors
    /// By kind; also if the stream ends before.
    pub async fn next(&mut self) -> Result<BuildProgress, ClientError> {
        match self.0.message().await {
            Ok(Some(progress)) => Ok(progress),
            Ok(None) => Err(ClientError::new(ErrorKind::Failed, DOING, "the stream ended before the build did")),
            Err(status) => Err(ClientError::from_status(DOING, &status)),
        }
    }
}
