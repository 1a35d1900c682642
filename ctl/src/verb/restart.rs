use crate::{act, exit::Failure, session::Session};
use strata_client::Act;

/// Restart containers in place: stop signal, grace, kill, and a new start in the same sandbox.
///
/// All pods of a workload restart at the same time; `ctl rollout restart` replaces them one after another.
///
/// Examples:
///   ctl restart web-3 -c main
///   ctl restart workload/web -t 0
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// POD, pod/NAME or workload/NAME; a bare name is a pod's, else a workload's
    #[arg(required = true, value_name = "POD|WORKLOAD")]
    pub targets: Vec<String>,
    /// Only this container
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub container: String,
    /// Seconds between stop signal and kill, instead of the template's
    #[arg(short = 't', long = "grace", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=3600))]
    pub grace_s: Option<u32>,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let act = Act::Restart { container: args.container.clone(), grace_s: args.grace_s };
    act::perform(session, &args.targets, &act, "restarted").await.map(drop)
}
