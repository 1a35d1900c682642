//! Logs, traces and (with them) what every Strata process tells about itself.
//!
//! - Logs go to stderr through `tracing`: `STRATA_LOG` filters them (`info` by default, the syntax of `RUST_LOG`), `STRATA_LOG_FORMAT=json` makes
//!   one JSON object a line.
//! - Spans are exported by OTLP over gRPC when `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) is set; the other `OTEL_*` variables
//!   mean what the OpenTelemetry specification says (OTEL_SDK_DISABLED, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*).
//!   A collector that is down costs nothing: the queue is bounded and drops.
//!
//! - [`metrics`] is the one list of metric names, and writes the text that Prometheus reads; [`continue_trace`] and [`trace_parent`] carry a trace
//!   from process to process.
//!
//! Not here: any decision about what to log, and the servers of `/metrics`.

mod context;
pub mod metrics;

pub use context::{TRACE_PARENT_KEY, continue_trace, is_trace_parent, trace_parent};

use opentelemetry::{Key, KeyValue, trace::TracerProvider as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use std::{io::IsTerminal, time::Duration};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// How long the last spans may take to leave at the end of a process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `STRATA_LOG` has a syntax error.
    #[error("STRATA_LOG is not a valid filter ({0}); write for example STRATA_LOG=info,strata_agent=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The OTLP settings in the environment are not usable.
    #[error("cannot set up the OTLP exporter from the OTEL_* variables: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A subscriber was set before.
    #[error("telemetry was set up twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps the exporter alive; dropping it sends the last spans, for at most a second.
#[must_use = "dropping the guard ends the export of spans"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

/// Sets up logs and traces of this process. Call it once, inside the tokio runtime (the exporter runs on it).
///
/// `service` is the OpenTelemetry `service.name`, `instance` the `service.instance.id` (a node's name; "" for none).
///
/// # Errors
/// [`TelemetryError`] names the variable that is wrong.
pub fn init(service: &'static str, instance: &str) -> Result<Telemetry, TelemetryError> {
    let filter = match std::env::var("STRATA_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text)?,
        _ => EnvFilter::new("info"),
    };
    let json = std::env::var("STRATA_LOG_FORMAT").is_ok_and(|f| f == "json");
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().boxed()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
    };
    let provider = provider(service, instance)?;
    let spans = provider.as_ref().map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer("strata")));
    tracing_subscriber::registry().with(filter).with(lines).with(spans).try_init()?;
    Ok(Telemetry { provider })
}

/// Sets up traces only, for a program that talks to people on stderr; its root span is to continue [`environment_trace_parent`].
/// `None`: nobody wants them. Call it inside the tokio runtime, and drop the guard on a thread that does not drive that runtime.
///
/// # Errors
/// [`TelemetryError`] names the variable that is wrong.
pub fn init_traces(service: &'static str) -> Result<Option<Telemetry>, TelemetryError> {
    let Some(provider) = provider(service, "")? else { return Ok(None) };
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("strata"));
    tracing_subscriber::registry().with(EnvFilter::new("info")).with(spans).try_init()?;
    Ok(Some(Telemetry { provider: Some(provider) }))
}

/// The `traceparent` of whoever started this process (environment variable TRACEPARENT); "" = none.
#[must_use]
pub fn environment_trace_parent() -> String {
    std::env::var("TRACEPARENT").unwrap_or_default()
}

fn provider(service: &'static str, instance: &str) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_wanted =
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"].iter().any(|n| !variable(n).is_empty());
    // Two switches of the specification that the SDK leaves to its users.
    let is_off = variable("OTEL_SDK_DISABLED").eq_ignore_ascii_case("true")
        || variable("OTEL_TRACES_EXPORTER").eq_ignore_ascii_case("none");
    if !is_wanted || is_off {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;
    Ok(Some(
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(service, instance)).build(),
    ))
}

/// Names this process, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES do.
fn resource(service: &'static str, instance: &str) -> Resource {
    let told = Resource::builder().build();
    let lacks = |key: &'static str| {
        told.get(&Key::from_static_str(key)).is_none_or(|value| value.as_str().starts_with("unknown_service"))
    };
    let mut resource = Resource::builder();
    for (key, value) in
        [("service.name", service), ("service.instance.id", instance), ("service.version", env!("CARGO_PKG_VERSION"))]
    {
        if !value.is_empty() && lacks(key) {
            resource = resource.with_attribute(KeyValue::new(key, value.to_owned()));
        }
    }
    resource.build()
}
