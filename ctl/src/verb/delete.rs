use crate::{
    amount::parse_duration,
    exit::{Exit, Failure},
    kind::{namespace_for, parse_targets, word_of},
    manifests,
    observe::{key_of, until},
    output,
    session::{Global, Session},
    verb::get::name_needed,
};
use std::{path::PathBuf, time::Duration};
use strata_client::ErrorKind;
use strata_proto::types::Kind;
use tokio::time::Instant;

/// Delete objects and what they own.
///
/// Deleting a workload stops its pods and removes their writable layers; layers of images stay. The objects go once everything they own is gone:
/// --wait waits for that.
///
/// Examples:
///   ctl delete workload web --wait
///   ctl delete -f hello.yaml
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// KIND NAME… or KIND/NAME…
    #[arg(required_unless_present = "filename", conflicts_with = "filename", value_name = "KIND NAME")]
    pub targets: Vec<String>,
    /// The objects that a file, a directory or stdin (-) names; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    pub filename: Vec<PathBuf>,
    /// Also the volumes of a Compose file, with their data
    #[arg(long, requires = "filename")]
    pub volumes: bool,
    /// Wait until they are gone
    #[arg(long)]
    pub wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
    /// What is not there need not be deleted
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Images: also if they are in use
    #[arg(long)]
    pub force: bool,
}

/// One object to delete.
struct Target {
    kind: Kind,
    namespace: String,
    name: String,
}

pub async fn perform(args: &Args, global: &Global) -> Result<(), Failure> {
    let (session, targets) = if args.filename.is_empty() {
        let (kind, names) = parse_targets(&args.targets)?;
        if names.is_empty() {
            return Err(name_needed(kind));
        }
        let session = Session::open(global).await?;
        let namespace = session.namespace_of(kind).to_owned();
        let target = |name| Target { kind, namespace: namespace.clone(), name };
        let targets: Vec<Target> = names.into_iter().map(target).collect();
        (session, targets)
    } else {
        // The last that was applied goes first, so that nothing misses what it needs.
        let all = ["*".to_owned()];
        let mut objects: Vec<_> =
            manifests::read_all(&args.filename, "", &all)?.into_iter().map(|m| m.object).collect();
        objects.reverse();
        if !args.volumes {
            objects.retain(|object| {
                let stays = manifests::is_compose_volume(object);
                if stays {
                    output::talk(&format!("{} stays, with its data (--volumes deletes it)", output::name_line(object)));
                }
                !stays
            });
        }
        let session = Session::open(global).await?;
        let target = |object| {
            let (namespace, name) = key_of(object);
            let kind = object.kind_of();
            let namespace = if namespace.is_empty() { session.namespace_of(kind).to_owned() } else { namespace };
            Target { kind, namespace, name }
        };
        let targets = objects.iter().map(target).collect();
        (session, targets)
    };
    delete_all(args, &session, &targets).await
}

/// Deletes one after the other. What is missing does not keep the rest back; the first failure counts.
async fn delete_all(args: &Args, session: &Session, targets: &[Target]) -> Result<(), Failure> {
    let mut first: Option<Failure> = None;
    let mut going = Vec::new();
    for target in targets {
        match session.client.delete(target.kind, &target.namespace, &target.name, 0, args.force).await {
            Ok(_) => {
                output::print(&format!("{}/{} deleted\n", word_of(target.kind), target.name))?;
                going.push(target);
            }
            Err(error) if error.kind == ErrorKind::NotFound && args.ignore_not_found => {}
            Err(error) => {
                let failure = Failure::from(error);
                if matches!(failure.exit, Exit::Unreachable | Exit::NotAllowed) {
                    return Err(failure);
                }
                if first.is_some() {
                    output::talk(&format!("ctl: {failure}"));
                } else {
                    first = Some(failure);
                }
            }
        }
    }
    if args.wait {
        let deadline = Instant::now() + args.timeout;
        for target in going {
            wait_gone(session, target, deadline, args.timeout).await?;
        }
    }
    first.map_or(Ok(()), Err)
}

async fn wait_gone(session: &Session, target: &Target, deadline: Instant, timeout: Duration) -> Result<(), Failure> {
    let key = (target.namespace.clone(), target.name.clone());
    let namespace = namespace_for(target.kind, &target.namespace);
    let gone = until(session, target.kind, namespace, deadline, |world| (!world.contains_key(&key)).then_some(()));
    gone.await?.ok_or_else(|| {
        let (kind, seconds) = (word_of(target.kind), timeout.as_secs());
        let message = format!(
            "{kind}/{} was not gone within {seconds} s; see `ctl describe {kind} {}`",
            target.name, target.name
        );
        Failure::new(Exit::TimedOut, message)
    })
}
