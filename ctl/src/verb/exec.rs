use crate::{
    exit::{Exit, Failure},
    output, pods,
    session::Session,
    terminal::{self, Raw},
};
use std::io::Write as _;
use strata_client::{ExecInput, ExecSession, ExecStart};
use strata_model::limits::CHUNK_BYTES;
use strata_proto::node::{ExecExit, exec_output::Message};
use tokio::{
    io::AsyncReadExt as _,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

/// Run a command in a container that runs.
///
/// Exits with the command's code, with 128+N if signal N ended it, with 125 if ctl itself failed.
///
/// Examples:
///   ctl exec web-3 -- ls -l /
///   ctl exec -it workload/web -- sh
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Pass stdin on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the command a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// The container, if the pod has several
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub container: String,
    /// A pod, or workload/NAME for any running one of its pods
    #[arg(value_name = "POD")]
    pub pod: String,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

pub async fn perform(args: &Args, session: &Session) -> Result<u8, Failure> {
    let pod = pods::resolve(session, &args.pod).await?;
    let start = ExecStart {
        namespace: session.namespace.clone(),
        pod,
        container: args.container.clone(),
        command: args.command.clone(),
        tty: args.tty,
        stdin: args.stdin,
        size: args.tty.then(terminal::wire_size),
        attach: false,
    };
    converse(session, start).await
}

/// Connects this terminal to a remote process until that ends; returns its exit code.
pub async fn converse(session: &Session, start: ExecStart) -> Result<u8, Failure> {
    let (tty, stdin) = (start.tty, start.stdin);
    let remote = session.client.exec(start);
    // Dropped, and so restored, before any error is reported.
    let raw = if tty && stdin { Raw::enter()? } else { None };
    let mut tasks = JoinSet::new();
    if stdin {
        tasks.spawn(send_stdin(remote.input()));
    }
    if tty {
        tasks.spawn(send_sizes(remote.input()));
    }
    let outcome = receive(remote).await;
    drop(raw);
    tasks.abort_all();
    outcome
}

async fn receive(mut remote: ExecSession) -> Result<u8, Failure> {
    loop {
        match remote.next().await? {
            Message::Stdout(data) => output::print_bytes(&data)?,
            Message::Stderr(data) => {
                // What goes to a closed stderr is lost, as it is for a local command.
                drop(std::io::stderr().lock().write_all(&data));
            }
            Message::Exit(ExecExit { code }) => {
                return u8::try_from(code).map_err(|_| {
                    Failure::new(Exit::Own, format!("the command ended with {code}, which is no exit code (0 to 255)"))
                });
            }
        }
    }
}

async fn send_stdin(input: ExecInput) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if !input.stdin(buffer[..count].to_vec()).await {
                    return;
                }
            }
        }
    }
    input.close_stdin().await;
}

async fn send_sizes(input: ExecInput) {
    let Ok(mut resized) = signal(SignalKind::window_change()) else { return };
    while resized.recv().await.is_some() {
        let (rows, columns) = terminal::size();
        if !input.resize(rows, columns).await {
            return;
        }
    }
}
