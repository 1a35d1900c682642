//! A command in a container, whose exit code is the answer.

use crate::node_api::Reader;
use std::{io::pipe, time::Duration};
use strata_model::ContainerName;
use strata_runtime::{Error, ExecRequest, ExecStdio, Process, ShimClient};
use tokio::time::timeout;

/// Bytes of output that are kept; the rest is read and dropped, so that the command is not held up.
const OUTPUT_BYTES_MAX: usize = 1024;
/// How long output is waited for once the command has ended: a child of it may hold the pipe open for ever.
const DRAIN: Duration = Duration::from_millis(100);

/// Kills what was not waited for to its end.
struct Killed(Option<Process>);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(process) = &self.0
            && let Err(e) = process.kill_group()
        {
            tracing::debug!("killing a probe's command: {e}");
        }
    }
}

/// Runs it. To be dropped when it takes too long: then it is killed.
pub(super) async fn ask(shim: &ShimClient, container: &ContainerName, command: &[String]) -> Result<String, String> {
    let io = |e: std::io::Error| format!("making pipes: {e}");
    let ((stdin, no_input), (output, theirs)) = (pipe().map_err(io)?, pipe().map_err(io)?);
    drop(no_input);
    let both = theirs.try_clone().map_err(io)?;
    let request = ExecRequest {
        container: container.to_string(),
        args: command.to_vec(),
        env: Vec::new(),
        cwd: None,
        user: None,
        stdio: ExecStdio::Pipes { stdin: stdin.into(), stdout: theirs.into(), stderr: both.into() },
    };
    let started = shim.exec(request).await.map_err(|e| match e {
        Error::Start(e) => e.to_string(),
        e => format!("starting the command: {e}"),
    })?;
    let mut killed = Killed(Some(started.process));
    let mut reader = Reader::new(output.into()).map_err(io)?;
    let mut kept: Vec<u8> = Vec::new();
    let mut exit = started.exit;
    let ended = {
        let mut read = std::pin::pin!(keep(&mut reader, &mut kept));
        tokio::select! {
            ended = &mut exit => {
                timeout(DRAIN, &mut read).await.ok();
                ended
            }
            () = &mut read => exit.await,
        }
    };
    let ended = ended.map_err(|_| "the pod's sandbox died meanwhile".to_owned())?;
    killed.0 = None;
    let said = String::from_utf8_lossy(&kept).trim().to_owned();
    match ended.code {
        0 => Ok(said),
        code if said.is_empty() => Err(format!("{:?} ended with code {code}", command.join(" "))),
        code => Err(format!("{:?} ended with code {code}: {said}", command.join(" "))),
    }
}

/// Reads to the end and keeps the beginning.
async fn keep(reader: &mut Reader, kept: &mut Vec<u8>) {
    while let Ok(bytes) = reader.read().await {
        if bytes.is_empty() {
            break;
        }
        let room = OUTPUT_BYTES_MAX - kept.len();
        kept.extend(bytes.into_iter().take(room));
    }
}
