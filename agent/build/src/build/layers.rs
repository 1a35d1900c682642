//! COPY, ADD and WORKDIR: steps whose layer is written straight from its sources.

use std::sync::Arc;

use strata_layer::LayerStore;
use strata_model::Digest;
use strata_model::ignore::IgnoreRules;
use strata_runtime::spec::{UserFiles, resolve_user};

use super::{Build, Stage};
use crate::cache::{CacheEntry, Key};
use crate::copy::archives::{self, Added};
use crate::copy::{Plan, Source, Wanted};
use crate::dockerfile::{Copy, CopySource, Step};
use crate::error::{BuildError, Result};
use crate::stage::{Base, copied_from};
use crate::tree::Tree;
use crate::words;
use crate::world::Event;

/// All that a COPY needs, for a thread that may block.
struct Job {
    layers: LayerStore,
    contexts: LayerStore,
    base: Tree,
    from: Arc<Tree>,
    ignore: Arc<IgnoreRules>,
    add: bool,
    wanted: Wanted,
    sources: Vec<CopySource>,
    time: Times,
}

#[derive(Clone, Copy)]
struct Times {
    /// The stage's time so far.
    created: i64,
    epoch: Option<i64>,
}

/// What the cache said, and what was done.
struct Outcome {
    key: Key,
    entry: CacheEntry,
    cached: bool,
}

impl Build<'_> {
    pub(super) async fn copy(&mut self, at: usize, stage: &mut Stage, step: &Step, copy: &Copy) -> Result<()> {
        let from = match &copy.from {
            None => (self.context.clone(), self.ignore.clone()),
            Some(name) => (Arc::new(self.copied_tree(at, name).await?), Arc::new(IgnoreRules::none())),
        };
        let base = self.tree(&stage.layers)?;
        let dest = self.absolute(stage, &self.expand(stage, &copy.dest)?)?;
        let owner = copy.chown.as_ref().map(|text| owner(&base, &self.expand(stage, text)?)).transpose()?;
        let mode = copy.chmod.as_ref().map(|text| mode(&self.expand(stage, text)?)).transpose()?;
        let variables = self.variables(stage);
        let escape = self.file.escape;
        let sources = copy.sources.iter().map(|source| match source {
            CopySource::Path(word) => self.expand(stage, word).map(CopySource::Path),
            CopySource::Text(name, text, true) => {
                let text = expand_lines(text, escape, &variables)?;
                Ok(CopySource::Text(name.clone(), text, false))
            }
            text => Ok(text.clone()),
        });
        let sources = sources.collect::<Result<Vec<_>>>()?;
        for source in &sources {
            if let CopySource::Path(path) = source
                && (path.contains("://") || path.starts_with("git@"))
            {
                return Err(BuildError::invalid(format!(
                    "{path} is not in the context: fetching from elsewhere is not built; RUN can fetch"
                )));
            }
        }
        let job = Job {
            layers: self.builder.images.layers().clone(),
            contexts: self.builder.contexts.clone(),
            base,
            from: from.0,
            ignore: from.1,
            add: copy.add,
            wanted: Wanted { dest, owner, mode },
            sources,
            time: Times { created: stage.created, epoch: self.epoch },
        };
        let outcome = self.perform(stage, move |under, cached| job.perform(under, cached)).await?;
        self.finish(stage, step, outcome).await;
        Ok(())
    }

    pub(super) async fn workdir(&mut self, stage: &mut Stage, step: &Step, word: &str) -> Result<()> {
        let path = self.absolute(stage, &self.expand(stage, word)?)?;
        let path = format!("/{}", strata_model::ignore::clean(&path));
        stage.config.config.working_dir.clone_from(&path);
        let base = self.tree(&stage.layers)?;
        let user = &stage.config.config.user;
        let owner = if user.is_empty() { None } else { Some(owner(&base, user)?) };
        let there = Plan::directory(&base, &path, owner)?.is_none();
        if there {
            stage.config.add(&step.text, self.epoch.unwrap_or(stage.created), None);
            return Ok(());
        }
        let layers = self.builder.images.layers().clone();
        let time = Times { created: stage.created, epoch: self.epoch };
        let outcome = self.perform(stage, move |under, cached| {
            let plan = Plan::directory(&base, &path, owner)?;
            let plan = plan.ok_or_else(|| BuildError::invalid(format!("{path} came into being meanwhile")))?;
            write(&plan, "workdir", &layers, under, time, cached)
        });
        let outcome = outcome.await?;
        self.finish(stage, step, outcome).await;
        Ok(())
    }

    /// Does blocking work with the layers so far and the cache.
    async fn perform(
        &mut self,
        stage: &Stage,
        work: impl FnOnce(&[Digest], &dyn Fn(&Key) -> Option<CacheEntry>) -> Result<Outcome> + Send + 'static,
    ) -> Result<Outcome> {
        // Entries are looked up before the thread begins to write, so the cache need not go along.
        let (under, no_cache) = (stage.layers.clone(), self.request.no_cache);
        let (cache, layers) = (self.builder.cache.clone(), self.builder.images.layers().clone());
        let done = tokio::task::spawn_blocking(move || {
            let cached = |key: &Key| {
                let entry = cache.get(key).filter(|_| !no_cache)?;
                layers.contains(&entry.layer).ok().flatten().map(|_| entry)
            };
            work(&under, &cached)
        });
        done.await.map_err(|_| BuildError::Cancelled)?
    }

    /// Takes a layer into the stage.
    async fn finish(&mut self, stage: &mut Stage, step: &Step, outcome: Outcome) {
        let Outcome { key, entry, cached } = outcome;
        self.lease.hold(&entry.layer);
        if cached {
            self.events.tell(Event::Cached).await;
        } else {
            self.builder.cache.put(&key, &entry);
        }
        self.add_layer(stage, step, &entry);
    }

    pub(super) fn add_layer(&self, stage: &mut Stage, step: &Step, entry: &CacheEntry) {
        stage.created = stage.created.max(entry.created);
        stage.config.add(&step.text, self.epoch.unwrap_or(entry.created), Some(&entry.layer));
        stage.layers.push(entry.layer.clone());
    }

    /// The files of some layers.
    pub(super) fn tree(&self, layers: &[Digest]) -> Result<Tree> {
        let root = self.builder.images.layers().mount_read_only(layers, None)?;
        Ok(Tree::new(root, "the image so far"))
    }

    /// The files of a stage or an image that is copied from.
    async fn copied_tree(&mut self, at: usize, name: &str) -> Result<Tree> {
        let name = words::expand(name, self.file.escape, self.global.as_slice()).map_err(BuildError::Invalid)?;
        let layers: Vec<Digest> = match copied_from(&self.file, at, &name).map_err(BuildError::Invalid)? {
            Base::Stage(stage) => self.done.get(&stage).map(|stage| stage.layers.clone()).unwrap_or_default(),
            Base::Scratch => Vec::new(),
            Base::Image(image) => {
                let image = self.image(&image).await?;
                image.layers.iter().map(|layer| layer.diff_id.clone()).collect()
            }
        };
        let root = self.builder.images.layers().mount_read_only(&layers, None)?;
        Ok(Tree::new(root, name))
    }

    /// A path against WORKDIR; a `/` at its end stays, for it means a directory.
    fn absolute(&self, stage: &Stage, path: &str) -> Result<String> {
        if path.is_empty() {
            return Err(BuildError::invalid("the path is empty"));
        }
        if path.starts_with('/') {
            return Ok(path.to_owned());
        }
        let here = &stage.config.config.working_dir;
        let path = if path == "." || path == "./" { "" } else { path };
        Ok(format!("{}/{path}", here.trim_end_matches('/')))
    }
}

impl Job {
    fn perform(self, under: &[Digest], cached: &dyn Fn(&Key) -> Option<CacheEntry>) -> Result<Outcome> {
        let mut archives = Vec::new();
        let result = self.copy(under, cached, &mut archives);
        for archive in archives {
            if let Err(error) = self.contexts.remove(&archive) {
                tracing::debug!("an unpacked archive stays for now: {error}");
            }
        }
        result
    }

    fn copy(
        &self,
        under: &[Digest],
        cached: &dyn Fn(&Key) -> Option<CacheEntry>,
        taken: &mut Vec<Digest>,
    ) -> Result<Outcome> {
        let mut trees = Vec::new();
        let mut added = Vec::new();
        for source in &self.sources {
            let CopySource::Path(path) = source else { continue };
            if !self.add {
                continue;
            }
            let looked = archives::look(&self.from, path, &self.contexts, taken)?;
            if looked.is_empty() {
                return Err(BuildError::invalid(format!("{path:?} is not in {}", self.from.name())));
            }
            for one in looked {
                if let Added::Archive(digest) = &one {
                    let root = self.contexts.mount_read_only(std::slice::from_ref(digest), None)?;
                    trees.push(Tree::new(root, path));
                }
                added.push(one);
            }
        }
        let mut trees = trees.iter();
        let path = |path: &str, literal| Source::Path {
            tree: &self.from,
            path: path.to_owned(),
            literal,
            ignore: &self.ignore,
        };
        let mut sources: Vec<Source<'_>> = Vec::new();
        for source in &self.sources {
            match source {
                CopySource::Text(name, text, _) => sources.push(Source::Text(name.clone(), text.clone())),
                CopySource::Path(pattern) if !self.add => sources.push(path(pattern, false)),
                CopySource::Path(_) => {}
            }
        }
        for one in &added {
            match one {
                Added::Path(one) => sources.push(path(one, true)),
                Added::Archive(_) => sources.extend(trees.next().map(Source::Archive)),
            }
        }
        let plan = Plan::copy(&self.base, &self.wanted, &sources)?;
        write(&plan, "copy", &self.layers, under, self.time, cached)
    }
}

/// Writes a plan unless the cache has its layer.
fn write(
    plan: &Plan<'_>,
    kind: &str,
    layers: &LayerStore,
    under: &[Digest],
    time: Times,
    cached: &dyn Fn(&Key) -> Option<CacheEntry>,
) -> Result<Outcome> {
    let digest = plan.digest()?;
    let epoch = time.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
    let key = Key::new(kind, under, [digest.as_str(), epoch.as_str()]);
    if let Some(entry) = cached(&key) {
        return Ok(Outcome { key, entry, cached: true });
    }
    let created = time.epoch.unwrap_or_else(|| plan.newest().unwrap_or(time.created));
    let published = plan.write(layers.writer(strata_model::Algorithm::Sha256)?, created, time.epoch)?;
    Ok(Outcome { key, entry: CacheEntry { layer: published.digest, created }, cached: false })
}

/// Variables in a here-document; quotes in it are text.
fn expand_lines(text: &str, escape: char, variables: &[(String, String)]) -> Result<String> {
    let quoted: String =
        text.chars().flat_map(|c| [Some(escape).filter(|_| c == '"' || c == '\''), Some(c)]).flatten().collect();
    words::expand(&quoted, escape, variables).map_err(BuildError::Invalid)
}

/// `user`, `uid`, `user:group`: names by the stage's own files; a number alone is also the group's, as docker has it.
fn owner(base: &Tree, text: &str) -> Result<(u32, u32)> {
    if let Ok(id) = text.parse::<u32>() {
        return Ok((id, id));
    }
    let files = UserFiles::read(base.root()).map_err(|error| BuildError::invalid(error.to_string()))?;
    let user = resolve_user(text, &files).map_err(|error| BuildError::invalid(error.to_string()))?;
    Ok((user.uid, user.gid))
}

fn mode(text: &str) -> Result<u32> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| BuildError::invalid(format!("--chmod={text} is no octal mode such as 0644")))
}
