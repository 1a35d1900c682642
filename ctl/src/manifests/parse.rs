//! The one place that knows who turns a manifest's text into objects.

use strata_proto::types::Object;

/// What a text holds.
#[derive(Debug, Default)]
pub struct Parsed {
    pub objects: Vec<Object>,
    /// Ready to be said, each with its place.
    pub warnings: Vec<String>,
}

/// Parses a text; errors come with file, line and column.
pub fn parse(source: &str, bytes: &[u8]) -> Result<Parsed, Vec<String>> {
    match strata_manifest::parse_bytes(source, bytes) {
        Ok(parsed) => Ok(Parsed {
            objects: parsed.documents.into_iter().map(|document| document.object).collect(),
            warnings: parsed.warnings.iter().map(ToString::to_string).collect(),
        }),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}
