use crate::{
    context::Context,
    exit::{Exit, Failure},
    kind::stored_name,
    output::{self, talk},
    progress::Progress,
    session::Session,
};
use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
};
use strata_client::{BuildSession, BuildStart};
use strata_model::ignore::IgnoreRules;
use strata_proto::{node::BuildProgress, types::Kind};
use tokio::sync::mpsc;

/// Pieces of the context that wait to be sent.
const PIECES_WAITING_MAX: usize = 8;
/// Lines of a failed step's output that are shown although the build is quiet.
const LINES_KEPT: usize = 20;

/// Build an image from a Dockerfile on a node of the cluster.
///
/// DIR is the context: what COPY and ADD can take files from, without what its .dockerignore leaves out. The image can run on every node at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image's name
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "IMAGE")]
    pub tag: String,
    /// The Dockerfile, or - for stdin [default: Dockerfile, else Containerfile, in DIR]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The value of an ARG; without =VALUE the environment's
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_arg: Vec<String>,
    /// The stage to build instead of the last
    #[arg(long, default_value = "", hide_default_value = true, value_name = "STAGE")]
    pub target: String,
    /// Do every step anew
    #[arg(long)]
    pub no_cache: bool,
    /// Ask registries for base images that are in the cluster
    #[arg(long)]
    pub pull: bool,
    /// A label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Where to build, instead of a node that the cluster chooses
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NODE")]
    pub node: String,
    /// Print only the image's digest
    #[arg(short, long)]
    pub quiet: bool,
    /// The context
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    let digest = image(args, Text::OfFile, session).await?;
    let name = if args.tag.is_empty() { String::new() } else { stored_name(Kind::Image, &args.tag)? };
    let line = if args.quiet || name.is_empty() { format!("{digest}\n") } else { format!("{name} {digest}\n") };
    output::print(&line)
}

/// Where the Dockerfile's text comes from.
pub enum Text {
    /// The file that the arguments name.
    OfFile,
    /// This is it.
    Given(String),
}

/// Builds, with progress on stderr; the image's digest.
pub async fn image(args: &Args, text: Text, session: &Session) -> Result<String, Failure> {
    let name = if args.tag.is_empty() { String::new() } else { stored_name(Kind::Image, &args.tag)? };
    let dockerfile = match text {
        Text::OfFile => Dockerfile::read(args)?,
        Text::Given(text) => Dockerfile { name: "Dockerfile".into(), text },
    };
    let rules = dockerfile.rules(&args.dir)?;
    let (dir, found) = (args.dir.clone(), rules);
    let context = tokio::task::spawn_blocking(move || Context::find(&dir, &found));
    let context = context.await.map_err(|_| Failure::failed("packing the context was broken off"))?;
    let context = context.map_err(|error| Failure::failed(format!("cannot pack the context: {error}")))?;
    let start = BuildStart {
        name: name.clone(),
        dockerfile: dockerfile.name,
        dockerfile_text: dockerfile.text.into_bytes(),
        args: pairs("--build-arg", &args.build_arg)?,
        labels: pairs("--label", &args.label)?,
        target: args.target.clone(),
        no_cache: args.no_cache,
        pull: args.pull,
    };
    let (pieces, queue) = mpsc::channel(PIECES_WAITING_MAX);
    let progress = Progress::bytes("context");
    let (bytes, mut sent) = (context.bytes, 0);
    tokio::task::spawn_blocking(move || context.send(&pieces));
    let build = session.client.build_image(start, &args.node, queue, |more| {
        sent += more;
        progress.set(sent, bytes.max(sent));
    });
    let build = build.await?;
    drop(progress);
    let image = follow(build, args.quiet).await?;
    Ok(image.image.map(|image| image.digest).unwrap_or_default())
}

/// Shows progress to its end.
async fn follow(mut build: BuildSession, quiet: bool) -> Result<strata_proto::node::ImportedImage, Failure> {
    let mut shown = Shown { quiet, kept: VecDeque::new(), open: Vec::new() };
    loop {
        let BuildProgress { step, steps, line, output, cached, image, error } = build.next().await?;
        if let Some(image) = image {
            shown.end_line();
            return Ok(image);
        }
        if !error.is_empty() {
            shown.failed();
            let at = if step == 0 { String::new() } else { format!("step {step} of {steps} failed: ") };
            return Err(Failure::new(Exit::Failed, format!("cannot build: {at}{error}")));
        }
        if let Some(warning) = line.strip_prefix("warning: ") {
            talk(&format!("warning: {warning}"));
        } else if !line.is_empty() {
            shown.end_line();
            shown.kept.clear();
            shown.say(&format!("[{step}/{steps}] {line}"));
        }
        if cached {
            shown.say("        cached");
        }
        shown.output(&output);
    }
}

/// What is said of the steps, on stderr.
struct Shown {
    quiet: bool,
    /// The last lines of the step's output.
    kept: VecDeque<String>,
    /// A line whose end has not come yet.
    open: Vec<u8>,
}

impl Shown {
    fn say(&self, text: &str) {
        if !self.quiet {
            talk(text);
        }
    }

    fn output(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.open.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.open.len() > 64 << 10 {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let open = std::mem::take(&mut self.open);
        let line = String::from_utf8_lossy(&open);
        let line = line.trim_end_matches(['\n', '\r']).to_owned();
        self.say(&format!("  {line}"));
        if self.kept.len() == LINES_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }

    /// What a quiet build has not said of the step that failed.
    fn failed(&mut self) {
        self.end_line();
        if self.quiet {
            self.kept.iter().for_each(|line| talk(&format!("  {line}")));
        }
    }
}

/// The Dockerfile as the node gets it.
struct Dockerfile {
    /// For messages.
    name: String,
    text: String,
}

impl Dockerfile {
    fn read(args: &Args) -> Result<Self, Failure> {
        let cannot =
            |path: &Path, error: io::Error| Failure::failed(format!("cannot read {}: {error}", path.display()));
        if let Some(path) = &args.file {
            if path.as_os_str() == "-" {
                let text = io::read_to_string(io::stdin()).map_err(|error| cannot(path, error))?;
                return Ok(Self { name: "Dockerfile".into(), text });
            }
            let text = fs::read_to_string(path).map_err(|error| cannot(path, error))?;
            return Ok(Self { name: path.display().to_string(), text });
        }
        for name in ["Dockerfile", "Containerfile"] {
            let path = args.dir.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(Self { name: name.into(), text }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot(&path, error)),
            }
        }
        Err(Failure::failed(format!(
            "{} has neither a Dockerfile nor a Containerfile; name it with -f",
            args.dir.display()
        )))
    }

    /// What the context leaves out: `NAME.dockerignore` beside the Dockerfile, else `.dockerignore`.
    fn rules(&self, dir: &Path) -> Result<IgnoreRules, Failure> {
        for path in [PathBuf::from(format!("{}.dockerignore", self.name)), dir.join(".dockerignore")] {
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(IgnoreRules::parse(&text)),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(Failure::failed(format!("cannot read {}: {error}", path.display()))),
            }
        }
        Ok(IgnoreRules::none())
    }
}

/// `NAME=VALUE`, or `NAME` with the environment's value.
fn pairs(flag: &str, words: &[String]) -> Result<HashMap<String, String>, Failure> {
    let pairs = words.iter().map(|word| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Some((name.to_owned(), value.to_owned()))),
        None if !word.is_empty() => Ok(std::env::var(word).ok().map(|value| (word.clone(), value))),
        _ => Err(Failure::usage(format!("{flag} {word}: NAME=VALUE is expected"))),
    });
    let pairs: Vec<_> = pairs.collect::<Result<_, _>>()?;
    Ok(pairs.into_iter().flatten().collect())
}
