//! Logs, exec, import and pull.

use crate::{Client, ClientError, ErrorKind, limits, objects::describe, unary};
use futures::future::BoxFuture;
use std::io;
use strata_model::limits::CHUNK_BYTES;
use strata_proto::{
    cluster::{ExecRequest, LogsRequest, PullRequest, exec_request},
    node::{ExecOutput, ImportChunk, ImportStart, LogChunk, PullProgress, TtySize, exec_output, import_chunk},
    types::{Kind, Object},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

pub use strata_proto::cluster::ExecStart;

/// Which part of the logs.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// "" = the only container.
    pub container: String,
    /// Also what comes, until the container has ended.
    pub follow: bool,
    /// 0 = all.
    pub tail_lines: u64,
    /// Before each line.
    pub timestamps: bool,
}

impl Client {
    /// Reads the logs of a pod.
    ///
    /// # Errors
    /// By kind.
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        options: LogOptions,
    ) -> Result<Streaming<LogChunk>, ClientError> {
        let doing = format!("read the logs of {}", describe(Kind::Pod, namespace, pod));
        let request = LogsRequest {
            namespace: namespace.into(),
            pod: pod.into(),
            container: options.container,
            follow: options.follow,
            tail_lines: options.tail_lines,
            timestamps: options.timestamps,
            ..LogsRequest::default()
        };
        let mut cluster = self.cluster.clone();
        unary(&doing, limits::STREAM_START_TIMEOUT, request, |r| async move {
            cluster.logs(Request::new(r.into_inner())).await
        })
        .await
    }

    /// Runs a command in a pod, or attaches to what runs there. The call goes out with the first [`ExecSession::next`], which also tells of its
    /// failure; input may be given before, so that a server may wait for it before it answers.
    #[must_use]
    pub fn exec(&self, start: ExecStart) -> ExecSession {
        let doing = if start.attach { "attach to" } else { "run a command in" };
        let doing = format!("{doing} {}", describe(Kind::Pod, &start.namespace, &start.pod));
        let (input, outgoing) = mpsc::channel(limits::OUTGOING_MAX);
        let first = ExecRequest { message: Some(exec_request::Message::Start(start)) };
        // The queue is empty and its receiver alive, so this cannot fail.
        drop(input.try_send(first));
        let mut cluster = self.cluster.clone();
        let starting = {
            let doing = doing.clone();
            Box::pin(async move {
                let start =
                    unary(&doing, limits::STREAM_START_TIMEOUT, ReceiverStream::new(outgoing), |r| async move {
                        cluster.exec(Request::new(r.into_inner())).await
                    });
                start.await
            })
        };
        ExecSession { input, output: Output::Starting(starting), doing }
    }

    /// Sends an archive (OCI layout as tar, or docker archive) and returns the images it held, usable.
    /// `name` "" takes the names that the archive carries. `sent` is told how many bytes went out.
    ///
    /// # Errors
    /// By kind; also if the archive cannot be read.
    pub async fn import_image(
        &self,
        name: &str,
        mut archive: impl AsyncRead + Unpin + Send,
        mut sent: impl FnMut(u64) + Send,
    ) -> Result<Vec<Object>, ClientError> {
        const DOING: &str = "import an image";
        let (outgoing, queue) = mpsc::channel(limits::OUTGOING_MAX);
        let start = ImportStart { name: name.to_owned() };
        drop(outgoing.try_send(ImportChunk { message: Some(import_chunk::Message::Start(start)) }));
        let mut cluster = self.cluster.clone();
        let answer = cluster.import_image(ReceiverStream::new(queue));
        tokio::pin!(answer);
        let pump = async {
            loop {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                (&mut archive).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await?;
                if chunk.is_empty() {
                    let end = ImportChunk { message: Some(import_chunk::Message::End(true)) };
                    // An error says that the answer is there already.
                    outgoing.send(end).await.ok();
                    return Ok(());
                }
                let size = chunk.len() as u64;
                let message = import_chunk::Message::Data(chunk.into());
                if outgoing.send(ImportChunk { message: Some(message) }).await.is_err() {
                    // The server has answered before it had everything: its answer says why.
                    return Ok::<(), io::Error>(());
                }
                sent(size);
            }
        };
        let early = tokio::select! {
            early = &mut answer => Some(early),
            pumped = pump => {
                pumped.map_err(|e| ClientError::new(ErrorKind::Failed, DOING, format!("the archive cannot be read: {e}")))?;
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
        Ok(answer.map_err(|status| ClientError::from_status(DOING, &status))?.into_inner().images)
    }

    /// Pulls an image on one node or all of them; the stream tells how far it is.
    ///
    /// # Errors
    /// By kind.
    pub async fn pull_image(&self, image: &str, all_nodes: bool) -> Result<Streaming<PullProgress>, ClientError> {
        let mut cluster = self.cluster.clone();
        let request = PullRequest { image: image.to_owned(), all_nodes };
        unary(&format!("pull image {image}"), limits::STREAM_START_TIMEOUT, request, |r| async move {
            cluster.pull_image(Request::new(r.into_inner())).await
        })
        .await
    }

    /// The error of a stream that broke while it was read.
    #[must_use]
    pub fn stream_error(doing: &str, status: &tonic::Status) -> ClientError {
        ClientError::from_status(doing, status)
    }
}

/// A command that runs in a pod.
pub struct ExecSession {
    input: mpsc::Sender<ExecRequest>,
    output: Output,
    doing: String,
}

enum Output {
    Starting(BoxFuture<'static, Result<Streaming<ExecOutput>, ClientError>>),
    Open(Box<Streaming<ExecOutput>>),
}

/// The writing half of an [`ExecSession`].
#[derive(Debug, Clone)]
pub struct ExecInput(mpsc::Sender<ExecRequest>);

impl ExecInput {
    /// Sends input. False when the session is over.
    pub async fn stdin(&self, data: Vec<u8>) -> bool {
        self.send(exec_request::Message::Stdin(data)).await
    }
    /// Says that no more input comes. False when the session is over.
    pub async fn close_stdin(&self) -> bool {
        self.send(exec_request::Message::StdinClosed(true)).await
    }
    /// Tells the terminal's new size. False when the session is over.
    pub async fn resize(&self, rows: u16, columns: u16) -> bool {
        self.send(exec_request::Message::Resize(TtySize { rows: rows.into(), columns: columns.into() })).await
    }
    async fn send(&self, message: exec_request::Message) -> bool {
        self.0.send(ExecRequest { message: Some(message) }).await.is_ok()
    }
}

impl ExecSession {
    /// The writing half.
    #[must_use]
    pub fn input(&self) -> ExecInput {
        ExecInput(self.input.clone())
    }

    /// Waits for the next output; the last is the exit.
    ///
    /// # Errors
    /// By kind; also if the stream ends without an exit.
    pub async fn next(&mut self) -> Result<exec_output::Message, ClientError> {
        if let Output::Starting(start) = &mut self.output {
            self.output = Output::Open(Box::new(start.await?));
        }
        let Output::Open(output) = &mut self.output else {
            return Err(ClientError::new(ErrorKind::Failed, &self.doing, "the stream did not begin"));
        };
        match output.message().await {
            Ok(Some(ExecOutput { message: Some(message) })) => Ok(message),
            Ok(_) => Err(ClientError::new(ErrorKind::Failed, &self.doing, "the stream ended before the command did")),
            Err(status) => Err(ClientError::from_status(&self.doing, &status)),
        }
    }
}
