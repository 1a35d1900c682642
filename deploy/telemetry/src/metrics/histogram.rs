//! Counting latencies as they happen, without locks.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets, microseconds; what is longer falls into one more bucket.
pub const LATENCY_BOUNDS_US: &[u64; 15] = &[
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000,
    10_000_000, 60_000_000,
];

const BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// How often something took how long since the process started.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// The counts of the buckets, each without those before it, and the sum in microseconds.
    #[must_use]
    pub fn read(&self) -> ([u64; BUCKETS], u64) {
        (std::array::from_fn(|i| self.counts.get(i).map_or(0, |c| c.load(Relaxed))), self.sum_us.load(Relaxed))
    }
}
