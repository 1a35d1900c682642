//! How jobs run, and when.

use crate::{convert::BadObject, types as wire};
use strata_model::{Concurrency, CronPolicy, JobPolicy, Millis, limits};

const BACKOFF_LIMIT: u32 = 6;
const KEEP_SUCCEEDED: u32 = 3;
const KEEP_FAILED: u32 = 1;

pub(super) fn job(job: Option<&wire::JobPolicy>) -> Result<JobPolicy, BadObject> {
    let job = job.copied().unwrap_or_default();
    if job.completions > limits::COMPLETIONS_MAX {
        return Err(BadObject::new("spec.job.completions", format!("at most {}", limits::COMPLETIONS_MAX)));
    }
    let ms = |seconds: u32| Millis::from(seconds) * 1000;
    Ok(JobPolicy {
        completions: job.completions.max(1),
        parallelism: job.parallelism.max(1),
        backoff_limit: job.backoff_limit.unwrap_or(BACKOFF_LIMIT),
        deadline_ms: ms(job.deadline_s),
        ttl_ms: job.ttl_s.map(ms),
    })
}

/// Whether the schedule can be read is for the controller to say.
pub(super) fn cron(spec: &wire::WorkloadSpec) -> Result<Option<CronPolicy>, BadObject> {
    if spec.mode() != wire::workload_spec::Mode::Cron {
        return Ok(None);
    }
    let cron = spec.cron.as_ref().ok_or_else(|| BadObject::new("spec.cron", "is missing: when should it run?"))?;
    if cron.schedule.trim().is_empty() {
        return Err(BadObject::new("spec.cron.schedule", "is missing: five fields as in \"*/5 * * * *\", or @daily"));
    }
    Ok(Some(CronPolicy {
        schedule: cron.schedule.clone(),
        time_zone: cron.time_zone.clone(),
        concurrency: match cron.concurrency() {
            wire::cron_policy::Concurrency::Allow => Concurrency::Allow,
            wire::cron_policy::Concurrency::Forbid => Concurrency::Forbid,
            wire::cron_policy::Concurrency::Replace => Concurrency::Replace,
        },
        suspend: cron.suspend,
        starting_deadline_ms: Millis::from(cron.starting_deadline_s) * 1000,
        keep_succeeded: cron.keep_succeeded.unwrap_or(KEEP_SUCCEEDED),
        keep_failed: cron.keep_failed.unwrap_or(KEEP_FAILED),
    }))
}
