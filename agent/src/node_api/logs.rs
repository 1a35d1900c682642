//! Logs of a container: what it wrote, from its shim's files.

use super::{NodeApi, Out, STREAM_WAITING_MAX};
use crate::pods::Board;
use std::sync::Arc;
use strata_proto::{
    node::{LogChunk, LogsRequest},
    types::container_status::State,
};
use strata_runtime::logs::{self, Entry, ReadOptions};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

impl NodeApi {
    pub(super) fn logs_stream(&self, request: LogsRequest) -> Result<Out<LogChunk>, Status> {
        let permit = self.begin()?;
        let uid = self.known(&request.pod_uid, &request.container)?;
        let tail = match request.tail_lines {
            0 => None,
            n => Some(usize::try_from(n).unwrap_or(usize::MAX)),
        };
        let board = self.pods.board();
        let (ended, follow) = watch::channel(false);
        let options = ReadOptions { tail, follow: request.follow.then_some(follow) };
        let mut entries = logs::read(&self.node.log_dir(&uid), &request.container, options);
        let (sender, receiver) = mpsc::channel(STREAM_WAITING_MAX);
        tokio::spawn(async move {
            let _permit = permit;
            let mut stamped = Stamps { wanted: request.timestamps, inside: [false; 2] };
            let relay = async {
                while let Some(entry) = entries.recv().await {
                    let chunk = entry.map(|e| stamped.chunk(&e)).map_err(|e| Status::internal(e.to_string()));
                    if sender.send(chunk).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = relay => {}
                () = sender.closed() => {}
                () = tell_end(&board, &request, &ended), if request.follow => {}
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// Says when the container has ended for good, and then waits: the reader reads what is left and ends the stream.
async fn tell_end(board: &Arc<Board>, request: &LogsRequest, ended: &watch::Sender<bool>) {
    let mut changes = board.changes();
    loop {
        let status = board.get(&request.pod_uid).and_then(|r| if r.gone { None } else { r.status });
        let over = status
            .is_none_or(|s| s.containers.iter().any(|c| c.name == request.container && c.state() == State::Exited));
        if over {
            ended.send_replace(true);
            std::future::pending::<()>().await;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Times before lines, where they are wanted; a line that came in parts has one.
struct Stamps {
    wanted: bool,
    inside: [bool; 2],
}

impl Stamps {
    fn chunk(&mut self, entry: &Entry) -> LogChunk {
        let inside = &mut self.inside[usize::from(entry.stderr)];
        let mut data = Vec::new();
        if self.wanted && !*inside {
            data.extend_from_slice(entry.time.as_bytes());
            data.push(b' ');
        }
        *inside = entry.partial;
        data.extend_from_slice(&entry.bytes());
        LogChunk { data, stderr: entry.stderr }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_in_parts_has_one_time() {
        let mut stamps = Stamps { wanted: true, inside: [false; 2] };
        let entry =
            |stderr, partial, text: &str| Entry { time: "T".into(), stderr, partial, text: text.as_bytes().to_vec() };
        let text: Vec<String> =
            [entry(false, true, "a"), entry(true, false, "e"), entry(false, false, "b"), entry(false, false, "c")]
                .iter()
                .map(|e| String::from_utf8(stamps.chunk(e).data).unwrap())
                .collect();
        assert_eq!(text, ["T a", "T e\n", "b\n", "T c\n"]);
    }
}
