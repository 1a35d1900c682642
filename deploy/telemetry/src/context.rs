//! Carrying a trace from one process to the next, as the W3C Trace Context `traceparent` (version 00).

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The gRPC metadata key (and HTTP header) that carries it.
pub const TRACE_PARENT_KEY: &str = "traceparent";

/// Makes the span a child of the span that `trace_parent` names, possibly in another process. Call it before the span is entered.
/// What is no `traceparent` is ignored: then the span begins a trace of its own.
pub fn continue_trace(span: &Span, trace_parent: &str) {
    if let Some(remote) = parse(trace_parent) {
        // An error says that spans are not exported, or the span is filtered out.
        span.set_parent(Context::new().with_remote_span_context(remote)).ok();
    }
}

/// The `traceparent` of a span; "" if spans are not exported.
#[must_use]
pub fn trace_parent(span: &Span) -> String {
    let context = span.context();
    let here = context.span().span_context().clone();
    if !here.is_valid() {
        return String::new();
    }
    format!("00-{}-{}-{:02x}", here.trace_id(), here.span_id(), here.trace_flags().to_u8())
}

/// Whether a text is a `traceparent` that [`continue_trace`] understands.
#[must_use]
pub fn is_trace_parent(text: &str) -> bool {
    parse(text).is_some()
}

fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    if version != "00" || parts.next().is_some() || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_traceparent_is_one() {
        assert!(is_trace_parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert!(!is_trace_parent(text), "{text}");
        }
    }

    #[test]
    fn without_an_exporter_there_is_no_trace() {
        let span = tracing::info_span!("x");
        continue_trace(&span, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(trace_parent(&span), "");
    }
}
