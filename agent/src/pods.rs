//! The pods of this node: one task each, fed from the ledger, reporting to the board.

mod ask;
mod board;
mod life;
mod meters;
mod probes;
mod step;

pub use ask::{ASKS_WAITING_MAX, Ask};
pub use board::{Board, EVENTS_WAITING_MAX};
pub use life::ADOPT_TRIES;
pub use meters::PodMeters;

use crate::{
    ledger::{Ledger, LedgerError, Record},
    world::{PodSpec, World},
};
use life::Life;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use strata_model::{Uid, VolumeSource, slot_volume};
use strata_proto::dispatch;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};

/// Sandboxes made and containers started at the same time.
pub const STARTS_AT_ONCE: usize = 8;
/// Pods whose images are fetched at the same time.
pub const PULLS_AT_ONCE: usize = 4;
/// Probes of the whole node that are under way at the same time; more wait, and their time runs only then.
pub const PROBES_AT_ONCE: usize = 64;
/// How long any step but a pull may take.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the start of an agent waits for its pods to be found.
pub const ADOPTION_WAIT: Duration = Duration::from_secs(10);

/// What every pod's task shares.
pub(crate) struct Shared<W> {
    pub world: Arc<W>,
    pub ledger: Arc<Ledger>,
    pub board: Arc<Board>,
    pub meters: PodMeters,
    pub node: String,
    pub boot_id: String,
    pub starts: Semaphore,
    pub pulls: Semaphore,
    pub probes: Arc<Semaphore>,
    pub sandboxes: Arc<Semaphore>,
    lives: Mutex<BTreeMap<Uid, Handle>>,
}

struct Handle {
    told: watch::Sender<dispatch::Assignment>,
    asks: mpsc::Sender<Ask>,
    task: JoinHandle<()>,
}

/// The pods of this node. Dropping it ends the tasks; the containers run on.
pub struct Pods<W: World> {
    shared: Arc<Shared<W>>,
}

/// What the set of pods is made with.
pub struct Setup<W> {
    /// The world.
    pub world: Arc<W>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The node's name.
    pub node: String,
    /// Of this boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Sandboxes at the same time.
    pub sandboxes_max: usize,
}

impl<W: World> Pods<W> {
    /// Starts a task for each pod in the ledger: what runs is adopted, what does not is started. No controller is needed.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger cannot be read.
    pub async fn start(setup: Setup<W>) -> Result<Self, LedgerError> {
        let shared = Arc::new(Shared {
            world: setup.world,
            ledger: setup.ledger,
            board: Arc::new(Board::default()),
            meters: PodMeters::default(),
            node: setup.node,
            boot_id: setup.boot_id,
            starts: Semaphore::new(STARTS_AT_ONCE),
            pulls: Semaphore::new(PULLS_AT_ONCE),
            probes: Arc::new(Semaphore::new(PROBES_AT_ONCE)),
            sandboxes: Arc::new(Semaphore::new(setup.sandboxes_max)),
            lives: Mutex::default(),
        });
        let pods = Self { shared };
        let stored = pods.shared.ledger.pods()?;
        let mut specs = Vec::new();
        let mut lives = Vec::new();
        for pod in stored {
            // A directory without an assignment waits for the first full frame, which names it or has it removed.
            let Some(assignment) = pod.assignment else {
                specs.push(pods.shared.spec(&dispatch::Assignment { uid: pod.uid.to_string(), ..Default::default() })?);
                continue;
            };
            specs.push(pods.shared.spec(&assignment)?);
            lives.push((assignment, pod.record));
        }
        // Only what belongs to nobody: pods that go are cleared away by their own tasks.
        if let Err(trouble) = pods.shared.world.sweep(&specs).await {
            tracing::warn!(reason = trouble.reason, "what an earlier agent left could not be swept: {trouble}");
        }
        let mut begins = Vec::with_capacity(lives.len());
        for (assignment, record) in lives {
            let (begun, begins_when) = oneshot::channel();
            pods.shared.tell(assignment, record, Some(begun));
            begins.push(begins_when);
        }
        // The first Hello should name them all; one that is slow to be found is told of later.
        if tokio::time::timeout(ADOPTION_WAIT, futures::future::join_all(begins)).await.is_err() {
            tracing::warn!("not every pod of this node has been found within {} s", ADOPTION_WAIT.as_secs());
        }
        Ok(pods)
    }

    /// Takes a frame into the ledger and tells the pods. When it returns the frame may be acknowledged.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing was told.
    pub async fn apply(&self, frame: dispatch::Assignments) -> Result<(), LedgerError> {
        let ledger = self.shared.ledger.clone();
        let changed = tokio::task::spawn_blocking(move || ledger.apply(&frame))
            .await
            .map_err(|e| LedgerError::Frame(format!("the task ended: {e}")))??;
        for assignment in changed {
            self.shared.tell(assignment, None, None);
        }
        Ok(())
    }

    /// What was counted.
    #[must_use]
    pub fn meters(&self) -> &PodMeters {
        &self.shared.meters
    }

    /// What there is to report.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        self.shared.board.clone()
    }

    /// What runs in the pod with this uid, if it is known here.
    #[must_use]
    pub fn spec(&self, uid: &str) -> Option<PodSpec> {
        self.shared.spec(&self.assignment(uid)?).ok()
    }

    /// The pod with this uid as it was last told, if it is known here.
    #[must_use]
    pub fn assignment(&self, uid: &str) -> Option<dispatch::Assignment> {
        self.shared.lock().get(uid).map(|h| h.told.borrow().clone())
    }
}

impl<W: World> Drop for Pods<W> {
    fn drop(&mut self) {
        for handle in self.shared.lock().values() {
            handle.task.abort();
        }
    }
}

impl<W: World> Shared<W> {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uid, Handle>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a pod's task, and starts one if there is none.
    fn tell(
        self: &Arc<Self>,
        assignment: dispatch::Assignment,
        record: Option<Record>,
        begun: Option<oneshot::Sender<()>>,
    ) {
        let uid = Uid::from_trusted(assignment.uid.clone());
        let mut lives = self.lock();
        if let Some(handle) = lives.get(&uid)
            && handle.told.send(assignment.clone()).is_ok()
        {
            return;
        }
        let (told, hears) = watch::channel(assignment);
        let (asks, asked) = mpsc::channel(ASKS_WAITING_MAX);
        let task = tokio::spawn(Life::new(self.clone(), uid.clone(), hears, asked, record, begun).run());
        lives.insert(uid, Handle { told, asks, task });
    }

    /// Ends a task's entry, unless it was told something that it has not heard.
    fn forget(&self, uid: &Uid, hears: &watch::Receiver<dispatch::Assignment>) -> bool {
        let mut lives = self.lock();
        let heard_all = !hears.has_changed().unwrap_or(false);
        if heard_all {
            lives.remove(uid);
        }
        heard_all
    }

    /// The pod of an assignment. One whose template is gone (it is only to go) has an empty one.
    fn spec(&self, a: &dispatch::Assignment) -> Result<PodSpec, LedgerError> {
        let mut template = self.ledger.template(&a.template_revision)?.unwrap_or_else(|| strata_model::Template {
            revision: strata_model::RevisionName::default(),
            pod: strata_model::PodTemplate::default(),
            images: Vec::new(),
            materials: Vec::new(),
        });
        for volume in &mut template.pod.volumes {
            if let VolumeSource::Named(name) = &mut volume.source {
                *name = slot_volume(name, a.ordinal);
            }
        }
        let uid = Uid::from_trusted(a.uid.clone());
        Ok(PodSpec {
            dir: self.ledger.pod_dir(&uid),
            uid,
            name: strata_model::ObjectName::new(a.namespace.clone(), a.name.clone()),
            template: Arc::new(template),
            address_index: a.address_index,
            attempt: 0,
        })
    }
}
