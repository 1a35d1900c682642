//! Counting as things happen, without locks.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets of latencies, microseconds; what is longer falls into one more bucket.
pub const LATENCY_BOUNDS_US: &[u64; BOUNDS] = &[
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000,
    10_000_000, 60_000_000,
];
/// Upper bounds of the buckets of sizes.
pub const SIZE_BOUNDS: &[u64; BOUNDS] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384];

const BOUNDS: usize = 15;
const BUCKETS: usize = BOUNDS + 1;

/// What only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts several.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How often something took how long, or had which size, since the process started.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64; BOUNDS],
    /// How many of the units of `bounds` make one base unit.
    per_unit: u32,
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::latencies()
    }
}

impl Histogram {
    /// Of durations: [`LATENCY_BOUNDS_US`].
    #[must_use]
    pub fn latencies() -> Self {
        Self { bounds: LATENCY_BOUNDS_US, per_unit: 1_000_000, counts: Default::default(), sum: AtomicU64::default() }
    }

    /// Of numbers: [`SIZE_BOUNDS`].
    #[must_use]
    pub fn sizes() -> Self {
        Self { bounds: SIZE_BOUNDS, per_unit: 1, counts: Default::default(), sum: AtomicU64::default() }
    }

    /// Counts one duration.
    pub fn record(&self, took: Duration) {
        self.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts one value, in the unit of the bounds.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(value, Relaxed);
    }

    /// The buckets from the smallest on: upper bound in base units (infinity for the last) and how many were at most that.
    /// Then the sum of all in base units.
    #[must_use]
    pub fn read(&self) -> (Vec<(f64, u64)>, f64) {
        let mut total = 0;
        let bounds = self.bounds.iter().map(|b| self.base(*b)).chain([f64::INFINITY]);
        let buckets = bounds.zip(&self.counts).map(|(bound, count)| {
            total += count.load(Relaxed);
            (bound, total)
        });
        (buckets.collect(), self.base(self.sum.load(Relaxed)))
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 microseconds, which are 285 years")]
    fn base(&self, value: u64) -> f64 {
        value as f64 / f64::from(self.per_unit)
    }
}
