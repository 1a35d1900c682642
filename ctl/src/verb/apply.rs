use crate::{
    amount::parse_duration,
    exit::{Exit, Failure},
    manifests, output,
    output::{Format, Number},
    rollout,
    session::{DEFAULT_NAMESPACE, Global, Session},
};
use std::{path::PathBuf, time::Duration};
use strata_client::{ApplyMode, Outcome};
use strata_proto::{
    document::is_namespaced,
    types::{Kind, Object},
};

/// Create objects from manifests, or change them to what the manifests say.
///
/// All files are read and checked before the first object is applied. Strata's own documents and Kubernetes' Pod and Deployment are
/// understood. An object that is there already gets the new spec; one that is equal stays as it is.
///
/// Examples:
///   ctl apply -f hello.yaml --wait
///   ctl apply -f manifests/ -f extra.yaml
///   generate | ctl apply -f - --dry-run=server
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A file, a directory (every *.yaml, *.yml and *.json in it, by name) or - for stdin; may be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub filename: Vec<PathBuf>,
    /// Wait until everything applied is ready: of workloads, every pod of the newest generation
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
    /// Change nothing. client: only parse and convert, no cluster needed; server: also validate there
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", value_name = "WHERE")]
    pub dry_run: Option<DryRun>,
    /// How to show what was applied
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    Client,
    Server,
}

pub async fn perform(args: &Args, global: &Global) -> Result<(), Failure> {
    if args.dry_run == Some(DryRun::Client) {
        let namespace = global.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let objects = read(args, namespace, global)?;
        return show(args, &objects.into_iter().map(|object| (object, "valid (client dry run)")).collect::<Vec<_>>());
    }
    // Manifests come first: what is wrong with them needs no cluster to be said. The context's namespace is filled in below.
    let mut objects = read(args, global.namespace.as_deref().unwrap_or_default(), global)?;
    let session = Session::open(global).await?;
    for object in objects.iter_mut().filter(|object| is_namespaced(object.kind_of())) {
        let meta = object.meta.get_or_insert_default();
        if meta.namespace.is_empty() {
            session.namespace.clone_into(&mut meta.namespace);
        }
    }
    let (applied, failure) = apply_all(args, &session, objects).await;
    show(args, &applied)?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    if args.wait {
        let objects: Vec<Object> = applied.into_iter().map(|(object, _)| object).collect();
        rollout::wait_ready(&session, &objects, args.timeout).await?;
    }
    Ok(())
}

fn read(args: &Args, namespace: &str, global: &Global) -> Result<Vec<Object>, Failure> {
    let objects = manifests::read_all(&args.filename, namespace)?;
    if let Some(wanted) = &global.namespace {
        for object in objects.iter().filter(|object| is_namespaced(object.kind_of())) {
            let found = object.meta.as_ref().map_or("", |meta| &meta.namespace);
            if found != wanted {
                let name = output::name_line(object);
                return Err(Failure::failed(format!(
                    "{name}: its manifest says namespace {found}, the command line {wanted}: leave one of them out"
                )));
            }
        }
    }
    Ok(objects)
}

/// Applies one after the other. What fails does not keep the rest back, unless the cluster cannot be worked with at all; the first failure counts.
async fn apply_all(
    args: &Args,
    session: &Session,
    objects: Vec<Object>,
) -> (Vec<(Object, &'static str)>, Option<Failure>) {
    let mode = if args.dry_run.is_some() { ApplyMode::DryRun } else { ApplyMode::Apply };
    let mut applied = Vec::new();
    let mut first: Option<Failure> = None;
    for object in objects {
        match session.client.apply(object, mode).await {
            Ok(done) => applied.push((done.object, word_for(done.outcome, mode))),
            Err(error) => {
                let failure = Failure::from(error);
                let hopeless = matches!(failure.exit, Exit::Unreachable | Exit::NotAllowed);
                if let Some(first) = &mut first {
                    first.message = format!("{}\nctl: {}", first.message, failure.message);
                } else {
                    first = Some(failure);
                }
                if hopeless {
                    break;
                }
            }
        }
    }
    (applied, first)
}

fn word_for(outcome: Outcome, mode: ApplyMode) -> &'static str {
    match (outcome, mode) {
        (Outcome::Created, ApplyMode::DryRun) => "would be created (server dry run)",
        (Outcome::Configured, ApplyMode::DryRun) => "would be configured (server dry run)",
        (Outcome::Unchanged, ApplyMode::DryRun) => "would stay unchanged (server dry run)",
        (Outcome::Created, _) => "created",
        (Outcome::Configured, _) => "configured",
        (Outcome::Unchanged, _) => "unchanged",
    }
}

fn show(args: &Args, applied: &[(Object, &'static str)]) -> Result<(), Failure> {
    let Some(format) = args.output.filter(|format| !matches!(format, Format::Table | Format::Wide)) else {
        let line = |(object, word): &(Object, &str)| format!("{} {word}\n", output::name_line(object));
        return output::print(&applied.iter().map(line).collect::<String>());
    };
    let objects: Vec<Object> = applied.iter().map(|(object, _)| object.clone()).collect();
    let number = if objects.len() == 1 { Number::One } else { Number::Many };
    output::print(&output::render(Kind::Unspecified, &objects, number, format, false, output::now_ms())?)
}
