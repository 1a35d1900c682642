//! Another process in a running container, with its streams relayed.

use super::{
    NodeApi, Out, STREAM_WAITING_MAX,
    stdio::{Reader, Writer},
};
use std::{os::fd::OwnedFd, time::Duration};
use strata_proto::node::{
    ExecExit, ExecInput, ExecOutput, ExecStart, TtySize, exec_input::Message as In, exec_output::Message as OutMessage,
};
use strata_runtime::{Error, Exec, ExecRequest, ExecStdio, ShimClient};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// How long output of processes that outlive the exec is still relayed.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the first message may take.
const START_WAIT: Duration = Duration::from_secs(10);
/// Arguments of one command.
const ARGS_MAX: usize = 4096;
const KILL: i32 = 9;

type Sender = mpsc::Sender<Result<ExecOutput, Status>>;

/// The agent's ends. A terminal is one for all.
struct Streams {
    stdin: Option<Writer>,
    stdout: Reader,
    stderr: Option<Reader>,
}

impl NodeApi {
    pub(super) async fn exec_stream(&self, mut input: Streaming<ExecInput>) -> Result<Out<ExecOutput>, Status> {
        let permit = self.begin()?;
        let first = timeout(START_WAIT, input.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the command to execute did not come"))??;
        let Some(In::Start(start)) = first.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("the first message names the command to execute"));
        };
        if start.attach {
            return self.attach_stream(start, input, permit).await;
        }
        if start.command.is_empty() || start.command.len() > ARGS_MAX {
            return Err(Status::invalid_argument(format!("a command has 1 to {ARGS_MAX} words")));
        }
        let uid = self.known(&start.pod_uid, &start.container)?;
        let shim = self.node.shim(&uid).ok_or_else(|| {
            Status::failed_precondition(format!(
                "container {} does not run: its pod has no sandbox now",
                start.container
            ))
        })?;
        let (sender, receiver) = mpsc::channel(STREAM_WAITING_MAX);
        match begin(&shim, &start).await {
            Ok((exec, streams)) => {
                tokio::spawn(async move {
                    let _permit = permit;
                    relay(exec, streams, input, &sender).await;
                });
            }
            // As a shell has it: the words on stderr, the code 126 or 127.
            Err(Error::Start(e)) if matches!(e.exit_code, 126 | 127) => {
                let words = format!("{e}\n").into_bytes();
                // The channel is new and has room for both.
                sender.try_send(Ok(ExecOutput { message: Some(OutMessage::Stderr(words)) })).ok();
                sender.try_send(Ok(exit(e.exit_code))).ok();
            }
            Err(e) => return Err(Status::failed_precondition(format!("exec in container {}: {e}", start.container))),
        }
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

fn exit(code: i32) -> ExecOutput {
    ExecOutput { message: Some(OutMessage::Exit(ExecExit { code })) }
}

pub(super) fn cells(size: Option<TtySize>) -> (u16, u16) {
    let size = size.unwrap_or(TtySize { rows: 24, columns: 80 });
    (u16::try_from(size.rows).unwrap_or(u16::MAX), u16::try_from(size.columns).unwrap_or(u16::MAX))
}

async fn begin(shim: &ShimClient, start: &ExecStart) -> Result<(Exec, Streams), Error> {
    let request = |stdio| ExecRequest {
        container: start.container.clone(),
        args: start.command.clone(),
        env: if start.tty { vec!["TERM=xterm".into()] } else { Vec::new() },
        cwd: None,
        user: None,
        stdio,
    };
    let io = |source: std::io::Error| Error::Io { action: "making the streams of an exec".into(), source };
    if start.tty {
        let (rows, columns) = cells(start.size);
        let exec = shim.exec(request(ExecStdio::Terminal { rows, columns })).await?;
        let master = exec.terminal.as_ref().ok_or_else(|| io(std::io::Error::other("no terminal came back")))?;
        let stdout = Reader::new(master.try_clone().map_err(io)?).map_err(io)?;
        let stdin = match start.stdin {
            true => Some(Writer::new(master.try_clone().map_err(io)?).map_err(io)?),
            false => None,
        };
        return Ok((exec, Streams { stdin, stdout, stderr: None }));
    }
    let pipe = || std::io::pipe().map_err(io);
    let ((stdin_theirs, stdin), (stdout, stdout_theirs), (stderr, stderr_theirs)) = (pipe()?, pipe()?, pipe()?);
    let exec = shim.exec(request(ExecStdio::Pipes {
        stdin: stdin_theirs.into(),
        stdout: stdout_theirs.into(),
        stderr: stderr_theirs.into(),
    }));
    let exec = exec.await?;
    let read = |fd: OwnedFd| Reader::new(fd).map_err(io);
    // Without one the process reads its end at once.
    let stdin = if start.stdin { Some(Writer::new(stdin.into()).map_err(io)?) } else { None };
    Ok((exec, Streams { stdin, stdout: read(stdout.into())?, stderr: Some(read(stderr.into())?) }))
}

async fn relay(mut exec: Exec, streams: Streams, input: Streaming<ExecInput>, sender: &Sender) {
    let Streams { stdin, stdout, stderr } = streams;
    let (resizes, mut sizes) = mpsc::channel::<TtySize>(STREAM_WAITING_MAX);
    // Ends by itself: with the input, or when the process no longer reads.
    let feeder = tokio::spawn(feed(input, stdin, resizes));
    let mut output = tokio::spawn(drain(stdout, stderr, sender.clone()));
    let code = loop {
        tokio::select! {
            ended = &mut exec.exit => break ended.ok().map(|e| e.code),
            Some(size) = sizes.recv() => {
                let (rows, columns) = cells(Some(size));
                if let Err(e) = exec.resize(rows, columns) {
                    tracing::debug!("{e}");
                }
            }
            // Whoever asked has gone: nobody wants its work any more.
            () = sender.closed() => {
                if let Err(e) = exec.process.signal(KILL) {
                    tracing::debug!("{e}");
                }
                break None;
            }
        }
    };
    feeder.abort();
    if timeout(DRAIN, &mut output).await.is_err() {
        output.abort();
    }
    let last = code
        .map(exit)
        .ok_or_else(|| Status::unavailable("the pod's sandbox died, or the agent lost it, while the command ran"));
    sender.send(last).await.ok();
}

async fn feed(mut input: Streaming<ExecInput>, mut stdin: Option<Writer>, resizes: mpsc::Sender<TtySize>) {
    while let Ok(Some(message)) = input.message().await {
        match message.message {
            Some(In::Stdin(bytes)) => {
                if let Some(end) = &mut stdin
                    && end.write_all(&bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            Some(In::StdinClosed(_)) => stdin = None,
            Some(In::Resize(size)) => {
                if resizes.send(size).await.is_err() {
                    return;
                }
            }
            Some(In::Start(_)) | None => {}
        }
    }
    // The input is over: the process reads its end, and sizes change no more.
    drop(stdin);
    std::future::pending::<()>().await;
}

async fn drain(stdout: Reader, stderr: Option<Reader>, sender: Sender) {
    let copy = |mut end: Reader, make: fn(Vec<u8>) -> OutMessage| {
        let sender = sender.clone();
        async move {
            loop {
                let bytes = match end.read().await {
                    Ok(bytes) if !bytes.is_empty() => bytes,
                    Ok(_) => return,
                    Err(e) => {
                        tracing::debug!("reading an exec's output: {e}");
                        return;
                    }
                };
                if sender.send(Ok(ExecOutput { message: Some(make(bytes)) })).await.is_err() {
                    return;
                }
            }
        }
    };
    let error = async {
        if let Some(end) = stderr {
            copy(end, OutMessage::Stderr).await;
        }
    };
    tokio::join!(copy(stdout, OutMessage::Stdout), error);
}
