//! The one thread that writes: gathers commits into groups, makes them durable, publishes them.

use crate::{
    Change, Commit, Condition, Event, Key, Op, StoreError, backend::BackendError, checkpoint::Checkpointer,
    handle::Shared, limits, tables::Tables,
};
use std::{io, sync::Arc, thread, time::Instant};
use strata_proto::{store, types::Object};
use tokio::sync::{mpsc, oneshot};

pub(crate) struct Request {
    pub changes: Vec<Change>,
    /// Encoded.
    pub bytes: usize,
    pub reply: oneshot::Sender<Result<Commit, StoreError>>,
}

pub(crate) enum Message {
    Commit(Request),
    Close(oneshot::Sender<()>),
}

/// Starts the thread. It ends when the last sender is gone or on `Close`, and ends the checkpointer then.
pub(crate) fn start(
    shared: Arc<Shared>,
    tables: Tables,
    mut requests: mpsc::Receiver<Message>,
    checkpointer: Checkpointer,
) -> io::Result<()> {
    thread::Builder::new().name("store-writer".into()).spawn(move || {
        let mut writer = Writer { reserved: tables.revision(), tables, shared };
        let mut closing = None;
        while closing.is_none() {
            let Some(first) = requests.blocking_recv() else { break };
            let (group, close) = gather(first, &mut requests);
            writer.write(group);
            closing = close;
        }
        requests.close();
        writer.shared.hub.close();
        checkpointer.finish();
        let Writer { shared, .. } = writer;
        drop(shared);
        if let Some(done) = closing {
            // The caller may have given up waiting.
            done.send(()).ok();
        }
    })?;
    Ok(())
}

/// Takes what is queued, up to the bounds of a group.
fn gather(first: Message, requests: &mut mpsc::Receiver<Message>) -> (Vec<Request>, Option<oneshot::Sender<()>>) {
    let (mut group, mut changes, mut bytes) = (Vec::new(), 0, 0);
    let mut next = Some(first);
    loop {
        match next {
            Some(Message::Commit(request)) => {
                changes += request.changes.len();
                bytes += request.bytes;
                group.push(request);
            }
            Some(Message::Close(done)) => return (group, Some(done)),
            None => return (group, None),
        }
        if changes >= limits::GROUP_CHANGES || bytes >= limits::GROUP_BYTES {
            return (group, None);
        }
        next = requests.try_recv().ok();
    }
}

struct Writer {
    shared: Arc<Shared>,
    tables: Tables,
    reserved: u64,
}

/// What one request comes to.
#[derive(Default)]
struct Applied {
    events: Vec<Event>,
    log: Vec<store::Change>,
}

impl Writer {
    fn write(&mut self, group: Vec<Request>) {
        if group.is_empty() {
            return;
        }
        if let Some(error) = self.shared.failure() {
            answer_all(group, &StoreError::Failed(error));
            return;
        }
        let mut next = self.tables.clone();
        let mut accepted = Vec::with_capacity(group.len());
        let (mut log, mut events) = (Vec::new(), Vec::new());
        for request in group {
            let mut trial = next.clone();
            match apply(&mut trial, request.changes) {
                Err(refusal) => answer(request.reply, Err(refusal)),
                Ok(applied) => {
                    next = trial;
                    let objects = applied.events.iter().map(|e| e.object.clone()).collect();
                    accepted.push((request.reply, Commit { revision: next.revision(), objects }));
                    log.extend(applied.log);
                    events.extend(applied.events);
                }
            }
        }
        if let Err(error) = self.make_durable(&next, &log) {
            let error = Arc::new(error);
            let refusal = if matches!(*error, BackendError::Full { .. }) {
                StoreError::DiskFull(error)
            } else {
                self.shared.fail(&error);
                StoreError::Disk(error)
            };
            for (reply, _) in accepted {
                answer(reply, Err(refusal.clone()));
            }
            return;
        }
        if !log.is_empty() {
            self.shared.meters.group_commits.observe(accepted.len() as u64);
        }
        self.tables = next;
        self.shared.publish(Arc::new(self.tables.clone()));
        self.shared.hub.publish(&events, self.tables.revision());
        for (reply, commit) in accepted {
            answer(reply, Ok(commit));
        }
    }

    /// Returns when everything is on disk that must be before the group is acknowledged.
    fn make_durable(&mut self, next: &Tables, log: &[store::Change]) -> Result<(), BackendError> {
        if next.revision() > self.reserved {
            let reserve = next.revision() + limits::REVISIONS_AHEAD;
            self.shared.backend.reserve(reserve)?;
            self.reserved = reserve;
        }
        if log.is_empty() {
            return Ok(());
        }
        self.shared.pending.wait_for_room();
        let begun = Instant::now();
        let appended = self.shared.backend.append(log)?;
        self.shared.meters.sync_seconds.record(begun.elapsed());
        self.shared.meters.written_bytes.add(appended.bytes);
        // Published first, then marked dirty: the checkpointer reads in the opposite order, so its snapshot holds all that is marked.
        self.shared.publish(Arc::new(next.clone()));
        self.shared.pending.add(log, appended);
        Ok(())
    }
}

fn apply(tables: &mut Tables, changes: Vec<Change>) -> Result<Applied, StoreError> {
    let mut applied = Applied::default();
    for change in changes {
        let found = tables.get(&change.key).map(|o| o.meta.as_ref().map_or(0, |m| m.revision));
        let holds = match change.condition {
            Condition::None => true,
            Condition::Absent => found.is_none(),
            Condition::Revision(wanted) => found == Some(wanted),
        };
        if !holds {
            return Err(StoreError::Conflict { key: change.key, found });
        }
        let revision = tables.revision() + 1;
        let (object, deleted) = match change.op {
            Op::Put(mut object) => {
                object.meta.get_or_insert_default().revision = revision;
                let object = Arc::new(object);
                tables.put(change.key.clone(), object.clone());
                (object, false)
            }
            Op::Check => continue,
            Op::Delete => match tables.remove(&change.key) {
                None => continue,
                Some(last) => {
                    let mut last = Arc::unwrap_or_clone(last);
                    last.meta.get_or_insert_default().revision = revision;
                    (Arc::new(last), true)
                }
            },
        };
        tables.set_revision(revision);
        if change.durable || deleted {
            applied.log.push(record(&change.key, (!deleted).then_some(&object), revision));
        }
        applied.events.push(Event { revision, key: change.key, object, deleted });
    }
    Ok(applied)
}

fn record(key: &Key, object: Option<&Arc<Object>>, revision: u64) -> store::Change {
    store::Change {
        kind: key.kind.into(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        object: object.map(|o| (**o).clone()),
        revision,
    }
}

fn answer_all(group: Vec<Request>, error: &StoreError) {
    for request in group {
        answer(request.reply, Err(error.clone()));
    }
}

fn answer(reply: oneshot::Sender<Result<Commit, StoreError>>, result: Result<Commit, StoreError>) {
    // A caller that has gone away needs no answer; its change stands.
    reply.send(result).ok();
}
