//! Waits between tries: doubled, bounded, and never the same on two nodes.

use std::time::Duration;

/// The shortest wait.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The longest one: a controller that comes back after a long absence has its sessions again within it. A thousand agents knock 700 times a second
/// meanwhile, at a door that is shut.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The waits of one thing that is tried again and again.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait: half of it fixed, half of it random, so that a thousand agents do not come back at once.
    pub fn next_wait(&mut self) -> Duration {
        let whole = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        let random = uuid::Uuid::new_v4().as_u128() % 1000;
        let share = u32::try_from(random).unwrap_or(0);
        whole / 2 + whole / 2 * share / 1000
    }

    /// It went well: the next wait is the shortest again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_bounded_and_differ() {
        let mut waits = Vec::new();
        let mut backoff = Backoff::default();
        for _ in 0..40 {
            waits.push(backoff.next_wait());
        }
        assert!(waits[0] >= BACKOFF_FIRST / 2 && waits[0] <= BACKOFF_FIRST);
        assert!(waits.iter().all(|w| *w <= BACKOFF_MAX));
        assert!(waits[30..].iter().all(|w| *w >= BACKOFF_MAX / 2));
        assert!(waits[30..].iter().any(|w| *w != waits[30]));
        backoff.reset();
        assert!(backoff.next_wait() <= BACKOFF_FIRST);
    }
}
