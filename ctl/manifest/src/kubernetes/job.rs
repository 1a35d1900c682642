//! `batch/v1` Job and CronJob.

use strata_proto::types::{
    self, CronPolicy, JobPolicy, WorkloadSpec, cron_policy::Concurrency, object::Kind, pod_template::RestartPolicy,
    workload_spec::Mode,
};

use super::{SERVER, TOP, meta, workload};
use crate::{
    at::At,
    read::fields,
    report::Report,
    table::{
        Class::{NoEffect, NotYet, Only, Read},
        Table,
    },
    tree::Node,
};

const JOB: Table = &[
    ("template", Read),
    ("completions", Read),
    ("parallelism", Read),
    ("backoffLimit", Read),
    ("activeDeadlineSeconds", Read),
    ("ttlSecondsAfterFinished", Read),
    ("completionMode", Only(&["NonIndexed"])),
    ("selector", NoEffect(SERVER)),
    ("manualSelector", NoEffect("a job's pods carry its name")),
    ("podReplacementPolicy", Only(&["TerminatingOrFailed"])),
    ("backoffLimitPerIndex", NotYet),
    ("managedBy", NotYet),
    ("maxFailedIndexes", NotYet),
    ("podFailurePolicy", NotYet),
    ("successPolicy", NotYet),
    ("suspend", NotYet),
];

const CRON: Table = &[
    ("schedule", Read),
    ("timeZone", Read),
    ("jobTemplate", Read),
    ("concurrencyPolicy", Read),
    ("suspend", Read),
    ("startingDeadlineSeconds", Read),
    ("successfulJobsHistoryLimit", Read),
    ("failedJobsHistoryLimit", Read),
];
const JOB_TEMPLATE: Table = &[("metadata", Read), ("spec", Read)];

const CONCURRENCY: &[(&str, Concurrency)] =
    &[("Allow", Concurrency::Allow), ("Forbid", Concurrency::Forbid), ("Replace", Concurrency::Replace)];

/// Bounds of the numbers.
const PODS_MAX: u32 = 100_000;
const SECONDS_MAX: u32 = 86_400 * 365;

/// A `batch/v1` Job.
pub(crate) fn job(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    let top = fields(root, at, TOP, report)?;
    let meta = meta::object(&top, true, report);
    let spec = job_spec(top.require("spec", report)?, at.field("spec"), report)?;
    let kind = Kind::Workload(types::Workload { spec: Some(spec), status: None });
    Some(types::Object { meta: Some(meta?), kind: Some(kind) })
}

/// A `batch/v1` CronJob: each run is a job.
pub(crate) fn cron_job(root: &Node, at: At<'_>, report: &mut Report) -> Option<types::Object> {
    let top = fields(root, at, TOP, report)?;
    let meta = meta::object(&top, true, report);
    let here = at.field("spec");
    let spec = fields(top.require("spec", report)?, here, CRON, report)?;
    spec.require("schedule", report);
    let cron = CronPolicy {
        schedule: spec.text("schedule", report).unwrap_or_default(),
        time_zone: spec.text("timeZone", report).unwrap_or_default(),
        concurrency: spec.word("concurrencyPolicy", CONCURRENCY, report).unwrap_or_default().into(),
        suspend: spec.flag("suspend", report).unwrap_or_default(),
        starting_deadline_s: spec.number("startingDeadlineSeconds", SECONDS_MAX, report).unwrap_or_default(),
        keep_succeeded: spec.number("successfulJobsHistoryLimit", PODS_MAX, report),
        keep_failed: spec.number("failedJobsHistoryLimit", PODS_MAX, report),
    };
    let here = here.field("jobTemplate");
    let template = fields(spec.require("jobTemplate", report)?, here, JOB_TEMPLATE, report)?;
    // Labels of the jobs; they are found by their owner, so that the cron's own serve.
    let labels = meta::template(&template, report);
    let job = job_spec(template.require("spec", report)?, here.field("spec"), report)?;
    let spec = WorkloadSpec { cron: Some(cron), mode: Mode::Cron.into(), ..job };
    let kind = Kind::Workload(types::Workload { spec: Some(spec), status: None });
    let mut meta = meta?;
    for (key, value) in labels.labels {
        meta.labels.entry(key).or_insert(value);
    }
    Some(types::Object { meta: Some(meta), kind: Some(kind) })
}

fn job_spec(node: &Node, at: At<'_>, report: &mut Report) -> Option<WorkloadSpec> {
    let spec = fields(node, at, JOB, report)?;
    let job = JobPolicy {
        completions: spec.number("completions", PODS_MAX, report).unwrap_or_default(),
        parallelism: spec.number("parallelism", PODS_MAX, report).unwrap_or_default(),
        backoff_limit: spec.number("backoffLimit", PODS_MAX, report),
        deadline_s: spec.number("activeDeadlineSeconds", SECONDS_MAX, report).unwrap_or_default(),
        ttl_s: spec.number("ttlSecondsAfterFinished", SECONDS_MAX, report),
    };
    for (name, why) in [
        ("completions", "a job that needs no pod is not supported: leave it out"),
        ("parallelism", "0 would suspend the job, which is not supported yet"),
    ] {
        if let Some(node) = spec.get(name).filter(|n| n.scalar() == Some("0")) {
            report.error(node.pos, at.field(name), why);
        }
    }
    if let Some(node) = spec.get("parallelism").filter(|_| job.parallelism > 1 && spec.get("completions").is_none()) {
        let message = "without `completions` the pods would share a work queue, which is not supported yet: say how many must succeed";
        report.error(node.pos, at.field("parallelism"), message);
    }
    let here = at.field("template");
    let (restart, template) = workload::template_of(spec.require("template", report)?, here, &[], report)?;
    if template.restart_policy() == RestartPolicy::Always {
        let message = "the pods of a job restart OnFailure or Never";
        report.error(restart, here.field("spec").field("restartPolicy"), message);
    }
    Some(WorkloadSpec { job: Some(job), template: Some(template), ..workload::of_mode(Mode::Job) })
}
