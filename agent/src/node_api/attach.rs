//! Following a container's own process: its output from the beginning, then its exit code. Its standard input cannot be attached
//! yet: the shim gives containers none.

use super::{NodeApi, Out, STREAM_WAITING_MAX};
use crate::pods::Board;
use std::sync::Arc;
use strata_proto::{
    node::{ExecExit, ExecOutput, ExecStart, exec_output::Message},
    types::container_status::State,
};
use strata_runtime::logs::{self, ReadOptions};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

impl NodeApi {
    pub(super) fn attach_stream(
        &self,
        start: ExecStart,
        permit: OwnedSemaphorePermit,
    ) -> Result<Out<ExecOutput>, Status> {
        if start.stdin {
            return Err(Status::unimplemented(
                "a container's own standard input cannot be attached yet: leave out -i, or use `ctl exec -i`",
            ));
        }
        let uid = self.known(&start.pod_uid, &start.container)?;
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
            tokio::select! {
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
