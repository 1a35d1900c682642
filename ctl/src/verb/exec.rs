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
    let code = converse_until(session, start, Detach::Never).await?;
    code.ok_or_else(|| Failure::new(Exit::Own, "detached"))
}

/// How a conversation may end before the process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detach {
    /// Not at all.
    Never,
    /// As docker has it.
    CtrlPCtrlQ,
}

/// The same; `None` if the user has let go of the process.
pub async fn converse_until(session: &Session, start: ExecStart, detach: Detach) -> Result<Option<u8>, Failure> {
    let (tty, stdin) = (start.tty, start.stdin);
    let remote = session.client.exec(start);
    // Dropped, and so restored, before any error is reported.
    let raw = if tty && stdin { Raw::enter()? } else { None };
    let mut tasks = JoinSet::new();
    let (detached, mut lets_go) = tokio::sync::oneshot::channel();
    if stdin {
        tasks.spawn(send_stdin(remote.input(), (detach == Detach::CtrlPCtrlQ).then_some(detached)));
    }
    if tty {
        tasks.spawn(send_sizes(remote.input()));
    }
    let outcome = tokio::select! {
        outcome = receive(remote) => outcome.map(Some),
        Ok(()) = &mut lets_go => Ok(None),
    };
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

async fn send_stdin(input: ExecInput, mut detached: Option<tokio::sync::oneshot::Sender<()>>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut keys = Keys::default();
    loop {
        match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let (bytes, lets_go) = match detached {
                    Some(_) => keys.pass(&buffer[..count]),
                    None => (buffer[..count].to_vec(), false),
                };
                if !bytes.is_empty() && !input.stdin(bytes).await {
                    return;
                }
                if let Some(detached) = detached.take_if(|_| lets_go) {
                    // Whoever waits for it may have got its exit code meanwhile.
                    detached.send(()).ok();
                    return;
                }
            }
        }
    }
    input.close_stdin().await;
}

/// Looks for ctrl-p ctrl-q in what is typed. A ctrl-p is held back until it is known what follows.
#[derive(Debug, Default)]
struct Keys {
    held: bool,
}

impl Keys {
    const CTRL_P: u8 = 0x10;
    const CTRL_Q: u8 = 0x11;

    /// What is to be sent, and whether the keys were there.
    fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut bytes = Vec::with_capacity(typed.len() + 1);
        for key in typed {
            match (std::mem::take(&mut self.held), *key) {
                (true, Self::CTRL_Q) => return (bytes, true),
                (held, key) => {
                    if held {
                        bytes.push(Self::CTRL_P);
                    }
                    if key == Self::CTRL_P {
                        self.held = true;
                    } else {
                        bytes.push(key);
                    }
                }
            }
        }
        (bytes, false)
    }
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

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn only_the_two_keys_together_detach() {
        let mut keys = Keys::default();
        assert_eq!(keys.pass(b"ls\r"), (b"ls\r".to_vec(), false));
        assert_eq!(keys.pass(b"\x10"), (vec![], false));
        assert_eq!(keys.pass(b"a"), (b"\x10a".to_vec(), false));
        assert_eq!(keys.pass(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.pass(b"\x11lost"), (vec![], true));
    }
}
