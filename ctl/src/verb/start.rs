use crate::{act, amount::parse_duration, exit::Failure, session::Session};
use std::time::Duration;
use strata_client::Act;

/// Start what was stopped: in the same place, with the same address and files.
///
/// Examples:
///   ctl start web-3
///   ctl start workload/web
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// POD, pod/NAME or workload/NAME; a bare name is a pod's, else a workload's
    #[arg(required = true, value_name = "POD|WORKLOAD")]
    pub targets: Vec<String>,
    /// Do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let pods = act::perform(session, &args.targets, &Act::Start, "starting").await?;
    if args.no_wait {
        return Ok(());
    }
    act::wait(session, &pods, "running", args.timeout, act::is_running).await
}
