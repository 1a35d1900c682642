//! Following a container's own process: its output from the beginning, then its exit code; and its standard input, whose end its
//! shim keeps (so an agent that was restarted can attach it again).

use super::{NodeApi, Out, STREAM_WAITING_MAX, exec::cells, stdio::Writer};
use crate::pods::Board;
use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};
use strata_proto::{
    node::{ExecExit, ExecInput, ExecOutput, ExecStart, TtySize, exec_input::Message as In, exec_output::Message},
    types::container_status::State,
};
use strata_runtime::{
    ShimClient,
    logs::{self, ReadOptions},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

impl NodeApi {
    pub(super) async fn attach_stream(
        &self,
        start: ExecStart,
        input: Streaming<ExecInput>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Out<ExecOutput>, Status> {
        let uid = self.known(&start.pod_uid, &start.container)?;
        // One that has ended reads nothing, but what it wrote is still to be had.
        let stdin = if start.stdin && !has_ended(&self.pods.board(), &start) {
            let failed = |why: String| {
                Status::failed_precondition(format!(
                    "attaching the standard input of container {}: {why}",
                    start.container
                ))
            };
            let shim = self.node.shim(&uid).ok_or_else(|| failed("its pod has no sandbox now".into()))?;
            match shim.attach(&start.container).await {
                Ok(end) => Some(Stdin::new(shim, &start, end).map_err(|e| failed(e.to_string()))?),
                // It may have ended since.
                Err(_) if has_ended(&self.pods.board(), &start) => None,
                Err(e) => return Err(failed(e.to_string())),
            }
        } else {
            None
        };
        let board = self.pods.board();
        let (ended, follow) = watch::channel(false);
        let mut entries =
            logs::read(&self.node.log_dir(&uid), &start.container, ReadOptions { tail: None, follow: Some(follow) });
        let (sender, receiver) = mpsc::channel(STREAM_WAITING_MAX);
        tokio::spawn(async move {
            let _permit = permit;
            let relay = async {
                while let Some(entry) = entries.recv().await {
                    let chunk = entry.map_err(|e| Status::internal(e.to_string())).map(|e| {
                        let make = if e.stderr { Message::Stderr } else { Message::Stdout };
                        ExecOutput { message: Some(make(e.bytes())) }
                    });
                    if sender.send(chunk).await.is_err() {
                        return;
                    }
                }
            };
            let code = async {
                let code = exit_code(&board, &start).await;
                // The reader ends once it has read what is left.
                ended.send_replace(true);
                code
            };
            let feed = async {
                if let Some(stdin) = stdin {
                    stdin.feed(input).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = feed => {}
                ((), code) = async { tokio::join!(relay, code) } => {
                    let last = code.map(|code| ExecOutput { message: Some(Message::Exit(ExecExit { code })) });
                    sender.send(last.ok_or_else(|| Status::not_found("the pod was removed"))).await.ok();
                }
                () = sender.closed() => {}
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// Waits for the container's end for good; `None` if the pod goes before.
async fn exit_code(board: &Arc<Board>, start: &ExecStart) -> Option<i32> {
    let mut changes = board.changes();
    loop {
        let status = board.get(&start.pod_uid).and_then(|r| r.status)?;
        let container = status.containers.into_iter().find(|c| c.name == start.container)?;
        if container.state() == State::Exited {
            return Some(container.exit_code);
        }
        changes.changed().await.ok()?;
    }
}

fn has_ended(board: &Board, start: &ExecStart) -> bool {
    let status = board.get(&start.pod_uid).and_then(|r| r.status);
    status.is_some_and(|s| s.containers.iter().any(|c| c.name == start.container && c.state() == State::Exited))
}

/// The agent's copy of the end that a container's shim keeps.
struct Stdin {
    shim: ShimClient,
    container: String,
    /// Until the client closes it or nobody reads any more.
    writer: Option<Writer>,
    /// To set its size.
    terminal: Option<OwnedFd>,
}

impl Stdin {
    fn new(shim: ShimClient, start: &ExecStart, end: OwnedFd) -> std::io::Result<Self> {
        let terminal = if start.tty { Some(end.try_clone()?) } else { None };
        let stdin = Self { shim, container: start.container.clone(), writer: Some(Writer::new(end)?), terminal };
        stdin.resize(start.size);
        Ok(stdin)
    }

    fn resize(&self, size: Option<TtySize>) {
        let (Some(terminal), Some(size)) = (&self.terminal, size) else { return };
        let (rows, columns) = cells(Some(size));
        if let Err(e) = strata_sys::process::set_terminal_size(terminal.as_fd(), rows, columns) {
            tracing::debug!("resizing a terminal: {e}");
        }
    }

    /// Passes on what comes, until the client has no more. A client that only goes away leaves the input open for the next one.
    async fn feed(mut self, mut input: Streaming<ExecInput>) {
        while let Ok(Some(message)) = input.message().await {
            match message.message {
                Some(In::Stdin(bytes)) => {
                    if let Some(end) = &mut self.writer
                        && end.write_all(&bytes).await.is_err()
                    {
                        self.writer = None;
                    }
                }
                // A terminal has no end that could be closed.
                Some(In::StdinClosed(_)) if self.terminal.is_none() => {
                    self.writer = None;
                    if let Err(e) = self.shim.close_stdin(&self.container).await {
                        tracing::debug!("closing the standard input of container {}: {e}", self.container);
                    }
                }
                Some(In::Resize(size)) => self.resize(Some(size)),
                Some(In::StdinClosed(_) | In::Start(_)) | None => {}
            }
        }
    }
}
