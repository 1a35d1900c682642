//! A build from its context to its image.

mod instructions;
mod layers;
mod run;

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strata_image::{ImageStore, Lease, Platform, StoredImage};
use strata_layer::{LayerError, LayerStore, LayerWriter, discard_writable};
use strata_model::ignore::{self, IgnoreRules};
use strata_model::{Algorithm, Digest, ImageName};

use crate::cache::Cache;
use crate::config::ImageConfig;
use crate::dockerfile::{Dockerfile, Step};
use crate::error::{BuildError, Result};
use crate::limits::{DOCKERFILE_BYTES_MAX, IGNORE_BYTES_MAX, STEPS_MAX};
use crate::stage::{self, Base};
use crate::tree::Tree;
use crate::words::{self, Lookup as _};
use crate::world::{Event, Events, World};

/// How a RUN's directory is named.
const RUN_PREFIX: &str = "run-";
/// Build arguments that every RUN sees without an ARG, and that no cache key and no image has.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
/// The build argument that gives the time of everything (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What shall be built.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// The Dockerfile's path in the context, or its name for messages; "" = Dockerfile, else Containerfile.
    pub dockerfile: String,
    /// Instead of the file in the context.
    pub dockerfile_text: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// A stage's name or number; "" = the last.
    pub target: String,
    /// Whether every step is done anew.
    pub no_cache: bool,
    /// Whether registries are asked for base images that are here.
    pub pull: bool,
    /// Put into the image at the end.
    pub labels: BTreeMap<String, String>,
}

/// Builds images on one node. `STATE/builds` holds contexts (a layer store of its own) and the writable layers of RUN steps.
pub struct Builder {
    images: ImageStore,
    contexts: LayerStore,
    cache: Arc<Cache>,
    directory: PathBuf,
    world: Arc<dyn World>,
    next: AtomicU64,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// An image that was built; while this lives it is not removed.
#[derive(Debug)]
pub struct Built {
    /// The image.
    pub image: Arc<StoredImage>,
    _lease: Lease,
}

/// One build.
struct Build<'a> {
    builder: &'a Builder,
    request: &'a BuildRequest,
    events: &'a Events,
    file: Dockerfile,
    /// `None` once it is not needed any more.
    context: Arc<Tree>,
    ignore: Arc<IgnoreRules>,
    epoch: Option<i64>,
    /// Values of `ARG` before the first `FROM`, and the platform's.
    global: Vec<(String, String)>,
    platform: Platform,
    lease: Lease,
    /// Images that were asked for, by what the Dockerfile calls them.
    images: HashMap<String, Arc<StoredImage>>,
    done: HashMap<usize, Stage>,
    number: u32,
    of: u32,
}

/// A stage as far as it is built.
#[derive(Debug, Clone, Default)]
struct Stage {
    config: ImageConfig,
    layers: Vec<Digest>,
    /// Declared build arguments with their values.
    args: Vec<(String, String)>,
    cmd_set: bool,
    /// The newest time of its parts, seconds since 1970.
    created: i64,
}

impl Builder {
    /// Opens the builds of a node, once its mount namespace is entered. Blocks on the disk.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn open(state: &Path, images: ImageStore, world: Arc<dyn World>) -> Result<Self> {
        let directory = state.join("builds");
        std::fs::create_dir_all(&directory).map_err(|e| BuildError::io("making", &directory, e))?;
        let contexts = LayerStore::open(&directory)?;
        let cache = Arc::new(Cache::open(state)?);
        Ok(Self { images, contexts, cache, directory, world, next: AtomicU64::new(0) })
    }

    /// Removes what builds of an earlier agent left, once their containers are gone. Blocks on the disk.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn sweep(&self) -> Result<()> {
        for (context, _) in self.contexts.list()? {
            self.contexts.remove(&context)?;
        }
        let fail = |path: &Path| BuildError::io("reading", path, std::io::ErrorKind::Other);
        for entry in std::fs::read_dir(&self.directory).map_err(|_| fail(&self.directory))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(RUN_PREFIX) {
                remove_writable(&entry.path())?;
            }
        }
        Ok(())
    }

    /// The layer cache.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Takes a context as the bytes of a tar; [`LayerWriter::finish`] names it.
    ///
    /// # Errors
    /// If its file cannot be made.
    pub fn context(&self) -> Result<LayerWriter> {
        Ok(self.contexts.writer(Algorithm::Sha256)?)
    }

    /// Removes a context, unless another build uses it. Blocks on the disk.
    pub fn forget(&self, context: &Digest) {
        match self.contexts.remove(context) {
            Ok(()) | Err(LayerError::InUse(_)) => {}
            Err(error) => tracing::warn!("the context of a build stays until the next start: {error}"),
        }
    }

    /// Builds an image of a context. Ends early when nobody hears `events` any more.
    ///
    /// # Errors
    /// [`BuildError::Dockerfile`] or [`BuildError::Step`] with file and line; steps that were done stay cached.
    pub async fn build(&self, context: &Digest, request: &BuildRequest, events: &Events) -> Result<Built> {
        let hold = self.contexts.hold(std::slice::from_ref(context));
        let root = self.contexts.mount_read_only(std::slice::from_ref(context), None)?;
        let context = Arc::new(Tree::new(root, "the context"));
        let (name, text) = dockerfile(&context, request)?;
        let file = Dockerfile::parse(&name, &text)?;
        let ignore = Arc::new(ignore_rules(&context, &name)?);
        let epoch = request.args.get(EPOCH).map(|text| {
            text.parse::<i64>().map_err(|_| BuildError::invalid(format!("{EPOCH}={text:?} is no number of seconds")))
        });
        let mut build = Build {
            builder: self,
            request,
            events,
            file,
            context,
            ignore,
            epoch: epoch.transpose()?,
            global: Vec::new(),
            platform: Platform::host(),
            lease: self.images.lease(),
            images: HashMap::new(),
            done: HashMap::new(),
            number: 0,
            of: 0,
        };
        let result = build.all().await;
        drop(hold);
        let image = result?;
        Ok(Built { image, _lease: build.lease })
    }

    /// A new directory for a RUN's writable layer.
    fn run_directory(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{RUN_PREFIX}{}-{number}", std::process::id()))
    }
}

/// Removes the directory of a writable layer with all that is in it.
fn remove_writable(directory: &Path) -> Result<()> {
    discard_writable(directory)?;
    match std::fs::remove_dir_all(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(BuildError::io("removing", directory, e)),
        _ => Ok(()),
    }
}

/// Name and text of the Dockerfile.
fn dockerfile(context: &Tree, request: &BuildRequest) -> Result<(String, String)> {
    if let Some(text) = &request.dockerfile_text {
        let name = if request.dockerfile.is_empty() { "Dockerfile" } else { &request.dockerfile };
        return Ok((name.to_owned(), text.clone()));
    }
    let names =
        if request.dockerfile.is_empty() { vec!["Dockerfile", "Containerfile"] } else { vec![&*request.dockerfile] };
    for name in &names {
        if let Some(text) = read(context, name, DOCKERFILE_BYTES_MAX as u64)? {
            return Ok(((*name).to_owned(), text));
        }
    }
    Err(BuildError::invalid(format!("the context has no {}; name the Dockerfile with -f", names.join(" and no "))))
}

fn ignore_rules(context: &Tree, dockerfile: &str) -> Result<IgnoreRules> {
    for name in [&format!("{dockerfile}.dockerignore"), ".dockerignore"] {
        if let Some(text) = read(context, name, IGNORE_BYTES_MAX)? {
            return Ok(IgnoreRules::parse(&text));
        }
    }
    Ok(IgnoreRules::none())
}

/// A small text file of a tree.
fn read(tree: &Tree, name: &str, most: u64) -> Result<Option<String>> {
    let place = tree.resolve(ignore::clean(name).as_bytes(), true)?;
    let Some(stat) = place.stat.filter(|stat| crate::tree::kind(stat).is_file()) else { return Ok(None) };
    if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > most {
        return Err(BuildError::invalid(format!("{name} is larger than {most} bytes")));
    }
    let mut text = String::new();
    tree.file(&place.path)?.take(most).read_to_string(&mut text).map_err(|e| BuildError::io("reading", name, e))?;
    Ok(Some(text))
}

impl Build<'_> {
    async fn all(&mut self) -> Result<Arc<StoredImage>> {
        self.read_global_args()?;
        let bases = self.bases()?;
        let target = stage::target(&self.file, &self.request.target)?;
        let needed = stage::needed(&self.file, &bases, target);
        let steps: usize = needed.iter().map(|at| 1 + self.file.stages[*at].steps.len()).sum();
        self.of = u32::try_from(steps).unwrap_or(u32::MAX);
        self.warn_of_unused_args().await;
        for at in needed {
            let base = bases.get(at).cloned().unwrap_or(Base::Scratch);
            let stage = self.stage(at, base).await?;
            self.done.insert(at, stage);
        }
        let mut stage = self.done.remove(&target).unwrap_or_default();
        stage.config.config.labels.extend(self.request.labels.clone());
        stage.config.created = Some(crate::time::format(self.epoch.unwrap_or(stage.created)));
        let config = stage.config.encode()?;
        Ok(self.builder.images.make(&config, &mut self.lease)?)
    }

    fn fault(&self, line: usize, message: String) -> BuildError {
        BuildError::Dockerfile { file: self.file.name.clone(), line, message }
    }

    fn read_global_args(&mut self) -> Result<()> {
        let platform = self.platform.to_string();
        for side in ["TARGET", "BUILD"] {
            for (name, value) in
                [("PLATFORM", platform.as_str()), ("OS", self.platform.os), ("ARCH", self.platform.architecture)]
            {
                self.global.push((format!("{side}{name}"), value.to_owned()));
            }
        }
        let declared = self.file.global_args.clone();
        for (line, args) in declared {
            for (name, default) in args {
                let value = match (self.request.args.get(&name), default) {
                    (Some(given), _) => given.clone(),
                    (None, Some(word)) => words::expand(&word, self.file.escape, self.global.as_slice())
                        .map_err(|why| self.fault(line, format!("ARG {name}: {why}")))?,
                    (None, None) => continue,
                };
                self.global.push((name, value));
            }
        }
        Ok(())
    }

    /// What the stages begin with.
    fn bases(&self) -> Result<Vec<Base>> {
        let stages = self.file.stages.iter().enumerate();
        let bases = stages.map(|(at, stage)| {
            let fault = |why| self.fault(stage.line, format!("FROM {}: {why}", stage.image));
            let name = words::expand(&stage.image, self.file.escape, self.global.as_slice()).map_err(fault)?;
            if name.is_empty() {
                return Err(fault("the name of the image is empty".into()));
            }
            if let Some(platform) = &stage.platform {
                let platform = words::expand(platform, self.file.escape, self.global.as_slice()).map_err(fault)?;
                self.check_platform(&platform).map_err(fault)?;
            }
            Ok(stage::from(&self.file, at, &name))
        });
        bases.collect()
    }

    fn check_platform(&self, text: &str) -> Result<(), String> {
        let mut parts = text.splitn(3, '/');
        let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let variant = parts.next().unwrap_or_default();
        match self.platform.rank(os, architecture, variant) {
            Some(_) => Ok(()),
            None => Err(format!("--platform={text} cannot be built on this node, which is {}", self.platform)),
        }
    }

    async fn warn_of_unused_args(&self) {
        let declared = |name: &str| {
            let in_stage = |step: &Step| match &step.action {
                crate::dockerfile::Action::Arg(args) => args.iter().any(|(own, _)| own == name),
                _ => false,
            };
            self.file.global_args.iter().any(|(_, args)| args.iter().any(|(own, _)| own == name))
                || self.file.stages.iter().any(|stage| stage.steps.iter().any(in_stage))
        };
        let known = |name: &str| name == EPOCH || PROXIES.contains(&name.to_uppercase().as_str());
        let unused: Vec<&str> =
            self.request.args.keys().map(String::as_str).filter(|name| !declared(name) && !known(name)).collect();
        if !unused.is_empty() {
            self.events.tell(Event::Warning(format!("no ARG takes the build arguments {}", unused.join(", ")))).await;
        }
    }

    async fn stage(&mut self, at: usize, base: Base) -> Result<Stage> {
        let (line, text) = (self.file.stages[at].line, self.file.stages[at].text.clone());
        self.begin(&text).await;
        let mut stage = match base {
            Base::Scratch => {
                let config = ImageConfig::scratch(self.platform.os, self.platform.architecture);
                Stage { config, ..Stage::default() }
            }
            Base::Stage(earlier) => {
                let earlier = self.done.get(&earlier).cloned().unwrap_or_default();
                Stage { args: Vec::new(), cmd_set: false, ..earlier }
            }
            Base::Image(name) => self.base_image(&name).await.map_err(|error| self.at(line, &text, error))?,
        };
        let mut steps = self.triggers(&mut stage).map_err(|error| self.at(line, &text, error))?;
        self.of += u32::try_from(steps.len()).unwrap_or(0);
        steps.extend(self.file.stages[at].steps.iter().cloned());
        if steps.len() > STEPS_MAX {
            return Err(self.fault(line, format!("more than {STEPS_MAX} steps")));
        }
        for step in steps {
            if self.events.is_closed() {
                return Err(BuildError::Cancelled);
            }
            self.begin(&step.text).await;
            let done = self.step(at, &mut stage, &step).await;
            done.map_err(|error| self.at(step.line, &step.text, error))?;
        }
        Ok(stage)
    }

    /// The instructions that a base image has for those who build on it (ONBUILD).
    fn triggers(&self, stage: &mut Stage) -> Result<Vec<Step>> {
        let texts = std::mem::take(&mut stage.config.config.on_build);
        let mut steps = Vec::new();
        for text in texts {
            let parsed = Dockerfile::parse("ONBUILD", &format!("FROM scratch\n{text}\n"))?;
            steps.extend(parsed.stages.into_iter().flat_map(|stage| stage.steps));
        }
        Ok(steps)
    }

    async fn begin(&mut self, text: &str) {
        self.number += 1;
        let (number, of, line) = (self.number, self.of, text.to_owned());
        self.events.tell(Event::Step { number, of, line }).await;
    }

    /// An error with the place that it belongs to.
    fn at(&self, line: usize, text: &str, error: BuildError) -> BuildError {
        const SHOWN: usize = 120;
        if matches!(error, BuildError::Cancelled | BuildError::Step { .. }) {
            return error;
        }
        let mut instruction: String = text.chars().take(SHOWN).collect();
        if instruction.len() < text.len() {
            instruction.push('…');
        }
        BuildError::Step { file: self.file.name.clone(), line, instruction, source: Box::new(error) }
    }

    async fn base_image(&mut self, name: &str) -> Result<Stage> {
        let image = self.image(name).await?;
        let bytes = self.builder.images.read_blob(&image.config_digest)?;
        let bytes = bytes.ok_or_else(|| BuildError::invalid(format!("the config of {name} is gone from this node")))?;
        let config = ImageConfig::parse(&bytes)?;
        let layers = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let created = config.created_s();
        Ok(Stage { config, layers, created, ..Stage::default() })
    }

    /// An image of the cluster or a registry, held until the build ends.
    async fn image(&mut self, text: &str) -> Result<Arc<StoredImage>> {
        if let Some(known) = self.images.get(text) {
            return Ok(known.clone());
        }
        let name = ImageName::parse(text).map_err(|error| BuildError::invalid(error.to_string()))?;
        let image = self.builder.world.image(&name, self.request.pull).await.map_err(BuildError::Invalid)?;
        self.lease.hold(&image.digest);
        image.layers.iter().for_each(|layer| self.lease.hold(&layer.diff_id));
        self.images.insert(text.to_owned(), image.clone());
        Ok(image)
    }

    /// What words mean in a stage: its build arguments, overridden by its environment.
    fn variables(&self, stage: &Stage) -> Vec<(String, String)> {
        let env = stage.config.config.env.iter().filter_map(|line| line.split_once('='));
        stage.args.iter().cloned().chain(env.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
    }

    fn expand(&self, stage: &Stage, word: &str) -> Result<String> {
        words::expand(word, self.file.escape, self.variables(stage).as_slice()).map_err(BuildError::Invalid)
    }

    /// The value that an ARG without a default gets.
    fn argument(&self, name: &str) -> Option<String> {
        self.request.args.get(name).cloned().or_else(|| self.global.as_slice().value_of(name))
    }
}
