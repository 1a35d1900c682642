//! Tracing, OTLP export and the one list of metric names
