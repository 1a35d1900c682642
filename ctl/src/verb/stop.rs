use crate::{act, amount::parse_duration, exit::Failure, session::Session};
use std::time::Duration;
use strata_client::Act;

/// Stop pods: their containers end, node, address and writable layer stay.
///
/// A stopped workload keeps its pods, and new ones begin stopped; `ctl start` undoes it.
///
/// Examples:
///   ctl stop web-3
///   ctl stop workload/web -t 2
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// POD, pod/NAME or workload/NAME; a bare name is a pod's, else a workload's
    #[arg(required = true, value_name = "POD|WORKLOAD")]
    pub targets: Vec<String>,
    /// Seconds between stop signal and kill, instead of the template's
    #[arg(short = 't', long = "grace", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=3600))]
    pub grace_s: Option<u32>,
    /// Do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let pods = act::perform(session, &args.targets, &Act::Stop { grace_s: args.grace_s }, "stopping").await?;
    if args.no_wait {
        return Ok(());
    }
    act::wait(session, &pods, "stopped", args.timeout, act::is_stopped).await
}
