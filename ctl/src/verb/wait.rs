use crate::{
    amount::parse_duration,
    condition::{self, Condition},
    exit::{Exit, Failure},
    kind::{parse_targets, word_of},
    observe::until,
    output,
    progress::Progress,
    session::Session,
    verb::get::name_needed,
};
use std::time::Duration;
use strata_proto::types::Kind;
use tokio::time::Instant;

/// Wait until an object is what is wanted.
///
/// CONDITION is ready, deleted, phase=PHASE, or FIELD=VALUE with the path of a field as `ctl get -o json` shows it.
/// An object that is not there yet is waited for, too.
///
/// Examples:
///   ctl wait workload web --for ready --timeout 2m
///   ctl wait pod web-3 --for phase=Running
///   ctl wait pod web-3 --for status.containers[0].restarts=1
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
#[allow(rustdoc::broken_intra_doc_links)] // the text is shown as it is: [0] is no link
pub struct Args {
    /// KIND NAME… or KIND/NAME…
    #[arg(required = true, value_name = "KIND NAME")]
    pub targets: Vec<String>,
    /// What to wait for
    #[arg(long = "for", required = true, value_name = "CONDITION")]
    pub condition: String,
    /// How long; 0 only looks
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
}

impl Args {
    pub fn check(&self) -> Result<(), Failure> {
        let (kind, names) = parse_targets(&self.targets)?;
        Condition::parse(&self.condition)?;
        if names.is_empty() { Err(name_needed(kind)) } else { Ok(()) }
    }
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let (kind, names) = parse_targets(&args.targets)?;
    let condition = Condition::parse(&args.condition)?;
    let deadline = Instant::now() + args.timeout;
    for name in names {
        wait_one(args, session, kind, &name, &condition, deadline).await?;
        output::print(&format!("{}/{name}: {}\n", word_of(kind), args.condition))?;
    }
    Ok(())
}

async fn wait_one(
    args: &Args,
    session: &Session,
    kind: Kind,
    name: &str,
    condition: &Condition,
    deadline: Instant,
) -> Result<(), Failure> {
    let namespace = session.namespace_of(kind);
    let key = (namespace.to_owned(), name.to_owned());
    let shown = format!("{}/{name}", word_of(kind));
    let mut progress = Progress::counting(&shown);
    let mut state = String::new();
    let found = until(session, kind, namespace, deadline, |world| {
        let object = world.get(&key);
        if condition.holds(object) {
            return Some(());
        }
        state = object.map_or_else(|| "it is not there".to_owned(), condition::reason_of);
        if !state.is_empty() {
            progress.say(&format!("{shown}: {state}"));
        }
        None
    });
    let found = found.await?;
    drop(progress);
    found.ok_or_else(|| {
        let state = if state.is_empty() { String::new() } else { format!(": {state}") };
        let (wanted, seconds) = (&args.condition, args.timeout.as_secs());
        let message =
            format!("{shown} was not {wanted} within {seconds} s{state}; see `ctl describe {} {name}`", word_of(kind));
        Failure::new(Exit::TimedOut, message)
    })
}
