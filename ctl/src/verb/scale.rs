use crate::{amount::parse_duration, exit::Failure, kind::parse_kind, output, rollout, session::Session};
use std::time::Duration;
use strata_client::{ApplyMode, ClientError, ErrorKind};
use strata_model::limits::REPLICAS_MAX;
use strata_proto::types::{Kind, Object, object, workload_spec::Mode};

/// Attempts against others who change the workload at the same time.
const ATTEMPTS_MAX: u32 = 8;

/// Set the number of a workload's pods.
///
/// Examples:
///   ctl scale web --replicas 10
///   ctl scale deployment/web --replicas 0 --wait
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The workload; workload/NAME is understood too
    #[arg(value_name = "WORKLOAD")]
    pub workload: String,
    /// How many pods it should have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(REPLICAS_MAX)))]
    pub replicas: u32,
    /// Wait until they are ready
    #[arg(long)]
    pub wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let name = match args.workload.split_once('/') {
        None => args.workload.as_str(),
        Some((kind, name)) if parse_kind(kind) == Ok(Kind::Workload) => name,
        Some(_) => return Err(Failure::usage(format!("{:?}: only workloads have replicas", args.workload))),
    };
    let applied = set_replicas(session, name, args.replicas).await?;
    output::print(&format!("workload/{name} scaled to {}\n", args.replicas))?;
    if args.wait {
        rollout::wait_ready(session, &[applied], args.timeout).await?;
    }
    Ok(())
}

/// Changes only what was read: if somebody else was faster, it reads again.
async fn set_replicas(session: &Session, name: &str, replicas: u32) -> Result<Object, Failure> {
    let mut conflict: Option<ClientError> = None;
    for _ in 0..ATTEMPTS_MAX {
        let mut object = session.client.get(Kind::Workload, &session.namespace, name).await?;
        let Some(object::Kind::Workload(workload)) = &mut object.kind else {
            return Err(Failure::failed(format!("workload {name}: the answer is of another kind")));
        };
        let spec = workload.spec.get_or_insert_default();
        if spec.mode() == Mode::Global {
            let message = format!("workload {name} runs one pod on every matching node, so it has no number to set");
            return Err(Failure::failed(message));
        }
        spec.replicas = Some(replicas);
        match session.client.apply(object, ApplyMode::Apply).await {
            Ok(applied) => return Ok(applied.object),
            Err(error) if error.kind == ErrorKind::Conflict => conflict = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict.map_or_else(|| Failure::failed("not tried"), Failure::from))
}
