//! Lines of a Dockerfile: their numbers, and lines that go on in the next.

/// The text by lines.
pub(super) struct Lines<'a> {
    text: &'a str,
    escape: char,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str, escape: char) -> Self {
        let starts = [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, escape, starts }
    }

    /// The number, from 1, of the line that a place is in.
    pub(super) fn number(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// The instruction that begins at a place, on one line.
    pub(super) fn text(&self, at: usize) -> String {
        let rest = self.text.get(at..).unwrap_or_default();
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            end += line.len();
            let inside = end > line.len();
            let skipped = inside && (line.trim().is_empty() || line.trim_start().starts_with('#'));
            if !skipped && !line.trim_end().ends_with(self.escape) {
                break;
            }
        }
        join(&rest[..end], self.escape).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Joins lines that go on, without the comments between them.
pub(super) fn join(text: &str, escape: char) -> String {
    let mut joined = String::with_capacity(text.len());
    for (number, line) in text.lines().enumerate() {
        if number > 0 && (line.trim_start().starts_with('#') || line.trim().is_empty()) {
            continue;
        }
        let line = if number > 0 { line } else { line.trim_start() };
        match line.trim_end().strip_suffix(escape) {
            Some(part) => joined.push_str(part),
            None => joined.push_str(line),
        }
    }
    joined.trim_end().to_owned()
}

/// The character of `# escape=`, which only counts before everything else.
pub(super) fn escape_directive(text: &str) -> char {
    for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
        let Some(comment) = line.trim_start().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        if name.trim().eq_ignore_ascii_case("escape") && value.trim() == "`" {
            return '`';
        }
    }
    '\\'
}
