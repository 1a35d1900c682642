//! When a cron workload makes its next job, and which of its finished jobs go.

mod schedule;

pub use schedule::{Clock, Schedule};

use alloc::{format, string::String, vec::Vec};
use strata_model::{Concurrency, CronPolicy, Millis};

/// One job that a cron workload has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Of the job.
    pub name: String,
    /// When it was made.
    pub created: Millis,
    /// `None`: it runs. Else whether it succeeded.
    pub succeeded: Option<bool>,
}

/// What to do about a cron workload now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CronPlan {
    /// Make the job of this time, in minutes since 1970.
    pub make: Option<u64>,
    /// The newest time that has been dealt with, by making its job or by missing it.
    pub last_scheduled: Millis,
    /// Jobs that go.
    pub remove: Vec<String>,
    /// Why the run that was due was not made.
    pub missed: Option<String>,
    /// When to look again.
    pub wake: Option<Millis>,
}

/// The schedule and the clock it is read by.
///
/// # Errors
/// A sentence for people.
pub fn read(policy: &CronPolicy) -> Result<(Schedule, Clock), String> {
    let schedule = Schedule::parse(&policy.schedule).map_err(|why| format!("schedule {:?}: {why}", policy.schedule))?;
    Ok((schedule, Clock::of(&policy.time_zone)?))
}

/// Plans. Of several times that have passed since `last` only the newest counts.
///
/// # Errors
/// The schedule or time zone cannot be read.
pub fn plan_cron(policy: &CronPolicy, last: Millis, runs: &[Run], now: Millis) -> Result<CronPlan, String> {
    let (schedule, clock) = read(policy)?;
    let mut plan = CronPlan { last_scheduled: last, ..CronPlan::default() };
    plan.remove = finished_beyond(runs, true, policy.keep_succeeded);
    plan.remove.extend(finished_beyond(runs, false, policy.keep_failed));
    if policy.suspend {
        return Ok(plan);
    }
    let minute = |ms: Millis| ms / 60_000;
    plan.wake = schedule.next_after(&clock, minute(now)).map(|m| m * 60_000);
    let Some(due) = schedule.latest(&clock, minute(last), minute(now)) else { return Ok(plan) };
    plan.last_scheduled = due * 60_000;
    let late = now.saturating_sub(plan.last_scheduled);
    if policy.starting_deadline_ms > 0 && late > policy.starting_deadline_ms {
        plan.missed = Some(format!("its time was {} s ago, later than startingDeadlineS allows", late / 1000));
        return Ok(plan);
    }
    let active: Vec<&Run> = runs.iter().filter(|r| r.succeeded.is_none()).collect();
    match (policy.concurrency, active.first()) {
        (Concurrency::Forbid, Some(run)) => {
            plan.missed = Some(format!("{} still runs, and concurrency is Forbid", run.name));
            return Ok(plan);
        }
        (Concurrency::Replace, Some(_)) => plan.remove.extend(active.iter().map(|r| r.name.clone())),
        _ => {}
    }
    plan.make = Some(due);
    Ok(plan)
}

/// All but the newest of those that ended so.
fn finished_beyond(runs: &[Run], succeeded: bool, keep: u32) -> Vec<String> {
    let mut ended: Vec<&Run> = runs.iter().filter(|r| r.succeeded == Some(succeeded)).collect();
    ended.sort_by_key(|r| core::cmp::Reverse(r.created));
    ended.into_iter().skip(keep as usize).map(|r| r.name.clone()).collect()
}
