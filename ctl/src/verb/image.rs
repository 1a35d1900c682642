mod verbs;

use crate::{
    exit::{Exit, Failure},
    kind::stored_name,
    output::{self, Format, Number},
    progress::Progress,
    session::Session,
    verb::get,
};
use std::{collections::BTreeMap, path::PathBuf};
use strata_client::{Client, ErrorKind, Selection};
use strata_proto::{
    node::PullProgress,
    types::{Kind, Object, object},
};
use tokio::io::AsyncRead;

/// Look at, fetch, import and remove images.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// List the images the cluster has
    #[command(alias = "list")]
    Ls {
        /// How to show them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Fetch an image from its registry onto a node
    Pull {
        /// As docker writes it: nginx, a/b:1, registry.example:5000/x@sha256:…
        #[arg(value_name = "IMAGE")]
        image: String,
        /// Onto every node
        #[arg(long)]
        all_nodes: bool,
    },
    /// Import an archive: an OCI layout as tar (also gzipped) or the output of `docker save`
    Import {
        /// The archive, or - for stdin
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
        /// The image's name, instead of those the archive carries
        #[arg(long, default_value = "", hide_default_value = true, value_name = "IMAGE")]
        name: String,
        /// How to show what was imported
        #[arg(short, long, value_enum, default_value_t = Format::Name, value_name = "FORMAT")]
        output: Format,
    },
    /// Remove images, with the layers that no other image needs
    #[command(alias = "remove")]
    Rm {
        /// Their names
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// Also if they are in use
        #[arg(short, long)]
        force: bool,
    },
    /// Give an image another name
    Tag {
        /// Its name or digest
        #[arg(value_name = "IMAGE")]
        image: String,
        /// The new one
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Show the steps that made an image, the newest first
    History {
        /// Its name or digest
        #[arg(value_name = "IMAGE")]
        image: String,
        /// As JSON, an array
        #[arg(long)]
        json: bool,
    },
    /// Write images into an archive
    Export {
        /// Their names or digests
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// The archive, or - for stdout
        #[arg(short, long = "output", value_name = "FILE|-")]
        output: String,
        /// Its form
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: verbs::ArchiveFormat,
    },
    /// Send an image to its registry, or under another name
    Push {
        /// Its name or digest
        #[arg(value_name = "IMAGE")]
        image: String,
        /// Where to, as an image's name; else as it is called
        #[arg(value_name = "REFERENCE", default_value = "", hide_default_value = true)]
        reference: String,
    },
    /// Remove from all nodes what nobody needs: images without a name, and layers of no image
    Prune {
        /// Also images whose name nobody uses
        #[arg(short, long)]
        all: bool,
        /// Also layers that only the build cache knows
        #[arg(long)]
        build_cache: bool,
    },
    /// Show everything about an image
    Inspect {
        /// Its name or digest
        #[arg(value_name = "IMAGE")]
        image: String,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t = Format::Json, value_name = "FORMAT")]
        output: Format,
    },
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    match &args.what {
        What::Ls { output } => {
            let targets = vec!["image".into()];
            let args = get::Args { targets, output: *output, selector: vec![], watch: false, all: false };
            get::perform(&args, session).await
        }
        What::Pull { image, all_nodes } => pull(session, image, *all_nodes).await,
        What::Import { file, name, output } => import(session, file, name, *output).await,
        What::Rm { images, force } => remove(session, images, *force).await,
        What::Tag { image, name } => verbs::tag(session, image, name).await,
        What::History { image, json } => verbs::history(session, image, *json).await,
        What::Export { images, output, format } => verbs::export(session, images, output, *format).await,
        What::Push { image, reference } => verbs::push(session, image, reference).await,
        What::Prune { all, build_cache } => verbs::prune(session, *all, *build_cache).await,
        What::Inspect { image, output } => {
            let object = find(session, image).await?;
            output::print(&output::render(Kind::Image, &[object], Number::One, *output, false, output::now_ms())?)
        }
    }
}

async fn pull(session: &Session, image: &str, all_nodes: bool) -> Result<(), Failure> {
    let name = stored_name(Kind::Image, image)?;
    let doing = format!("pull image {name}");
    let mut steps = session.client.pull_image(&name, all_nodes).await?;
    let mut progress = Progress::bytes(&name);
    let mut bytes: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut done_on = Vec::new();
    while let Some(step) = steps.message().await.map_err(|status| Client::stream_error(&doing, &status))? {
        let PullProgress { node, layer, done_bytes, total_bytes, step, message, .. } = step;
        match step.as_str() {
            "Failed" => failures.push(format!("{node}: {message}")),
            "Done" if layer.is_empty() => done_on.push(node),
            _ => {
                if layer.is_empty() {
                    progress.say(format!("{node}: {step} {message}").trim_end());
                } else {
                    bytes.insert((node, layer), (done_bytes, total_bytes));
                }
                let (done, of) = bytes.values().fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
                progress.set(done, of);
            }
        }
    }
    drop(progress);
    if !failures.is_empty() {
        return Err(Failure::failed(format!("cannot {doing}: {}", failures.join("; "))));
    }
    if done_on.is_empty() {
        return Err(Failure::failed(format!(
            "cannot {doing}: the cluster ended the pull before it was done; see `ctl events`"
        )));
    }
    output::print(&format!("{name} on {}\n", done_on.join(", ")))
}

async fn import(session: &Session, file: &PathBuf, name: &str, format: Format) -> Result<(), Failure> {
    let name = if name.is_empty() { String::new() } else { stored_name(Kind::Image, name)? };
    let shown = file.display().to_string();
    let (archive, size): (Box<dyn AsyncRead + Unpin + Send>, u64) = if shown == "-" {
        (Box::new(tokio::io::stdin()), 0)
    } else {
        let cannot = |error| Failure::failed(format!("cannot read {shown}: {error}"));
        let file = tokio::fs::File::open(file).await.map_err(cannot)?;
        let size = file.metadata().await.map_err(cannot)?.len();
        (Box::new(file), size)
    };
    let progress = if size == 0 { Progress::bytes_so_far("import") } else { Progress::bytes("import") };
    let mut sent = 0;
    let images = session
        .client
        .import_image(&name, archive, |more| {
            sent += more;
            progress.set(sent, size.max(sent));
            if sent >= size {
                progress.note("the cluster is unpacking");
            }
        })
        .await?;
    drop(progress);
    output::print(&output::render(Kind::Image, &images, Number::Many, format, false, output::now_ms())?)
}

async fn remove(session: &Session, images: &[String], force: bool) -> Result<(), Failure> {
    for image in images {
        let object = find(session, image).await?;
        let name = object.meta.map(|meta| meta.name).unwrap_or_default();
        session.client.delete(Kind::Image, "", &name, 0, force).await?;
        output::print(&format!("image/{name} deleted\n"))?;
    }
    Ok(())
}

/// The image of a name, or of a digest or the beginning of one.
async fn find(session: &Session, text: &str) -> Result<Object, Failure> {
    if !text.starts_with("sha256:") && !text.starts_with("sha512:") {
        let by_name = session.client.get(Kind::Image, "", &stored_name(Kind::Image, text)?).await;
        match by_name {
            Err(error) if error.kind == ErrorKind::NotFound && is_short_digest(text) => {}
            found => return Ok(found?),
        }
    }
    let hex = text.split_once(':').map_or(text, |(_, hex)| hex);
    let mut images = session.client.list(Kind::Image, &Selection::default()).await?.objects;
    images.retain(|image| match &image.kind {
        Some(object::Kind::Image(image)) => image
            .spec
            .as_ref()
            .is_some_and(|spec| spec.digest.split_once(':').is_some_and(|(_, full)| full.starts_with(hex))),
        _ => false,
    });
    match images.len() {
        0 => Err(Failure::new(Exit::NotFound, format!("no image {text}; see `ctl image ls`"))),
        1 => Ok(images.swap_remove(0)),
        many => Err(Failure::failed(format!("{text} means {many} images: give more of the digest, or the name"))),
    }
}

fn is_short_digest(text: &str) -> bool {
    text.len() >= 6 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
