//! What is known about names that nodes were asked for: under way, or failed and when to ask again.

use crate::sessions::ResolveError;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// The first wait before a name is asked for again; it doubles.
pub const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// The longest.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// Names that are remembered.
pub const NAMES_MAX: usize = 10_000;

/// What may be done about a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Ask now.
    Ask,
    /// A node is being asked.
    UnderWay,
    /// It failed lately.
    Failed(ResolveError),
}

#[derive(Debug)]
struct Known {
    under_way: bool,
    failures: u32,
    failed: Option<(ResolveError, Instant)>,
}

/// The names.
#[derive(Debug, Default)]
pub struct Answers {
    names: HashMap<String, Known>,
}

impl Answers {
    /// What may be done about a name now.
    pub fn of(&self, name: &str, now: Instant) -> Answer {
        match self.names.get(name) {
            None => Answer::Ask,
            Some(known) if known.under_way => Answer::UnderWay,
            Some(Known { failed: Some((error, retry)), .. }) if *retry > now => Answer::Failed(error.clone()),
            Some(_) => Answer::Ask,
        }
    }

    /// A node is being asked.
    pub fn under_way(&mut self, name: &str) {
        let known = self.names.entry(name.to_owned()).or_insert(Known { under_way: true, failures: 0, failed: None });
        known.under_way = true;
    }

    /// It was answered.
    pub fn succeeded(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// It was not; the wait before it is asked again doubles with every failure.
    pub fn failed(&mut self, name: &str, error: ResolveError, now: Instant) {
        if self.names.len() >= NAMES_MAX {
            self.names.retain(|_, known| known.under_way || known.failed.as_ref().is_some_and(|(_, at)| *at > now));
        }
        let known = self.names.entry(name.to_owned()).or_insert(Known { under_way: false, failures: 0, failed: None });
        let wait = BACK_OFF_MIN.saturating_mul(1 << known.failures.min(6)).min(BACK_OFF_MAX);
        known.failures = known.failures.saturating_add(1);
        known.under_way = false;
        known.failed = Some((error, now + wait));
    }

    /// When the next name may be asked for again.
    pub fn next_retry(&self) -> Option<Instant> {
        self.names.values().filter(|k| !k.under_way).filter_map(|k| k.failed.as_ref().map(|(_, at)| *at)).min()
    }

    /// The names that may be asked for again; each is told once.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        for (name, known) in &mut self.names {
            if !known.under_way && known.failed.as_ref().is_some_and(|(_, at)| *at <= now) {
                known.failed = None;
                due.push(name.clone());
            }
        }
        due
    }

    /// Forgets what failed for this reason; answers the names.
    pub fn forget(&mut self, reason: &str) -> Vec<String> {
        let is_it = |known: &Known| !known.under_way && known.failed.as_ref().is_some_and(|(e, _)| e.reason == reason);
        let names: Vec<String> = self.names.iter().filter(|(_, k)| is_it(k)).map(|(n, _)| n.clone()).collect();
        for name in &names {
            self.names.remove(name);
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_asked_again_later_and_later() {
        let (mut answers, mut now) = (Answers::default(), Instant::now());
        let error = ResolveError { reason: "RegistryUnreachable".into(), message: "no route".into() };
        for wait_s in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(answers.of("a", now), Answer::Ask);
            answers.under_way("a");
            assert_eq!(answers.of("a", now), Answer::UnderWay);
            assert_eq!(answers.next_retry(), None);
            answers.failed("a", error.clone(), now);
            let almost = now + Duration::from_secs(wait_s) - Duration::from_millis(1);
            assert_eq!(answers.of("a", almost), Answer::Failed(error.clone()), "{wait_s} s");
            assert!(answers.due(almost).is_empty());
            now += Duration::from_secs(wait_s);
            assert_eq!(answers.next_retry(), Some(now));
            assert_eq!(answers.due(now), ["a"]);
        }
        answers.under_way("a");
        answers.succeeded("a");
        assert_eq!(answers.of("a", now), Answer::Ask);
        answers.failed("b", ResolveError { reason: "NoNodes".into(), message: String::new() }, now);
        assert_eq!(answers.forget("NoNodes"), ["b"]);
        assert_eq!(answers.of("b", now), Answer::Ask);
    }
}
