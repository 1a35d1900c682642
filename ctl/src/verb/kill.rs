use crate::{act, exit::Failure, session::Session};
use strata_client::Act;
use strata_model::signal;

/// Send a signal to the first process of containers.
///
/// What happens when that ends a container, its restart policy says.
///
/// Examples:
///   ctl kill web-3
///   ctl kill -s HUP workload/web -c main
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// POD, pod/NAME or workload/NAME; a bare name is a pod's, else a workload's
    #[arg(required = true, value_name = "POD|WORKLOAD")]
    pub targets: Vec<String>,
    /// By name or number: TERM, SIGHUP, 9, RTMIN+3
    #[arg(short, long, default_value = "KILL", value_parser = parse_signal, value_name = "SIGNAL")]
    pub signal: u32,
    /// Only this container
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub container: String,
}

fn parse_signal(text: &str) -> Result<u32, String> {
    let number = signal::number(text).and_then(|n| u32::try_from(n).ok());
    number.ok_or_else(|| format!("{text:?} is no signal: TERM, SIGHUP, 9, RTMIN+3, …"))
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let act = Act::Signal { container: args.container.clone(), signal: args.signal };
    act::perform(session, &args.targets, &act, "signalled").await.map(drop)
}
