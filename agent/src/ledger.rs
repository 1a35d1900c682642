//! The ledger: what the node was told and what it knows, as files replaced atomically. There is no database.
//!
//! ```text
//! STATE/ledger/session.json            subnet, node index, cluster
//! STATE/ledger/generation              of the last frame: a hint, never synced
//! STATE/ledger/reserve                 room for all of this when the disk is full (see [`Reserve`])
//! STATE/ledger/templates/<revision>    strata.types.v1.TemplateSpec, secrets in it sealed (see `secrets`)
//! STATE/pods/<uid>/assignment          strata.dispatch.v1.Assignment
//! STATE/pods/<uid>/record.json         attempts, restarts, exits (see [`Record`])
//! ```
//! A frame is on disk before it is acknowledged: templates, then assignments. Cut short anywhere, each pod has its old assignment
//! or its new one; every session begins with a full frame. A start waits for this, so nothing is synced twice.

mod files;
mod record;
mod reserve;
mod secrets;

pub use files::{Files, Layout};
pub use record::Record;
pub use reserve::Reserve;

use prost::Message;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};
use strata_model::{MaterialKind, Template, Uid};
use strata_proto::{dispatch, types};

const SESSION: &str = "session.json";
const GENERATION: &str = "generation";
const RESERVE: &str = "reserve";
const ASSIGNMENT: &str = "assignment";
const RECORD: &str = "record.json";

/// What can go wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk or its file system.
    #[error("{doing} {path}: {source}; free space on the disk or mend it, nothing is lost")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that was not written by an agent.
    #[error(
        "{path} cannot be read: {why}; move it away and start the agent again, the controller knows what was in it"
    )]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// The decoder's words.
        why: String,
    },
    /// The node's key.
    #[error("the node's key {path}: {source}")]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why it is of no use.
        source: strata_seal::SealError,
    },
    /// The controller sent something that no ledger can hold.
    #[error("a frame of assignments cannot be taken in: {0}")]
    Frame(String),
}

impl LedgerError {
    /// A stable word for a status.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Disk { source, .. } if reserve::is_full(source) => "DiskFull",
            _ => "Ledger",
        }
    }
}

fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::Disk { doing, path, source }
}

/// What the last session told about the node itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Of the last frame that is wholly in the ledger.
    pub generation: u64,
    /// This node's pods' addresses, "" before the first session.
    pub subnet: String,
    /// The range of all nodes' pods.
    pub cluster_cidr: String,
    /// The range of virtual addresses of services, "" if the controller knows none.
    #[serde(default)]
    pub service_cidr: String,
    /// What names of services end in.
    #[serde(default)]
    pub cluster_domain: String,
    /// Cluster-wide number of the node.
    pub node_index: u32,
    /// Which cluster.
    pub cluster_id: String,
}

/// One pod's directory, read.
#[derive(Debug)]
pub struct StoredPod {
    /// Its uid.
    pub uid: Uid,
    /// As last told; `None`: a directory without one, a rest of something.
    pub assignment: Option<dispatch::Assignment>,
    /// As last noted.
    pub record: Option<Record>,
}

/// The ledger of one node.
#[derive(Debug)]
pub struct Ledger {
    layout: Layout,
    files: Files,
    key: secrets::NodeKey,
}

impl Ledger {
    /// Opens (and at the first time makes) the ledger; sweeps what was half-done.
    ///
    /// # Errors
    /// [`LedgerError::Disk`].
    pub fn open(state_dir: &Path) -> Result<Self, LedgerError> {
        let key = secrets::NodeKey::open(state_dir)?;
        let mut ledger = Self { layout: Layout { state: state_dir.to_owned() }, files: Files::default(), key };
        let dirs = [ledger.layout.ledger(), ledger.layout.templates(), ledger.layout.pods()];
        for dir in &dirs {
            ledger.files.make_dir(dir).map_err(disk("making", dir))?;
            ledger.files.sweep(dir).map_err(disk("sweeping", dir))?;
        }
        let path = ledger.layout.ledger().join(RESERVE);
        ledger.files.reserve = Some(Reserve::open(&path).map_err(disk("reserving room in", &path))?);
        Ok(ledger)
    }

    /// The directory of one pod.
    #[must_use]
    pub fn pod_dir(&self, uid: &Uid) -> PathBuf {
        self.layout.pod(uid)
    }

    /// What the last session told.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn session(&self) -> Result<SessionFacts, LedgerError> {
        let path = self.layout.ledger().join(SESSION);
        let facts = match files::read(&path).map_err(disk("reading", &path))? {
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|e| LedgerError::Corrupt { path, why: e.to_string() })?
            }
            None => SessionFacts::default(),
        };
        let path = self.layout.ledger().join(GENERATION);
        let noted = files::read(&path).map_err(disk("reading", &path))?;
        let noted = noted.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
        Ok(SessionFacts { generation: noted.unwrap_or(facts.generation), ..facts })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`LedgerError::Disk`].
    pub fn save_session(&self, facts: &SessionFacts) -> Result<(), LedgerError> {
        let dir = self.layout.ledger();
        let bytes = serde_json::to_vec_pretty(facts).unwrap_or_default();
        self.files.replace(&dir, SESSION, &bytes, true).map_err(disk("writing session.json in", &dir))
    }

    /// Every pod that has a directory.
    ///
    /// # Errors
    /// [`LedgerError`]; an unreadable record is only warned of: it is an agent's own note, and what runs is found anyway.
    pub fn pods(&self) -> Result<Vec<StoredPod>, LedgerError> {
        let dir = self.layout.pods();
        let names = files::names(&dir).map_err(disk("listing", &dir))?;
        names.iter().filter(|n| is_uid(n)).map(|n| self.pod(&Uid::from_trusted(n.clone()))).collect()
    }

    fn pod(&self, uid: &Uid) -> Result<StoredPod, LedgerError> {
        let dir = self.layout.pod(uid);
        let path = dir.join(ASSIGNMENT);
        let assignment = match files::read(&path).map_err(disk("reading", &path))? {
            Some(bytes) => Some(
                dispatch::Assignment::decode(bytes.as_slice())
                    .map_err(|e| LedgerError::Corrupt { path, why: e.to_string() })?,
            ),
            None => None,
        };
        let path = dir.join(RECORD);
        let record = files::read(&path).map_err(disk("reading", &path))?.and_then(|bytes| {
            serde_json::from_slice(&bytes)
                .inspect_err(|e| tracing::warn!(path = %path.display(), "an unreadable record is left aside: {e}"))
                .ok()
        });
        Ok(StoredPod { uid: uid.clone(), assignment, record })
    }

    /// A template revision.
    ///
    /// # Errors
    /// [`LedgerError`]; `Ok(None)` if it was never sent.
    pub fn template(&self, revision: &str) -> Result<Option<Template>, LedgerError> {
        if !is_revision(revision) {
            return Ok(None);
        }
        let path = self.layout.templates().join(revision);
        let Some(bytes) = files::read(&path).map_err(disk("reading", &path))? else { return Ok(None) };
        let mut spec = types::TemplateSpec::decode(bytes.as_slice())
            .map_err(|e| LedgerError::Corrupt { path: path.clone(), why: e.to_string() })?;
        self.key.open_template(revision, &mut spec).map_err(|e| {
            let why = format!("{e} (the key is identity/secret-key below the state directory)");
            LedgerError::Corrupt { path: path.clone(), why }
        })?;
        spec.template(revision).map(Some).map_err(|e| LedgerError::Corrupt { path, why: e.to_string() })
    }

    /// Whether a template is here with all the secrets that came with it now: one may have been sealed under a key that is lost.
    fn is_whole(&self, template: &dispatch::Template) -> bool {
        let Ok(Some(known)) = self.template(&template.revision) else { return false };
        let has = |name: &str| {
            known.materials.iter().any(|m| m.kind == MaterialKind::Secret && m.name == name && m.content.is_some())
        };
        template.secrets.iter().all(|secret| has(&secret.name))
    }

    /// Whether a revision is here: it was checked when it was written.
    fn has_template(&self, revision: &str) -> bool {
        is_revision(revision) && self.layout.templates().join(revision).exists()
    }

    /// Takes in a frame; returns the assignments that are new or changed. A full one also turns pods that are not in it into
    /// pods to remove.
    ///
    /// # Errors
    /// [`LedgerError`]: the generation is then still the old one.
    pub fn apply(&self, frame: &dispatch::Assignments) -> Result<Vec<dispatch::Assignment>, LedgerError> {
        let dir = self.layout.templates();
        for template in &frame.templates {
            self.save_template(&dir, template)?;
        }
        if !frame.templates.is_empty() {
            self.files.sync_dir(&dir).map_err(disk("syncing", &dir))?;
        }
        let changed = self.changed(frame)?;
        self.save_assignments(&changed)?;
        self.save_generation(frame.generation)?;
        if frame.full {
            self.forget_templates(frame)?;
        }
        self.refill();
        Ok(changed)
    }

    /// Every content first, then every name, then the directories: a journal that took all names writes them at the first sync.
    fn save_assignments(&self, changed: &[dispatch::Assignment]) -> Result<(), LedgerError> {
        let dirs: Vec<PathBuf> = changed.iter().map(|a| self.layout.pod(&Uid::from_trusted(a.uid.clone()))).collect();
        for (dir, assignment) in dirs.iter().zip(changed) {
            self.files.make_dir(dir).map_err(disk("making", dir))?;
            let bytes = assignment.encode_to_vec();
            self.files.stage(dir, ASSIGNMENT, &bytes, true).map_err(disk("writing the assignment in", dir))?;
        }
        for dir in &dirs {
            self.files.publish(dir, ASSIGNMENT).map_err(disk("naming the assignment in", dir))?;
        }
        for dir in &dirs {
            self.files.sync_dir(dir).map_err(disk("syncing", dir))?;
        }
        if dirs.is_empty() {
            return Ok(());
        }
        let pods = self.layout.pods();
        self.files.sync_dir(&pods).map_err(disk("syncing", &pods))
    }

    /// Never synced: a session begins with a full frame, whatever is noted here.
    fn save_generation(&self, generation: u64) -> Result<(), LedgerError> {
        let dir = self.layout.ledger();
        let bytes = generation.to_string();
        self.files.replace(&dir, GENERATION, bytes.as_bytes(), false).map_err(disk("writing the generation in", &dir))
    }

    fn save_template(&self, dir: &Path, template: &dispatch::Template) -> Result<(), LedgerError> {
        let bad = |why: String| LedgerError::Frame(format!("template {}: {why}", template.revision));
        let spec = template.spec.as_ref().ok_or_else(|| bad("has no content".into()))?;
        if !is_revision(&template.revision) {
            return Err(bad("is no name of a revision".into()));
        }
        spec.template(&template.revision).map_err(|e| bad(e.to_string()))?;
        if !self.is_whole(template) {
            let sealed = self.key.seal(template)?;
            let staged = self.files.stage(dir, &template.revision, &sealed.encode_to_vec(), true);
            let written = staged.and_then(|()| self.files.publish(dir, &template.revision));
            written.map_err(disk("writing a template in", dir))?;
        }
        Ok(())
    }

    fn changed(&self, frame: &dispatch::Assignments) -> Result<Vec<dispatch::Assignment>, LedgerError> {
        for a in &frame.pods {
            if !is_uid(&a.uid) {
                return Err(LedgerError::Frame(format!("{:?} is no uid of a pod", a.uid)));
            }
            // A pod that is only to go needs no template.
            if a.desired() != types::pod_spec::Desired::Removed && !self.has_template(&a.template_revision) {
                return Err(LedgerError::Frame(format!(
                    "pod {} names the template {:?}, which was not sent",
                    a.uid, a.template_revision
                )));
            }
        }
        let removed: BTreeSet<&str> = frame.removed.iter().map(String::as_str).collect();
        let wanted: BTreeMap<&str, &dispatch::Assignment> = frame.pods.iter().map(|a| (a.uid.as_str(), a)).collect();
        let mut changed: BTreeMap<String, dispatch::Assignment> = BTreeMap::new();
        for stored in self.pods()? {
            let uid = stored.uid.as_str();
            let wants = wanted.get(uid).map(|a| (*a).clone());
            let goes = removed.contains(uid) || (frame.full && wants.is_none());
            let next = if goes { Some(to_remove(&stored)) } else { wants };
            // Written again even if equal when it is to go: whoever was told so answers that it is gone.
            if let Some(next) = next.filter(|n| stored.assignment.as_ref() != Some(n) || goes) {
                changed.insert(uid.to_owned(), next);
            }
        }
        for (uid, a) in wanted {
            if !self.layout.pod(&Uid::from_trusted(uid)).join(ASSIGNMENT).exists() && !removed.contains(uid) {
                changed.insert(uid.to_owned(), a.clone());
            }
        }
        Ok(changed.into_values().collect())
    }

    /// Deletes templates that no pod names any more.
    fn forget_templates(&self, frame: &dispatch::Assignments) -> Result<(), LedgerError> {
        let mut named: BTreeSet<String> = frame.templates.iter().map(|t| t.revision.clone()).collect();
        named.extend(self.pods()?.into_iter().filter_map(|p| p.assignment).map(|a| a.template_revision));
        let dir = self.layout.templates();
        for name in files::names(&dir).map_err(disk("listing", &dir))? {
            if !named.contains(&name) {
                let path = dir.join(name);
                std::fs::remove_file(&path).map_err(disk("deleting", &path))?;
            }
        }
        Ok(())
    }

    /// Notes what is known of a pod. `durable`: it must survive a power cut (an attempt that begins or ends).
    ///
    /// # Errors
    /// [`LedgerError::Disk`].
    pub fn save_record(&self, uid: &Uid, record: &Record, durable: bool) -> Result<(), LedgerError> {
        let dir = self.layout.pod(uid);
        let bytes = serde_json::to_vec(record).unwrap_or_default();
        self.files.replace(&dir, RECORD, &bytes, durable).map_err(disk("writing the record in", &dir))
    }

    /// Removes a pod's directory with all that is in it.
    ///
    /// # Errors
    /// [`LedgerError::Disk`].
    pub fn remove_pod(&self, uid: &Uid) -> Result<(), LedgerError> {
        let dir = self.layout.pod(uid);
        self.files.remove_dir(&dir).map_err(disk("removing", &dir))?;
        self.refill();
        Ok(())
    }

    fn refill(&self) {
        if let Some(reserve) = &self.files.reserve {
            reserve.fill();
        }
    }
}

fn to_remove(stored: &StoredPod) -> dispatch::Assignment {
    let mut a = stored.assignment.clone().unwrap_or_default();
    a.uid = stored.uid.to_string();
    a.set_desired(types::pod_spec::Desired::Removed);
    a
}

/// Names of directories: nothing that could lead elsewhere.
fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_revision(text: &str) -> bool {
    is_uid(text)
}

#[cfg(test)]
mod tests;
