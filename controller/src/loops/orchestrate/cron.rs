//! Cron workloads: makes the job of each time, and removes the jobs that nobody wants any more.

use crate::{
    control::Control,
    edit::{Keep, changed, created},
    objects::{meta, new_meta, workload_status, workload_status_mut},
    sessions::events,
};
use std::sync::Arc;
use strata_model::{CronPolicy, Millis, Workload};
use strata_orchestrator::{
    JOB_COMPLETE,
    cron::{Run, plan_cron},
};
use strata_proto::{
    timestamp_ms, timestamp_now, timestamp_of_ms,
    types::{self, Kind, Meta, Object, WorkloadSpec, event_spec::Severity, object, workload_spec::Mode},
};
use strata_store::{Change, Condition, Key, Snapshot};

/// What is done about one cron workload.
pub(super) struct CronChanges {
    pub changes: Vec<Change>,
    /// When to look again.
    pub wake: Option<Millis>,
    missed: Option<String>,
    made: Option<String>,
}

/// The workloads that this one made.
pub(super) fn children(snapshot: &Snapshot, cron: &Object) -> Vec<Arc<Object>> {
    let (namespace, name) = (&meta(cron).namespace, &meta(cron).name);
    snapshot.list(Kind::Workload, Some(namespace)).filter(|o| meta(o).owner == *name).collect()
}

/// Plans for a cron workload.
pub(super) fn plan(snapshot: &Snapshot, object: &Object, workload: &Workload, now: Millis) -> CronChanges {
    let jobs = children(snapshot, object);
    let mut done = CronChanges { changes: Vec::new(), wake: None, missed: None, made: None };
    if workload.deleting {
        done.changes.extend(jobs.iter().filter(|j| meta(j).deleted.is_none()).map(|j| deleted(j)));
        if jobs.is_empty() {
            done.changes.push(Change::delete(Key::of(object), Condition::Revision(meta(object).revision)));
        }
        return done;
    }
    let Some(policy) = &workload.cron else { return done };
    let runs: Vec<Run> = jobs.iter().filter(|j| meta(j).deleted.is_none()).map(|j| run(j)).collect();
    let mut updated = object.clone();
    let Some(status) = workload_status_mut(&mut updated) else { return done };
    status.observed_generation = workload.generation;
    status.replicas = u32::try_from(runs.iter().filter(|r| r.succeeded.is_none()).count()).unwrap_or(u32::MAX);
    // A schedule begins with the workload: what was before it was never missed.
    let last = workload.last_scheduled.max(workload.created);
    match plan_cron(policy, last, &runs, now) {
        Err(why) => (status.reason, status.message) = ("BadSchedule".to_owned(), why),
        Ok(plan) => {
            status.reason.clear();
            status.message.clear();
            if plan.last_scheduled != last {
                status.last_scheduled = Some(timestamp_of_ms(plan.last_scheduled));
            }
            if let Some(job) = plan.make.and_then(|minute| job(object, minute)) {
                let key = Key::of(&job);
                if snapshot.get(&key).is_none() {
                    done.made = Some(key.name.clone());
                    done.changes.push(created(job));
                }
            }
            let removed = jobs.iter().filter(|j| meta(j).deleted.is_none() && plan.remove.contains(&meta(j).name));
            done.changes.extend(removed.map(|j| deleted(j)));
            done.wake = plan.wake;
            done.missed = plan.missed;
        }
    }
    if workload_status(&updated) != workload_status(object) {
        let durable = workload_status(&updated).last_scheduled != workload_status(object).last_scheduled;
        done.changes.push(changed(updated, if durable { Keep::Durable } else { Keep::Volatile }));
    }
    done
}

/// Tells people what came of it.
pub(super) async fn tell(control: &Control, object: &Object, done: &CronChanges) {
    if let Some(name) = &done.made {
        events::about(control, object, Severity::Normal, "JobMade", &format!("made job {name}")).await;
    }
    if let Some(why) = &done.missed {
        events::about(control, object, Severity::Warning, "JobMissed", why).await;
    }
}

/// The schedule and time zone can be read.
///
/// # Errors
/// A sentence for people.
pub fn check(policy: &CronPolicy) -> Result<(), String> {
    strata_orchestrator::cron::read(policy).map(drop)
}

/// The change that marks a workload for removal.
pub(super) fn deleted(object: &Object) -> Change {
    let mut object = object.clone();
    object.meta.get_or_insert_default().deleted = Some(timestamp_now());
    changed(object, Keep::Durable)
}

fn run(job: &Object) -> Run {
    let status = workload_status(job);
    Run {
        name: meta(job).name.clone(),
        created: timestamp_ms(meta(job).created.as_ref()),
        succeeded: status.finished.is_some().then(|| status.reason == JOB_COMPLETE),
    }
}

/// The job of a time.
fn job(cron: &Object, minute: u64) -> Option<Object> {
    let Some(object::Kind::Workload(workload)) = &cron.kind else { return None };
    let spec = workload.spec.as_ref()?;
    let of = meta(cron);
    let meta = Meta {
        labels: of.labels.clone(),
        owner: of.name.clone(),
        trace_parent: of.trace_parent.clone(),
        ..new_meta(&of.namespace, &format!("{}-{minute}", of.name))
    };
    let spec = WorkloadSpec {
        mode: Mode::Job.into(),
        template: spec.template.clone(),
        job: spec.job,
        ..WorkloadSpec::default()
    };
    Some(Object {
        meta: Some(meta),
        kind: Some(object::Kind::Workload(types::Workload { spec: Some(spec), status: None })),
    })
}
