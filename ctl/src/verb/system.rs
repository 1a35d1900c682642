use crate::{
    exit::{Exit, Failure},
    output,
    session::Session,
};
use std::{
    fs::{self, File},
    io::{BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use strata_client::{ApplyMode, Client, Outcome};
use strata_proto::{
    backup::Reader,
    store::BackupHeader,
    types::{Kind, Object, object},
};

/// Back the cluster up, and apply what a backup holds.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Copy all objects to a file, while everything goes on
    ///
    /// The copy is consistent: every object as it was at one revision. Secrets in it are sealed. The cluster's keys are not in it: keep a copy of
    /// pki/ and secret-key of the controller's state directory at another place, once. With both a controller is rebuilt:
    ///
    ///   strata-controller restore --config /etc/strata/controller.toml FILE
    #[command(verbatim_doc_comment)]
    Backup {
        /// The file to write; it appears when it is whole
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Apply the namespaces, configs, volumes, services and workloads of a backup to this cluster
    ///
    /// What is there is changed to what the backup says, what is missing is created, and nothing is deleted. Secrets are left out: they are sealed with the
    /// key of the cluster that the backup was taken from. To rebuild a controller that was lost, with everything, see `ctl system backup --help`.
    Restore {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Change nothing, only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    match &args.what {
        What::Backup { file } => backup(&session.client, file).await,
        What::Restore { file, dry_run } => restore(&session.client, file, *dry_run).await,
    }
}

/// Writes beside the file and moves it there when it has been read back and is whole.
async fn backup(client: &Client, file: &Path) -> Result<(), Failure> {
    let name = file.file_name().ok_or_else(|| Failure::usage(format!("{} names no file", file.display())))?;
    let part = file.with_file_name(format!(".{}.part", name.to_string_lossy()));
    let written = write(client, &part).await;
    let done = written.and_then(|()| {
        let (header, objects) = read(&part, |_| ())?;
        fs::rename(&part, file).map_err(|e| failed("moving the backup to", file, &e))?;
        Ok((header, objects))
    });
    if done.is_err() {
        // It may not even be there; the error that counts is told.
        fs::remove_file(&part).ok();
    }
    let (header, objects) = done?;
    output::talk("the cluster's keys are not in it: keep pki/ and secret-key of the controller's state directory, too");
    output::print(&format!("{}: {objects} objects as of revision {}\n", file.display(), header.revision))
}

async fn write(client: &Client, part: &Path) -> Result<(), Failure> {
    // For its owner alone: it tells everything about the cluster but its secrets.
    let opened = File::options().create(true).truncate(true).write(true).mode(0o600).open(part);
    let mut to = opened.map_err(|e| failed("making", part, &e))?;
    let mut chunks = client.backup().await?;
    loop {
        match chunks.message().await {
            Ok(Some(chunk)) => to.write_all(&chunk.data).map_err(|e| failed("writing", part, &e))?,
            Ok(None) => return to.sync_all().map_err(|e| failed("writing", part, &e)),
            Err(status) => return Err(Client::stream_error("take a backup", &status).into()),
        }
    }
}

async fn restore(client: &Client, file: &Path, dry_run: bool) -> Result<(), Failure> {
    let mut objects = Vec::new();
    let mut secrets = 0;
    let (header, _) = read(file, |object| match &object.kind {
        Some(object::Kind::Secret(_)) => secrets += 1,
        Some(_) if rank(object.kind_of()).is_some() => objects.push(desired(object)),
        _ => {}
    })?;
    objects.sort_by_key(|object| rank(object.kind_of()));
    output::talk(&format!("the backup is of cluster {} as of revision {}", header.cluster_id, header.revision));
    if secrets > 0 {
        output::talk(&format!("{secrets} secrets are left out: they are sealed with that cluster's key"));
    }
    let mode = if dry_run { ApplyMode::DryRun } else { ApplyMode::Apply };
    let mut failures = 0;
    for object in objects {
        let line = output::name_line(&object);
        match client.apply(object, mode).await {
            Ok(done) => {
                let word = match done.outcome {
                    Outcome::Created => "created",
                    Outcome::Configured => "configured",
                    Outcome::Unchanged => "unchanged",
                };
                output::print(&format!("{line} {word}{}\n", if dry_run { " (dry run)" } else { "" }))?;
            }
            Err(error) => {
                let failure = Failure::from(error);
                if matches!(failure.exit, Exit::Unreachable | Exit::NotAllowed) {
                    return Err(failure);
                }
                failures += 1;
                output::talk(&format!("ctl: {failure}"));
            }
        }
    }
    if failures == 0 { Ok(()) } else { Err(Failure::failed(format!("{failures} objects were not applied"))) }
}

/// What is applied, and in which order: what others need comes first.
fn rank(kind: Kind) -> Option<usize> {
    [Kind::Namespace, Kind::Config, Kind::Volume, Kind::Service, Kind::Workload].iter().position(|k| *k == kind)
}

/// What people wanted of it: no status, no identity that another cluster gave it.
fn desired(mut object: Object) -> Object {
    if let Some(meta) = object.meta.take() {
        object.meta = Some(strata_proto::types::Meta {
            name: meta.name,
            namespace: meta.namespace,
            labels: meta.labels,
            annotations: meta.annotations,
            ..Default::default()
        });
    }
    match &mut object.kind {
        Some(object::Kind::Workload(x)) => x.status = None,
        Some(object::Kind::Service(x)) => x.status = None,
        Some(object::Kind::Volume(x)) => x.status = None,
        _ => {}
    }
    object
}

/// Reads all of a backup; only when this has returned is what was handed out to be believed.
fn read(file: &Path, mut take: impl FnMut(Object)) -> Result<(BackupHeader, u64), Failure> {
    let bad = |e: strata_proto::backup::BackupError| Failure::failed(format!("{}: {e}", file.display()));
    let from = File::open(file).map_err(|e| failed("reading", file, &e))?;
    let mut reader = Reader::open(BufReader::new(from)).map_err(bad)?;
    let mut objects = 0;
    while let Some(change) = reader.read().map_err(bad)? {
        objects += 1;
        change.object.into_iter().for_each(&mut take);
    }
    Ok((reader.header().clone(), objects))
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("{doing} {}: {error}", path.display()))
}
