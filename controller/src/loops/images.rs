//! Names to digests: finds out what the images of a new template mean, records them, and makes the template revision.
//!
//! Apply has answered long before; until the template is made, the status of the workload or pod says why it waits. An image that the
//! cluster has under its name is used without asking anybody, unless the pull policy is Always: then a node is asked once for each
//! change of the template.

mod answers;
mod materials;
mod template;

use super::{Batch, Feed, RETRY};
use crate::{
    control::Control,
    edit::{Done, Keep, changed, commit_or_retry},
    objects::{
        image_spec, meta, new_meta, pod_spec, pod_spec_mut, pod_status_mut, template_key, template_spec,
        workload_status, workload_status_mut,
    },
    sessions::{ResolveError, events},
};
use answers::{Answer, Answers};
use materials::Users;
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use strata_model::limits::OBJECT_BYTES_MAX;
use strata_proto::types::{
    self, ImageSpec, Kind, Object, PodTemplate, container::PullPolicy, event_spec::Severity, object,
};
use strata_store::{Change, Condition, Key, Op, Snapshot, StoreError};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

/// How long a node may take to find out what a name means.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Questions under way at the same time.
pub const QUESTIONS_MAX: usize = 64;
/// What the envelope of a template may take of the bound of an object.
const ENVELOPE_BYTES: usize = 4096;

/// Something whose template has unresolved images.
#[derive(Debug, Default)]
struct Waiting {
    generation: u64,
    /// Answers that were asked for on its behalf, for pull policy Always.
    fresh: HashMap<String, ImageSpec>,
    /// What it waits for.
    names: BTreeSet<String>,
}

struct Images {
    control: Arc<Control>,
    dirty: BTreeSet<Key>,
    waiting: BTreeMap<Key, Waiting>,
    /// Who has to be looked at when a config or secret changes.
    users: Users,
    answers: Answers,
    questions: JoinSet<(String, Result<ImageSpec, ResolveError>)>,
    turn: usize,
    ready: BTreeSet<String>,
}

/// Runs the loop until the store is closed.
///
/// # Errors
/// What the store says, other than a conflict.
pub async fn run(control: Arc<Control>) -> Result<(), StoreError> {
    let mut feed = Feed::new(&control.store);
    let mut this = Images {
        control,
        dirty: BTreeSet::new(),
        waiting: BTreeMap::new(),
        users: Users::default(),
        answers: Answers::default(),
        questions: JoinSet::new(),
        turn: 0,
        ready: BTreeSet::new(),
    };
    loop {
        let retry = this.answers.next_retry();
        tokio::select! {
            batch = feed.next() => match batch {
                None => return Ok(()),
                Some(batch) => this.see(batch),
            },
            Some(answer) = this.questions.join_next(), if !this.questions.is_empty() => match answer {
                Ok((name, result)) => this.take(name, result).await?,
                Err(error) => warn!(%error, "a question about an image was lost"),
            },
            () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {
                for name in this.answers.due(Instant::now()) {
                    this.wake(&name);
                }
            }
            () = tokio::time::sleep(RETRY), if !this.dirty.is_empty() => {}
        }
        for key in std::mem::take(&mut this.dirty) {
            if !this.work(&key).await? {
                this.dirty.insert(key);
            }
        }
    }
}

/// A template as somebody wants it.
struct Wanted {
    template: PodTemplate,
    generation: u64,
    /// The revision it has now; "" = none.
    revision: String,
    resolved: bool,
}

fn wanted(object: &Object) -> Option<Wanted> {
    if meta(object).deleted.is_some() {
        return None;
    }
    let generation = meta(object).generation;
    match &object.kind {
        // A cron workload runs nothing itself: each of its jobs finds out what its images mean then.
        Some(object::Kind::Workload(w)) if is_cron(w) => None,
        Some(object::Kind::Workload(w)) => {
            let status = workload_status(object);
            let revision = status.revision.clone();
            let resolved = !revision.is_empty() && status.observed_generation >= generation;
            let template = w.spec.as_ref()?.pod_template(&meta(object).name)?;
            Some(Wanted { template, generation, revision, resolved })
        }
        Some(object::Kind::Pod(_)) => {
            let spec = pod_spec(object);
            let resolved = !spec.template_revision.is_empty();
            let mut template = spec.template.clone()?;
            // What the pod can refer to as its own (metadata.labels) is what its record says.
            if template.labels.is_empty() && template.annotations.is_empty() && materials::names_fields(&template) {
                template.labels.clone_from(&meta(object).labels);
                template.annotations.clone_from(&meta(object).annotations);
            }
            Some(Wanted { template, generation, revision: String::new(), resolved })
        }
        _ => None,
    }
}

impl Images {
    fn see(&mut self, batch: Batch) {
        match batch {
            Batch::Everything(snapshot) => {
                for kind in [Kind::Workload, Kind::Pod] {
                    self.dirty.extend(
                        snapshot
                            .list(kind, None)
                            .filter(|o| wanted(o).is_some_and(|w| !w.resolved))
                            .map(|o| Key::of(&o)),
                    );
                    for object in snapshot.list(kind, None) {
                        self.note_materials(&snapshot, &object);
                    }
                }
                // A config may have changed while nobody looked.
                self.dirty.extend(self.users.all().cloned());
                self.ready = self.control.sessions.connected().into_iter().collect();
            }
            Batch::Changes(events) => {
                let snapshot = self.control.store.snapshot();
                for event in events {
                    match event.key.kind {
                        Kind::Workload | Kind::Pod if event.deleted => {
                            self.waiting.remove(&event.key);
                            self.users.set(&event.key, BTreeSet::new());
                        }
                        // Pods of workloads bring no template of their own.
                        Kind::Pod if pod_spec(&event.object).template.is_none() => {}
                        Kind::Workload | Kind::Pod => {
                            self.note_materials(&snapshot, &event.object);
                            let known = self.waiting.get(&event.key);
                            // Its own status tells nothing new about what it waits for.
                            let news = wanted(&event.object)
                                .is_none_or(|w| !w.resolved && known.is_none_or(|k| k.generation != w.generation));
                            if news {
                                self.dirty.insert(event.key);
                            }
                        }
                        Kind::Image => self.wake(&event.key.name),
                        Kind::Config | Kind::Secret => self.dirty.extend(self.users.of(&event.key).cloned()),
                        Kind::Node => self.see_node(&event.key.name),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Keeps up to date whom a change of a config or secret concerns: a workload always, a pod by hand until it has its template.
    fn note_materials(&mut self, snapshot: &Snapshot, object: &Object) {
        let names = match wanted(object) {
            Some(w) if !w.resolved || !w.revision.is_empty() => {
                let revision = (!w.revision.is_empty()).then(|| snapshot.get(&template_key(&w.revision))).flatten();
                let revision = revision.as_deref().and_then(template_spec);
                materials::keys(&meta(object).namespace, &w.template, revision)
            }
            _ => BTreeSet::new(),
        };
        self.users.set(&Key::of(object), names);
    }

    /// A node that has come may know what others could not be asked about.
    fn see_node(&mut self, node: &str) {
        if self.control.sessions.link(node).is_none() {
            self.ready.remove(node);
        } else if self.ready.insert(node.to_owned()) {
            for name in self.answers.forget("NoNodes") {
                self.wake(&name);
            }
        }
    }

    fn wake(&mut self, name: &str) {
        self.dirty.extend(self.waiting.iter().filter(|(_, w)| w.names.contains(name)).map(|(k, _)| k.clone()));
    }

    /// Takes in an answer, good or bad.
    async fn take(&mut self, name: String, result: Result<ImageSpec, ResolveError>) -> Result<(), StoreError> {
        match result {
            Ok(spec) => {
                info!(image = name, digest = spec.digest, "resolved");
                let spec = ImageSpec { from_registry: true, ..spec };
                if let Err(refusal) = crate::api::record_image(&self.control.store, &name, spec.clone(), "").await {
                    warn!(image = name, %refusal, "not recorded");
                }
                self.answers.succeeded(&name);
                for waiting in self.waiting.values_mut().filter(|w| w.names.contains(&name)) {
                    waiting.fresh.insert(name.clone(), spec.clone());
                }
            }
            Err(error) => {
                warn!(image = name, reason = error.reason, "not resolved: {}", error.message);
                self.answers.failed(&name, error, Instant::now());
            }
        }
        self.wake(&name);
        Ok(())
    }

    /// Looks at one object. False if it has to be done again.
    async fn work(&mut self, key: &Key) -> Result<bool, StoreError> {
        let snapshot = self.control.store.snapshot();
        let Some((object, wanted)) = snapshot.get(key).and_then(|o| wanted(&o).map(|w| (o, w))) else {
            self.waiting.remove(key);
            return Ok(true);
        };
        let old = (!wanted.revision.is_empty()).then(|| snapshot.get(&template_key(&wanted.revision))).flatten();
        let old = old.as_deref().and_then(template_spec);
        if wanted.resolved {
            self.waiting.remove(key);
            return match old {
                Some(old) => self.follow(&snapshot, &object, &wanted, old).await,
                None => Ok(true),
            };
        }
        if let Some(old) = old
            && template::is_same(old, &wanted.template)
        {
            self.waiting.remove(key);
            return self.keep(&snapshot, &object, &wanted, old).await;
        }
        let waiting = self.waiting.entry(key.clone()).or_default();
        if waiting.generation != wanted.generation {
            *waiting = Waiting { generation: wanted.generation, ..Waiting::default() };
        }
        let mut found: HashMap<String, ImageSpec> = HashMap::new();
        let mut names = BTreeSet::new();
        let mut trouble: Option<ResolveError> = None;
        for (name, policy) in template::images(&wanted.template) {
            let known = snapshot.get(&Key::new(Kind::Image, "", name.clone())).as_deref().and_then(image_spec).cloned();
            let fresh = waiting.fresh.get(&name).cloned();
            match (policy, fresh, known) {
                (_, Some(spec), _) | (PullPolicy::Never | PullPolicy::IfNotPresent, None, Some(spec)) => {
                    found.insert(name, spec);
                }
                (PullPolicy::Never, None, None) => {
                    let message = format!(
                        "the cluster has no image {name} and the pull policy is Never: import it with `ctl image import`"
                    );
                    trouble = Some(ResolveError { reason: "ImageNotFound".to_owned(), message });
                    names.insert(name);
                }
                _ => {
                    names.insert(name);
                }
            }
        }
        waiting.names.clone_from(&names);
        if names.is_empty() {
            let known = old.map_or(&[][..], |o| &o.materials);
            let namespace = &meta(&object).namespace;
            let materials = materials::collect(&self.control.vault, &snapshot, namespace, &wanted.template, known);
            let spec = match materials {
                Ok(materials) => types::TemplateSpec { materials, ..template::pinned(&wanted.template, &found) },
                Err(trouble) => return self.tell(&object, Some(trouble)).await,
            };
            if let Some(trouble) = too_big(&spec) {
                return self.tell(&object, Some(trouble)).await;
            }
            let done = self.finish(&object, wanted.generation, &spec.revision_name(), Some(spec)).await?;
            if done {
                self.waiting.remove(key);
            }
            return Ok(done);
        }
        let may_ask: BTreeSet<String> = template::images(&wanted.template)
            .into_iter()
            .filter(|(name, policy)| names.contains(name) && *policy != PullPolicy::Never)
            .map(|(name, _)| name)
            .collect();
        for name in may_ask {
            if let Some(error) = self.ask(&name) {
                trouble.get_or_insert(error);
            }
        }
        self.tell(&object, trouble).await
    }

    /// A workload whose template has not changed: its configs and secrets may have.
    async fn follow(
        &self,
        snapshot: &Snapshot,
        object: &Object,
        wanted: &Wanted,
        old: &types::TemplateSpec,
    ) -> Result<bool, StoreError> {
        match materials::changed(&self.control.vault, snapshot, &meta(object).namespace, old) {
            Ok(None) => Ok(true),
            Ok(Some(materials)) => {
                let spec = types::TemplateSpec { materials, ..old.clone() };
                let (revision, trouble) = (spec.revision_name(), too_big(&spec));
                if trouble.is_some() {
                    return self.tell(object, trouble).await;
                }
                if has_failed(object, &revision) {
                    return Ok(true);
                }
                info!(object = %Key::of(object), revision, "a config or secret has changed");
                self.finish(object, wanted.generation, &revision, Some(spec)).await
            }
            Err(trouble) => self.tell(object, Some(trouble)).await,
        }
    }

    /// A new generation with the template as it was.
    async fn keep(
        &self,
        snapshot: &Snapshot,
        object: &Object,
        wanted: &Wanted,
        old: &types::TemplateSpec,
    ) -> Result<bool, StoreError> {
        match materials::changed(&self.control.vault, snapshot, &meta(object).namespace, old) {
            Ok(Some(materials)) => {
                let spec = types::TemplateSpec { materials, ..old.clone() };
                match too_big(&spec) {
                    None => self.finish(object, wanted.generation, &spec.revision_name(), Some(spec)).await,
                    trouble => self.tell(object, trouble).await,
                }
            }
            Ok(None) => self.finish(object, wanted.generation, &wanted.revision, None).await,
            Err(trouble) => self.tell(object, Some(trouble)).await,
        }
    }

    /// Asks a node about a name, unless that is under way or was tried lately; then what came of it.
    fn ask(&mut self, name: &str) -> Option<ResolveError> {
        match self.answers.of(name, Instant::now()) {
            Answer::UnderWay => None,
            Answer::Failed(error) => Some(error),
            Answer::Ask => {
                if self.questions.len() >= QUESTIONS_MAX {
                    let message = format!("{QUESTIONS_MAX} other images are being looked up");
                    let error = ResolveError { reason: "Busy".to_owned(), message };
                    self.answers.failed(name, error.clone(), Instant::now());
                    return Some(error);
                }
                let nodes = self.control.sessions.connected();
                if nodes.is_empty() {
                    let message = format!("no node is connected that could be asked what {name} is");
                    let error = ResolveError { reason: "NoNodes".to_owned(), message };
                    self.answers.failed(name, error.clone(), Instant::now());
                    return Some(error);
                }
                self.turn = self.turn.wrapping_add(1);
                let node = nodes[self.turn % nodes.len()].clone();
                let (control, name) = (self.control.clone(), name.to_owned());
                self.answers.under_way(&name);
                self.questions.spawn(async move {
                    let result = control.sessions.resolve(&node, &name, RESOLVE_TIMEOUT).await;
                    (name, result)
                });
                // Until it is answered, what was said last stays true.
                None
            }
        }
    }

    /// Puts the reason for waiting into the status. False if it has to be done again.
    async fn tell(&self, object: &Object, trouble: Option<ResolveError>) -> Result<bool, StoreError> {
        let Some(trouble) = trouble else { return Ok(true) };
        let mut updated = object.clone();
        let (reason, message) = if let Some(status) = workload_status_mut(&mut updated) {
            (&mut status.reason, &mut status.message)
        } else if let Some(status) = pod_status_mut(&mut updated) {
            (&mut status.reason, &mut status.message)
        } else {
            return Ok(true);
        };
        if *reason == trouble.reason && *message == trouble.message {
            return Ok(true);
        }
        reason.clone_from(&trouble.reason);
        message.clone_from(&trouble.message);
        let done = commit_or_retry(&self.control.store, vec![changed(updated, Keep::Volatile)]).await?;
        if !matches!(done, Done::Committed(_)) {
            return Ok(false);
        }
        events::about(&self.control, object, Severity::Warning, &trouble.reason, &trouble.message).await;
        Ok(true)
    }

    /// Names the template revision in the object, together with the template itself if it is new. False if it has to be done again.
    async fn finish(
        &self,
        object: &Object,
        generation: u64,
        revision: &str,
        template: Option<types::TemplateSpec>,
    ) -> Result<bool, StoreError> {
        let mut updated = object.clone();
        let wanted = wanted_replicas(object);
        if let Some(status) = workload_status_mut(&mut updated) {
            // Until the pods are planned anew nothing counts as ready at this generation: whoever waits must not stop here.
            if status.observed_generation != generation || status.revision != revision {
                status.desired = wanted.unwrap_or(status.desired.max(1));
                status.updated = 0;
            }
            status.revision = revision.to_owned();
            status.observed_generation = generation;
            status.reason.clear();
            status.message.clear();
        } else if let Some(spec) = pod_spec_mut(&mut updated) {
            spec.template_revision = revision.to_owned();
            if let Some(status) = pod_status_mut(&mut updated) {
                status.reason.clear();
                status.message.clear();
            }
        }
        let keep = if template.is_some() { Keep::Durable } else { Keep::Volatile };
        let mut changes = Vec::new();
        if let Some(spec) = template {
            // Put also if it is there: that keeps it from being cleaned up at this very moment.
            let found = self.control.store.snapshot().get(&template_key(revision));
            let meta = found.and_then(|o| o.meta.clone()).unwrap_or_else(|| new_meta("", revision));
            let kind = Some(object::Kind::Template(types::Template { spec: Some(spec) }));
            let template = Object { meta: Some(meta), kind };
            changes.push(Change {
                key: template_key(revision),
                condition: Condition::None,
                op: Op::Put(template),
                durable: true,
            });
        }
        changes.push(changed(updated, keep));
        Ok(matches!(commit_or_retry(&self.control.store, changes).await?, Done::Committed(_)))
    }
}

/// Why a template cannot be stored.
fn too_big(spec: &types::TemplateSpec) -> Option<ResolveError> {
    let (bytes, most) = (spec.encoded_len(), OBJECT_BYTES_MAX - ENVELOPE_BYTES);
    (bytes > most).then(|| ResolveError {
        reason: "TemplateTooBig".to_owned(),
        message: format!(
            "the template with its configs and secrets has {bytes} bytes, the limit is {most}: name fewer or smaller ones"
        ),
    })
}

/// Whether the rollout of this revision has failed and the spec has not changed since.
fn has_failed(object: &Object, revision: &str) -> bool {
    let status = workload_status(object);
    status.failed_generation == meta(object).generation
        && status.history.iter().any(|r| r.revision == revision && !r.complete)
}

/// The replicas a workload asks for; `None` where the nodes decide.
fn wanted_replicas(object: &Object) -> Option<u32> {
    let Some(object::Kind::Workload(workload)) = &object.kind else { return None };
    let spec = workload.spec.as_ref()?;
    (spec.mode() == types::workload_spec::Mode::Replicated).then(|| spec.replicas.unwrap_or(1))
}

fn is_cron(workload: &types::Workload) -> bool {
    workload.spec.as_ref().is_some_and(|s| s.mode() == types::workload_spec::Mode::Cron)
}
