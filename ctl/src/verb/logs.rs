use crate::{exit::Failure, output, pods, session::Session};
use strata_client::{Client, LogOptions};

/// Print what a container has written.
///
/// The container's stdout and stderr both go to stdout, as they came.
///
/// Examples:
///   ctl logs web-3
///   ctl logs -f --tail 20 workload/web
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A pod, or workload/NAME for any running one of its pods
    #[arg(value_name = "POD")]
    pub pod: String,
    /// The container, if the pod has several
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub container: String,
    /// Go on until the container ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// Begin every line with its time
    #[arg(long)]
    pub timestamps: bool,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let pod = pods::resolve(session, &args.pod).await?;
    let tail_lines = match args.tail {
        // On the wire 0 is "all"; nobody needs a cluster to print nothing.
        Some(0) if !args.follow => return Ok(()),
        Some(lines) => u64::try_from(lines).unwrap_or(0),
        None => 0,
    };
    let options =
        LogOptions { container: args.container.clone(), follow: args.follow, tail_lines, timestamps: args.timestamps };
    let doing = format!("read the logs of pod {}/{pod}", session.namespace);
    let mut chunks = session.client.logs(&session.namespace, &pod, options).await?;
    while let Some(chunk) = chunks.message().await.map_err(|status| Client::stream_error(&doing, &status))? {
        output::print_bytes(&chunk.data)?;
    }
    Ok(())
}
