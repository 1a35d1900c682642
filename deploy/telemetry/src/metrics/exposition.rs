//! Writing the text: Prometheus' exposition format 0.0.4, or OpenMetrics 1.0 for those who ask for it.

use super::{Counter, Histogram, Metric, Type};
use std::fmt::{Display, Write as _};

/// How the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    #[default]
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What the `Accept` header of a request asks for: the one of the two with the higher weight (RFC 9110, 12.5.1), text if neither is named.
    #[must_use]
    pub fn of_accept(accept: &str) -> Self {
        let (mut text, mut open) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1.0_f64, "");
            for part in parts {
                match part.split_once('=').map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))) {
                    Some(("q", q)) => weight = q.parse().unwrap_or(0.0),
                    Some(("version", v)) => version = v,
                    _ => {}
                }
            }
            match media.as_str() {
                "application/openmetrics-text" if matches!(version, "" | "1.0.0" | "0.0.1") => open = weight.max(open),
                "text/plain" | "text/*" | "*/*" => text = weight.max(text),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// The content type of the text.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The text as it grows. Each metric is written once, with all its values.
#[derive(Debug, Default)]
pub struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    /// An empty text in a format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// A metric with one value.
    pub fn value(&mut self, metric: Metric, value: impl Display) {
        self.head(metric);
        self.line(metric.name, "", value);
    }

    /// A counter.
    pub fn count(&mut self, metric: Metric, counter: &Counter) {
        self.value(metric, counter.get());
    }

    /// A metric with a value per word of one label.
    pub fn by<W: AsRef<str>>(&mut self, metric: Metric, label: &str, values: impl IntoIterator<Item = (W, u64)>) {
        self.head(metric);
        for (word, value) in values {
            self.line(metric.name, &labels(&[(label, word.as_ref())], None), value);
        }
    }

    /// A metric with a value per pair of words of two labels.
    pub fn by_two<V: AsRef<str>, W: AsRef<str>>(
        &mut self,
        metric: Metric,
        names: (&str, &str),
        values: impl IntoIterator<Item = (V, W, u64)>,
    ) {
        self.head(metric);
        for (first, second, value) in values {
            let pairs = [(names.0, first.as_ref()), (names.1, second.as_ref())];
            self.line(metric.name, &labels(&pairs, None), value);
        }
    }

    /// A histogram in base units.
    pub fn histogram(&mut self, metric: Metric, histogram: &Histogram) {
        self.head(metric);
        self.buckets(metric, &[], histogram);
    }

    /// A histogram per word of one label.
    pub fn histograms<'a, W: AsRef<str>>(
        &mut self,
        metric: Metric,
        label: &str,
        values: impl IntoIterator<Item = (W, &'a Histogram)>,
    ) {
        self.head(metric);
        for (word, histogram) in values {
            self.buckets(metric, &[(label, word.as_ref())], histogram);
        }
    }

    /// All of it.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn buckets(&mut self, metric: Metric, pairs: &[(&str, &str)], histogram: &Histogram) {
        let (buckets, sum) = histogram.read();
        let name = format!("{}_bucket", metric.name);
        for (bound, count) in &buckets {
            let le = match self.format {
                _ if bound.is_infinite() => "+Inf".to_owned(),
                Format::Text => bound.to_string(),
                // Its bounds are floats: 1.0, not 1.
                Format::OpenMetrics => format!("{bound:?}"),
            };
            self.line(&name, &labels(pairs, Some(&le)), count);
        }
        let pairs = labels(pairs, None);
        self.line(&format!("{}_sum", metric.name), &pairs, sum);
        self.line(&format!("{}_count", metric.name), &pairs, buckets.last().map_or(0, |(_, count)| *count));
    }

    fn head(&mut self, metric: Metric) {
        let word = match metric.of {
            Type::Gauge => "gauge",
            Type::Counter => "counter",
            Type::Histogram => "histogram",
        };
        // In OpenMetrics a counter's family has the name without the suffix of its samples.
        let name = match self.format {
            Format::OpenMetrics if metric.of == Type::Counter => metric.name.trim_end_matches("_total"),
            _ => metric.name,
        };
        // Writing to a String cannot fail.
        write!(self.text, "# HELP {name} {}\n# TYPE {name} {word}\n", metric.help).ok();
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        writeln!(self.text, "{name}{labels} {value}").ok();
    }
}

fn labels(pairs: &[(&str, &str)], le: Option<&str>) -> String {
    let escaped = |word: &str| word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs = pairs.iter().copied().chain(le.map(|le| ("le", le)));
    let inside: Vec<String> = pairs.map(|(name, word)| format!("{name}=\"{}\"", escaped(word))).collect();
    if inside.is_empty() { String::new() } else { format!("{{{}}}", inside.join(",")) }
}

#[cfg(test)]
mod tests;
