use crate::{
    amount::{age, parse_duration},
    edit,
    exit::Failure,
    output::{self, now_ms},
    rollout,
    session::Session,
    table::Table,
};
use std::time::Duration;
use strata_proto::{
    document,
    types::{Kind, Object, RevisionRecord, WorkloadStatus, object, workload_status::Rollout},
};

/// The annotation of a template by which a restart makes it another one.
const RESTARTED_AT: &str = "strata.dev/restarted-at";

/// See how a workload gets from one revision to the next, and change that.
///
/// Examples:
///   ctl rollout status web
///   ctl rollout history web
///   ctl rollout undo web --to 3
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Wait until the rollout is complete; exit code 1 if it failed or was taken back
    Status {
        #[arg(value_name = "WORKLOAD")]
        workload: String,
        /// How long; 0 only looks
        #[arg(long, default_value = "15m", value_parser = parse_duration, value_name = "DURATION")]
        timeout: Duration,
    },
    /// List the revisions, newest last
    History {
        #[arg(value_name = "WORKLOAD")]
        workload: String,
        /// How to show them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: HistoryFormat,
    },
    /// Go back to an earlier revision
    Undo {
        #[arg(value_name = "WORKLOAD")]
        workload: String,
        /// The number of the revision; 0 for the one before the present
        #[arg(long = "to", alias = "to-revision", default_value_t = 0, value_name = "N")]
        number: u64,
        #[command(flatten)]
        wait: Wait,
    },
    /// Replace every pod by a new one of the same template
    Restart {
        #[arg(value_name = "WORKLOAD")]
        workload: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Hold changes of the template back
    Pause {
        #[arg(value_name = "WORKLOAD")]
        workload: String,
    },
    /// Let changes of the template go on
    Resume {
        #[arg(value_name = "WORKLOAD")]
        workload: String,
    },
}

/// Waiting for what was begun.
#[derive(Debug, clap::Args)]
pub struct Wait {
    /// Wait until it is complete
    #[arg(long)]
    pub wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "15m", value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum HistoryFormat {
    /// Aligned columns
    #[default]
    Table,
    /// An array
    Json,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    match &args.what {
        What::Status { workload, timeout } => status(session, edit::workload_name(workload)?, *timeout).await,
        What::History { workload, output } => history(session, edit::workload_name(workload)?, *output).await,
        What::Undo { workload, number, wait } => {
            let name = edit::workload_name(workload)?;
            let object = session.client.undo(&session.namespace, name, *number).await?;
            done(session, name, "goes back", object, wait).await
        }
        What::Restart { workload, wait } => {
            let name = edit::workload_name(workload)?;
            let now = now_ms().to_string();
            let object = edit::workload(session, name, |spec| {
                spec.template.get_or_insert_default().annotations.insert(RESTARTED_AT.to_owned(), now.clone());
                Ok(())
            });
            done(session, name, "restarted", object.await?, wait).await
        }
        What::Pause { workload } => pause(session, edit::workload_name(workload)?, true).await,
        What::Resume { workload } => pause(session, edit::workload_name(workload)?, false).await,
    }
}

async fn done(session: &Session, name: &str, word: &str, object: Object, wait: &Wait) -> Result<(), Failure> {
    output::print(&format!("workload/{name} {word}\n"))?;
    if wait.wait {
        rollout::wait_complete(session, &object, wait.timeout).await?;
    }
    Ok(())
}

async fn pause(session: &Session, name: &str, paused: bool) -> Result<(), Failure> {
    let change = |spec: &mut strata_proto::types::WorkloadSpec| {
        spec.paused = paused;
        Ok(())
    };
    edit::workload(session, name, change).await?;
    output::print(&format!("workload/{name} {}\n", if paused { "paused" } else { "resumed" }))
}

async fn status(session: &Session, name: &str, timeout: Duration) -> Result<(), Failure> {
    let object = session.client.get(Kind::Workload, &session.namespace, name).await?;
    if status_of(&object).rollout() == Rollout::Paused {
        return output::print(&format!("workload/{name}: the rollout is paused: `ctl rollout resume {name}`\n"));
    }
    let done = rollout::wait_complete(session, &object, timeout).await?;
    let status = status_of(&done);
    let number = status.history.last().map(|r| format!(" of revision {}", r.number)).unwrap_or_default();
    output::print(&format!("workload/{name}: the rollout{number} is complete, {} pods are ready\n", status.ready))
}

async fn history(session: &Session, name: &str, format: HistoryFormat) -> Result<(), Failure> {
    let object = session.client.get(Kind::Workload, &session.namespace, name).await?;
    let status = status_of(&object);
    if format == HistoryFormat::Json {
        let document = document::to_json(&object).map_err(|e| Failure::failed(format!("workload {name}: {e}")))?;
        let text = serde_json::to_string_pretty(&document["status"]["history"]);
        return output::print(&(text.map_err(|e| Failure::failed(e.to_string()))? + "\n"));
    }
    let rows: Vec<Vec<String>> = status.history.iter().map(|r| row(r, &status, now_ms())).collect();
    output::print(&Table::new(vec!["REVISION", "TEMPLATE", "AGE", "STATE", "CAUSE"]).render(&rows))
}

fn row(record: &RevisionRecord, status: &WorkloadStatus, now_ms: u64) -> Vec<String> {
    let newest = status.history.last().is_some_and(|r| r.number == record.number);
    let state = match (newest, status.rollout()) {
        (true, Rollout::Failed | Rollout::Reverted) if !record.complete => "failed",
        (true, Rollout::Paused) if !record.complete => "paused",
        (true, _) if !record.complete => "progressing",
        _ if record.revision == status.revision => "present",
        _ if record.complete => "complete",
        _ => "never complete",
    };
    vec![
        record.number.to_string(),
        record.revision.chars().take(12).collect(),
        age(record.created.as_ref(), now_ms),
        state.to_owned(),
        record.cause.clone(),
    ]
}

fn status_of(object: &Object) -> WorkloadStatus {
    match &object.kind {
        Some(object::Kind::Workload(workload)) => workload.status.clone().unwrap_or_default(),
        _ => WorkloadStatus::default(),
    }
}
