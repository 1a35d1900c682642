//! When cron workloads run.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use strata_model::{Concurrency, CronPolicy};
use strata_orchestrator::cron::{Clock, Run, Schedule, plan_cron};

/// 2026-03-01T00:00:00Z, a Sunday, in minutes.
const MARCH: u64 = 29_538_720;

/// Minutes since the beginning of March at which the schedule's next times are.
fn next(schedule: &str, zone: &str, count: usize) -> Vec<u64> {
    let (schedule, clock) = (Schedule::parse(schedule).unwrap(), Clock::of(zone).unwrap());
    let mut at = MARCH - 1;
    (0..count)
        .map(|_| {
            at = schedule.next_after(&clock, at).unwrap();
            at - MARCH
        })
        .collect()
}

const DAY: u64 = 24 * 60;

#[test]
fn the_fields_mean_what_cron_says() {
    for (schedule, expected) in [
        ("* * * * *", vec![0, 1, 2]),
        ("*/20 * * * *", vec![0, 20, 40, 60]),
        ("5-7,30 3 * * *", vec![185, 186, 187, 210, DAY + 185]),
        ("0 12 * * mon-fri", vec![DAY + 720, 2 * DAY + 720]),
        ("0 0 * * 7", vec![0, 7 * DAY]),
        ("0 0 13 * 5", vec![5 * DAY, 12 * DAY, 19 * DAY]),
        ("0 0 1 jan *", vec![306 * DAY]),
        ("0 0 29 2 *", vec![730 * DAY]),
        ("@hourly", vec![0, 60]),
        ("@weekly", vec![0, 7 * DAY]),
        ("50/5 * * * *", vec![50, 55, 110]),
    ] {
        let got = next(schedule, "", expected.len());
        assert_eq!(got, expected, "{schedule}");
    }
    for bad in [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "0 0 31 2 *",
        "5-3 * * * *",
        "*/0 * * * *",
        "@often",
        "x * * * *",
    ] {
        assert!(Schedule::parse(bad).is_err(), "{bad}");
    }
    assert!(Clock::of("Nowhere/City").is_err());
}

#[test]
fn the_clock_of_the_zone_counts_and_its_changes_neither_double_nor_invent() {
    assert_eq!(next("0 9 * * *", "Asia/Tokyo", 1), [0]);
    assert_eq!(next("30 5 * * *", "Asia/Kolkata", 1), [0]);
    // On 29 March 2026 Berlin's clocks go from 2:00 to 3:00: 2:30 is left out.
    let at = next("30 2 * * *", "Europe/Berlin", 30);
    assert!(
        at.contains(&(27 * DAY + 90)) && !at.iter().any(|m| m / DAY == 28) && at.contains(&(29 * DAY + 30)),
        "{at:?}"
    );
    // On 25 October they go back from 3:00 to 2:00: 2:30 counts once, every minute counts.
    let (schedule, clock) = (Schedule::parse("30 2 * * *").unwrap(), Clock::of("Europe/Berlin").unwrap());
    let october = MARCH + 237 * DAY;
    let first = schedule.next_after(&clock, october).unwrap();
    let second = schedule.next_after(&clock, first).unwrap();
    assert!(second - first >= 23 * 60, "{first} {second}");
    let every = Schedule::parse("30 * * * *").unwrap();
    let twice = every.next_after(&clock, first).unwrap();
    assert_eq!(twice - first, 60);
}

fn policy(schedule: &str) -> CronPolicy {
    CronPolicy {
        schedule: schedule.into(),
        time_zone: String::new(),
        concurrency: Concurrency::Allow,
        suspend: false,
        starting_deadline_ms: 0,
        keep_succeeded: 1,
        keep_failed: 1,
    }
}

fn run(name: &str, created: u64, succeeded: Option<bool>) -> Run {
    Run { name: name.into(), created, succeeded }
}

#[test]
fn of_all_the_times_that_were_missed_one_is_made_up_for() {
    let now = (MARCH + 600) * 60_000 + 5_000;
    let plan = plan_cron(&policy("*/5 * * * *"), MARCH * 60_000, &[], now).unwrap();
    assert_eq!(plan.make, Some(MARCH + 600));
    assert_eq!(plan.wake, Some((MARCH + 605) * 60_000));
    let again = plan_cron(&policy("*/5 * * * *"), plan.last_scheduled, &[], now).unwrap();
    assert_eq!((again.make, again.wake), (None, plan.wake));
    let late = CronPolicy { starting_deadline_ms: 10_000, ..policy("*/5 * * * *") };
    assert_eq!(plan_cron(&late, MARCH * 60_000, &[], now).unwrap().make, Some(MARCH + 600));
    let plan = plan_cron(&late, MARCH * 60_000, &[], now + 60_000).unwrap();
    assert!(plan.make.is_none() && plan.missed.is_some() && plan.last_scheduled == (MARCH + 600) * 60_000);
    let suspended = CronPolicy { suspend: true, ..policy("*/5 * * * *") };
    assert_eq!(plan_cron(&suspended, MARCH * 60_000, &[], now).unwrap().make, None);
}

#[test]
fn what_a_run_finds_still_running_is_dealt_with_as_wanted() {
    let now = (MARCH + 1) * 60_000;
    let runs = [run("old", 1, None)];
    for (concurrency, makes, removes) in [
        (Concurrency::Allow, true, vec![]),
        (Concurrency::Forbid, false, vec![]),
        (Concurrency::Replace, true, vec!["old".to_owned()]),
    ] {
        let policy = CronPolicy { concurrency, ..policy("* * * * *") };
        let plan = plan_cron(&policy, MARCH * 60_000, &runs, now).unwrap();
        assert_eq!((plan.make.is_some(), plan.remove), (makes, removes), "{concurrency:?}");
        assert_eq!(plan.missed.is_some(), concurrency == Concurrency::Forbid);
    }
}

#[test]
fn the_newest_finished_jobs_are_kept() {
    let runs = [
        run("a", 1, Some(true)),
        run("b", 2, Some(true)),
        run("c", 3, Some(false)),
        run("d", 4, Some(false)),
        run("e", 5, None),
    ];
    let plan = plan_cron(&policy("@yearly"), MARCH * 60_000, &runs, MARCH * 60_000).unwrap();
    assert_eq!(plan.remove, ["a", "c"]);
}

proptest! {
    /// Looking back finds what looking ahead would have come to last.
    #[test]
    fn back_and_forth_agree(
        minute in 0u32..60, hour in 0u32..24, step in 1u32..6, from in 0u64..400_000, span in 1u64..5_000,
        zone in prop_oneof![Just(""), Just("Europe/Berlin"), Just("America/New_York"), Just("Australia/Lord_Howe")],
    ) {
        let text = if hour < 12 { format!("{minute} {hour} */{step} * *") } else { format!("{minute} */{step} * * *") };
        let (schedule, clock) = (Schedule::parse(&text).unwrap(), Clock::of(zone).unwrap());
        let (from, until) = (MARCH + from, MARCH + from + span);
        let mut last = None;
        let mut at = from;
        while let Some(next) = schedule.next_after(&clock, at).filter(|n| *n <= until) {
            last = Some(next);
            at = next;
        }
        prop_assert_eq!(schedule.latest(&clock, from, until), last, "{} in {:?}", text, zone);
    }
}
