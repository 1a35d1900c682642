//! Writing the text.

use super::{Histogram, LATENCY_BOUNDS_US, Metric, Type};
use std::fmt::Write as _;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text as it grows. Each metric is written once, with all its values.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// A metric with one value.
    pub fn value(&mut self, metric: Metric, value: u64) {
        self.head(metric);
        self.line(metric.name, "", value);
    }

    /// A metric with a value per word of one label.
    pub fn by<W: AsRef<str>>(&mut self, metric: Metric, label: &str, values: impl IntoIterator<Item = (W, u64)>) {
        self.head(metric);
        for (word, value) in values {
            let word = word.as_ref().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.line(metric.name, &format!("{{{label}=\"{word}\"}}"), value);
        }
    }

    /// A histogram, its bounds and sum in seconds.
    pub fn histogram(&mut self, metric: Metric, histogram: &Histogram) {
        self.head(metric);
        let (counts, sum_us) = histogram.read();
        let bucket = format!("{}_bucket", metric.name);
        let mut total = 0;
        for (count, bound) in counts.iter().zip(LATENCY_BOUNDS_US) {
            total += count;
            self.line(&bucket, &format!("{{le=\"{}\"}}", seconds(*bound)), total);
        }
        total += counts.last().copied().unwrap_or_default();
        self.line(&bucket, "{le=\"+Inf\"}", total);
        self.line(&format!("{}_sum", metric.name), "", seconds(sum_us));
        self.line(&format!("{}_count", metric.name), "", total);
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, metric: Metric) {
        let word = match metric.of {
            Type::Gauge => "gauge",
            Type::Counter => "counter",
            Type::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        write!(self.text, "# HELP {0} {1}\n# TYPE {0} {word}\n", metric.name, metric.help).ok();
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        writeln!(self.text, "{name}{labels} {value}").ok();
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 microseconds, which are 285 years")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;
    use std::time::Duration;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut text = Exposition::default();
        text.value(metrics::AGENT_LAYERS, 3);
        text.by(metrics::AGENT_PODS, "phase", [("Running", 2), ("a\"\\\nb", 1)]);
        let latency = Histogram::default();
        for us in [400, 1_500, 90_000_000] {
            latency.record(Duration::from_micros(us));
        }
        text.histogram(metrics::CONTROLLER_COMMIT_SECONDS, &latency);
        let text = text.finish();
        for line in [
            "# TYPE strata_agent_layers gauge",
            "strata_agent_layers 3",
            "strata_agent_pods{phase=\"Running\"} 2",
            "strata_agent_pods{phase=\"a\\\"\\\\\\nb\"} 1",
            "# TYPE strata_controller_commit_seconds histogram",
            "strata_controller_commit_seconds_bucket{le=\"0.0005\"} 1",
            "strata_controller_commit_seconds_bucket{le=\"0.002\"} 2",
            "strata_controller_commit_seconds_bucket{le=\"+Inf\"} 3",
            "strata_controller_commit_seconds_sum 90.0019",
            "strata_controller_commit_seconds_count 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
