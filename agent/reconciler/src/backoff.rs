//! How long a failed thing waits before it is tried again.

use strata_model::Millis;

/// The wait after the first failure.
pub const BACKOFF_FIRST_MS: Millis = 1_000;
/// The longest wait.
pub const BACKOFF_MAX_MS: Millis = 300_000;
/// A run of this length forgives all failures before it.
pub const RUN_RESETS_BACKOFF_MS: Millis = 600_000;

/// The wait after `failures` failures in a row (from 1): 1 s, doubled each time, at most 300 s. None after 0.
#[must_use]
pub fn delay_ms(failures: u32) -> Millis {
    match failures {
        0 => 0,
        n => BACKOFF_FIRST_MS
            .checked_shl(n - 1)
            .filter(|d| *d >= BACKOFF_FIRST_MS)
            .unwrap_or(BACKOFF_MAX_MS)
            .min(BACKOFF_MAX_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        for (failures, want) in [
            (0, 0),
            (1, 1_000),
            (2, 2_000),
            (3, 4_000),
            (9, 256_000),
            (10, 300_000),
            (55, 300_000),
            (63, 300_000),
            (64, 300_000),
            (u32::MAX, 300_000),
        ] {
            assert_eq!(delay_ms(failures), want, "after {failures} failures");
        }
    }
}
