//! The one place that knows who turns a manifest's text into objects.

use super::{Manifest, around::Around};
use std::path::Path;
use strata_manifest::Surroundings as _;

/// What a text holds.
#[derive(Debug, Default)]
pub struct Parsed {
    pub manifests: Vec<Manifest>,
    /// Ready to be said, each with its place.
    pub warnings: Vec<String>,
}

/// Parses a text; errors come with file, line and column.
pub fn parse(source: &str, bytes: &[u8], around: &Around<'_>) -> Result<Parsed, Vec<String>> {
    match strata_manifest::parse_in(source, bytes, around) {
        Ok(parsed) => Ok(Parsed {
            manifests: parsed
                .documents
                .into_iter()
                .map(|document| Manifest {
                    object: document.object,
                    build: document.build.map(|mut build| {
                        // Relative to the file, as Compose has it.
                        let base = Path::new(around.directory().unwrap_or("."));
                        build.context = base.join(&build.context).display().to_string();
                        build
                    }),
                })
                .collect(),
            warnings: parsed.warnings.iter().map(ToString::to_string).collect(),
        }),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}
