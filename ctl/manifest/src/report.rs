//! Errors and warnings, collected over a whole text.

use std::sync::Arc;

use crate::{at::At, tree::Pos};

/// Errors of one text that are kept; those behind them are counted only.
const ERRORS_MAX: usize = 50;
/// Warnings of one text that are kept.
const WARNINGS_MAX: usize = 200;

/// What is wrong with a manifest, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {}{message}", prefix(path))]
pub struct ManifestError {
    /// The name of the text.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The field, as in `spec.template.spec.containers[0].image`; "" for the text as such.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// What was accepted but does not do what one might think.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The name of the text.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The field.
    pub path: String,
    /// What it does not do.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, column, path, message } = self;
        write!(f, "{file}:{line}:{column}: {}{message}", prefix(path))
    }
}

fn prefix(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

/// Collects what is to be said about one text.
pub(crate) struct Report {
    file: Arc<str>,
    errors: Vec<ManifestError>,
    warnings: Vec<Warning>,
    errors_left_out: usize,
    warnings_left_out: usize,
}

impl Report {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.into(), errors: Vec::new(), warnings: Vec::new(), errors_left_out: 0, warnings_left_out: 0 }
    }

    /// Says what is wrong.
    pub(crate) fn error(&mut self, pos: Pos, at: At<'_>, message: impl Into<String>) {
        self.error_at_path(pos, at.to_string(), message.into());
    }

    pub(crate) fn error_at_path(&mut self, pos: Pos, path: String, message: String) {
        if self.errors.len() == ERRORS_MAX {
            self.errors_left_out += 1;
            return;
        }
        let Pos { line, column } = pos;
        self.errors.push(ManifestError { file: self.file.clone(), line, column, path, message });
    }

    /// Says what has no effect.
    pub(crate) fn warn(&mut self, pos: Pos, at: At<'_>, message: impl Into<String>) {
        if self.warnings.len() == WARNINGS_MAX {
            self.warnings_left_out += 1;
            return;
        }
        let (file, Pos { line, column }) = (self.file.clone(), pos);
        self.warnings.push(Warning { file, line, column, path: at.to_string(), message: message.into() });
    }

    /// Whether further errors are only counted: no need to word them well.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() == ERRORS_MAX
    }

    /// The number of errors so far, to see whether a part was free of them.
    pub(crate) fn errors_seen(&self) -> usize {
        self.errors.len() + self.errors_left_out
    }

    /// The warnings, or all that is wrong.
    pub(crate) fn finish(mut self) -> Result<Vec<Warning>, Vec<ManifestError>> {
        let place = |line, column| Pos { line, column };
        if self.errors.is_empty() {
            self.warnings.sort_by_key(|w| place(w.line, w.column));
            if let Some(w) = self.warnings.last().filter(|_| self.warnings_left_out > 0).cloned() {
                let message = format!("and {} more warnings", self.warnings_left_out);
                self.warnings.push(Warning { path: String::new(), message, ..w });
            }
            return Ok(self.warnings);
        }
        self.errors.sort_by_key(|e| place(e.line, e.column));
        if let Some(e) = self.errors.last().filter(|_| self.errors_left_out > 0).cloned() {
            let message = format!("and {} more errors", self.errors_left_out);
            self.errors.push(ManifestError { path: String::new(), message, ..e });
        }
        Err(self.errors)
    }
}
