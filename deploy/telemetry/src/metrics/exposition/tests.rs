use super::*;
use crate::metrics;
use std::time::Duration;

fn written(format: Format) -> String {
    let mut text = Exposition::new(format);
    text.value(metrics::AGENT_LAYERS, 3);
    text.by(metrics::AGENT_PODS, "phase", [("Running", 2), ("a\"\\\nb", 1)]);
    text.by_two(metrics::CONTROLLER_REQUESTS, ("method", "code"), [("Objects/Get", "Ok", 7)]);
    let latency = Histogram::default();
    for us in [400, 1_500, 90_000_000] {
        latency.record(Duration::from_micros(us));
    }
    text.histogram(metrics::CONTROLLER_STORE_COMMIT_SECONDS, &latency);
    text.histograms(metrics::CONTROLLER_LOOP_SECONDS, "loop", [("nodes", &latency)]);
    let sizes = Histogram::sizes();
    sizes.observe(3);
    text.histogram(metrics::CONTROLLER_STORE_GROUP_COMMITS, &sizes);
    text.finish()
}

fn check(format: Format, lines: &[&str]) {
    let text = written(format);
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "{line} in {text}");
    }
}

#[test]
fn the_text_is_what_prometheus_reads() {
    check(
        Format::Text,
        &[
            "# TYPE strata_agent_layers gauge",
            "strata_agent_layers 3",
            "strata_agent_pods{phase=\"Running\"} 2",
            "strata_agent_pods{phase=\"a\\\"\\\\\\nb\"} 1",
            "# TYPE strata_controller_requests_total counter",
            "strata_controller_requests_total{method=\"Objects/Get\",code=\"Ok\"} 7",
            "# TYPE strata_controller_store_commit_seconds histogram",
            "strata_controller_store_commit_seconds_bucket{le=\"0.0005\"} 1",
            "strata_controller_store_commit_seconds_bucket{le=\"0.002\"} 2",
            "strata_controller_store_commit_seconds_bucket{le=\"1\"} 2",
            "strata_controller_store_commit_seconds_bucket{le=\"+Inf\"} 3",
            "strata_controller_store_commit_seconds_sum 90.0019",
            "strata_controller_store_commit_seconds_count 3",
            "strata_controller_loop_seconds_bucket{loop=\"nodes\",le=\"0.0005\"} 1",
            "strata_controller_loop_seconds_count{loop=\"nodes\"} 3",
            "strata_controller_store_group_commits_bucket{le=\"2\"} 0",
            "strata_controller_store_group_commits_bucket{le=\"4\"} 1",
            "strata_controller_store_group_commits_sum 3",
        ],
    );
    assert!(!written(Format::Text).contains("# EOF"));
}

#[test]
fn open_metrics_has_its_own_ways() {
    check(
        Format::OpenMetrics,
        &[
            "# TYPE strata_controller_requests counter",
            "strata_controller_requests_total{method=\"Objects/Get\",code=\"Ok\"} 7",
            "strata_controller_store_commit_seconds_bucket{le=\"1.0\"} 2",
            "strata_controller_store_commit_seconds_bucket{le=\"+Inf\"} 3",
        ],
    );
    assert!(written(Format::OpenMetrics).ends_with("\n# EOF\n"));
}

#[test]
fn the_accept_header_chooses() {
    for (accept, format) in [
        ("", Format::Text),
        ("*/*", Format::Text),
        ("text/plain", Format::Text),
        ("text/plain;version=0.0.4", Format::Text),
        ("application/openmetrics-text", Format::OpenMetrics),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Format::Text),
        // Prometheus 2.42.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetrics,
        ),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.7", Format::Text),
        ("application/openmetrics-text;q=0,text/plain;q=0.7", Format::Text),
        ("application/json", Format::Text),
    ] {
        assert_eq!(Format::of_accept(accept), format, "{accept}");
    }
}
