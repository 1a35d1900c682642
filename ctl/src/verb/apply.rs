mod images;
mod prune;

use crate::{
    amount::parse_duration,
    exit::{Exit, Failure},
    manifests::{self, Manifest, Set},
    output,
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
/// All files are read and checked before the first object is applied. Strata's own documents, Kubernetes documents and Compose files are
/// understood. An object that is there already gets the new spec; one that is equal stays as it is. What others need comes first: namespaces,
/// configs, secrets, volumes, services, workloads, pods.
///
/// With --set NAME the objects are labelled strata.dev/applied-by=NAME, and --prune deletes those of that set, in the same namespaces, that
/// are no longer in the files. A Compose file's set is its project. Volumes and namespaces are never pruned.
///
/// Examples:
///   ctl apply -f hello.yaml --wait
///   ctl apply -f manifests/ -f extra.yaml --set shop --prune
///   ctl apply -f compose.yaml --profile debug
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
    /// The set that the objects belong to
    #[arg(long, value_name = "NAME", value_parser = parse_set)]
    pub set: Option<String>,
    /// Delete what an earlier apply of the same set made and the files no longer have
    #[arg(long)]
    pub prune: bool,
    /// Compose files: build every image that a service wants built, not only those that the cluster lacks
    #[arg(long, conflicts_with = "dry_run")]
    pub build: bool,
    /// Compose files: also the services of this profile (* for all); may be repeated
    #[arg(long, value_name = "NAME")]
    pub profile: Vec<String>,
    /// How to show what was applied
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    Client,
    Server,
}

fn parse_set(text: &str) -> Result<String, String> {
    manifests::parse_name(text).map_err(|failure| failure.message)
}

pub async fn perform(args: &Args, global: &Global) -> Result<(), Failure> {
    if args.dry_run == Some(DryRun::Client) {
        if args.prune {
            return Err(Failure::usage("what --prune would delete only the cluster knows: use --dry-run=server"));
        }
        let namespace = global.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let objects = read(&args.filename, &args.profile, args.set.as_deref(), namespace, global)?;
        let valid = objects.into_iter().map(|manifest| (manifest.object, "valid (client dry run)"));
        return show(args, &valid.collect::<Vec<_>>());
    }
    // Manifests come first: what is wrong with them needs no cluster to be said. The context's namespace is filled in below.
    let namespace = global.namespace.as_deref().unwrap_or_default();
    let mut manifests = read(&args.filename, &args.profile, args.set.as_deref(), namespace, global)?;
    if args.prune && !Set::of(manifests.iter().map(|m| &m.object)).complete {
        return Err(Failure::usage(
            "--prune needs to know which objects belong together: give the set a name with --set NAME",
        ));
    }
    let session = Session::open(global).await?;
    fill_namespaces(&mut manifests, &session.namespace);
    let set = Set::of(manifests.iter().map(|m| &m.object));
    if args.dry_run.is_none() {
        images::build(&session, &manifests, args.build).await?;
    }
    let objects = manifests.into_iter().map(|manifest| manifest.object).collect();
    let (mut applied, failure) = apply_all(args, &session, objects).await;
    let pruned = match &failure {
        // What is not there as it should be may be needed by what would go.
        Some(_) if args.prune => {
            output::talk("nothing is pruned, because not everything was applied");
            Ok(())
        }
        None if args.prune => prune::perform(&session, &set, args.dry_run.is_some(), &mut applied).await,
        _ => Ok(()),
    };
    show(args, &applied)?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    pruned?;
    if args.wait {
        let gone = |word: &&str| word.starts_with("pruned");
        let objects: Vec<Object> =
            applied.into_iter().filter(|(_, word)| !gone(word)).map(|(object, _)| object).collect();
        rollout::wait_ready(&session, &objects, args.timeout).await?;
    }
    Ok(())
}

/// The objects that this call is about, marked as a set. A namespace on the command line and another in a manifest contradict each other.
pub fn read(
    files: &[PathBuf],
    profiles: &[String],
    set: Option<&str>,
    namespace: &str,
    global: &Global,
) -> Result<Vec<Manifest>, Failure> {
    let mut manifests = manifests::read_all(files, namespace, profiles)?;
    manifests::mark(&mut manifests, set);
    if let Some(wanted) = &global.namespace {
        for Manifest { object, .. } in manifests.iter().filter(|m| is_namespaced(m.object.kind_of())) {
            let found = object.meta.as_ref().map_or("", |meta| &meta.namespace);
            if found != wanted {
                let name = output::name_line(object);
                return Err(Failure::failed(format!(
                    "{name}: its manifest says namespace {found}, the command line {wanted}: leave one of them out"
                )));
            }
        }
    }
    Ok(manifests)
}

/// Puts objects that name no namespace into this one.
pub fn fill_namespaces(manifests: &mut [Manifest], namespace: &str) {
    for Manifest { object, .. } in manifests.iter_mut().filter(|m| is_namespaced(m.object.kind_of())) {
        let meta = object.meta.get_or_insert_default();
        if meta.namespace.is_empty() {
            namespace.clone_into(&mut meta.namespace);
        }
    }
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
        let name = output::name_line(&object);
        match session.client.apply(object, mode).await {
            Ok(done) => {
                done.warnings.iter().for_each(|warning| output::talk(&format!("warning: {name}: {warning}")));
                applied.push((done.object, word_for(done.outcome, mode)));
            }
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
