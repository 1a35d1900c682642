//! Pods that come to an end.

use super::*;
use strata_model::JobPolicy;

const JOB: JobPolicy = JobPolicy { completions: 3, parallelism: 2, backoff_limit: 1, deadline_ms: 0, ttl_ms: None };

fn job(policy: JobPolicy) -> Workload {
    let mut w = workload(Mode::Job(policy), "a");
    w.template.restart_policy = RestartPolicy::Never;
    w
}

/// succeeded/failed and how it ended.
fn state(plan: &Plan) -> String {
    let job = plan.job.clone().unwrap();
    let end = job.end.map(|e| if e.complete { " complete".to_owned() } else { format!(" {}", e.message) });
    format!("{}/{}{}", job.succeeded, job.failed, end.unwrap_or_default())
}

#[test]
fn as_many_at_once_as_are_wanted_and_still_needed() {
    let w = job(JOB);
    check(&w, "", "n1", "+0 +1");
    check(&w, "0a@n1:run 1a@n1:run", "n1", "");
    check(&w, "0a@n1:exit 1a@n1:run", "n1", "+2");
    check(&w, "0a@n1:exit 1a@n1:exit 2a@n1:run", "n1", "");
    let plan = run(&w, "0a@n1:exit 1a@n1:exit 2a@n1:exit", "n1", 1_000_000);
    assert_eq!((text(&plan).as_str(), state(&plan).as_str()), ("", "3/0 complete"));
    // Its record stays until the job goes, so that nothing is counted twice or forgotten.
    let many: String = (0..9).map(|i| format!("{i}a@n1:exit ")).collect();
    check(&job(JobPolicy { completions: 10, ..JOB }), &many, "n1", "+9");
}

#[test]
fn failures_are_tried_again_later_and_later_up_to_the_limit() {
    let w = job(JOB);
    assert_eq!(text(&run(&w, "0a@n1:fail", "n1", 10)), "wake 1000");
    assert_eq!(text(&run(&w, "0a@n1:fail", "n1", 1_000)), "+1 +2");
    // A pod that was lost with its node is nobody's failure.
    let plan = run(&w, "0a@n1:lost 1a@n2:fail", "n1x n2", 1_000_000);
    assert_eq!((text(&plan).as_str(), state(&plan).as_str()), ("+2 +3", "0/1"));
    let plan = run(&w, "0a@n1:fail 1a@n1:fail 2a@n1:run", "n1", 1_000_000);
    assert!(state(&plan).starts_with("0/2 BackoffLimitExceeded"), "{}", state(&plan));
    // Restarts in place count, too.
    let mut restarted = pod("0a@n1:run");
    restarted.restarts = 2;
    let input = Input { workload: &w, pods: &[restarted], replaced: &BTreeSet::new(), nodes: &[node("n1")], now: 1 };
    assert!(state(&plan_of(input)).contains("BackoffLimitExceeded"));
}

fn plan_of(input: Input<'_>) -> Plan {
    plan(input)
}

#[test]
fn a_deadline_ends_it_and_what_still_runs_goes() {
    let mut w = job(JobPolicy { deadline_ms: 5_000, ttl_ms: Some(1_000), ..JOB });
    assert_eq!(text(&run(&w, "0a@n1:run 1a@n1:run", "n1", 10)), "wake 5000");
    let plan = run(&w, "0a@n1:run 1a@n1:run", "n1", 5_000);
    assert!(state(&plan).contains("DeadlineExceeded"), "{}", state(&plan));
    w.finished = Some(5_000);
    let plan = run(&w, "0a@n1:run 1a@n1:exit", "n1", 5_500);
    assert_eq!(text(&plan), "-0 wake 6000");
    assert!(!plan.job.unwrap().expired);
    assert!(run(&w, "1a@n1:exit", "n1", 6_000).job.unwrap().expired);
}
