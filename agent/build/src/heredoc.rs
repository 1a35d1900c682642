//! Here-documents of RUN that the parser does not know: it takes them only where they are the whole command (`RUN <<EOF`).
//!
//! In `RUN cat <<EOF > /x` the shell itself reads the document, so its text belongs to the command. Such documents are taken out of the
//! Dockerfile before it is parsed (their lines stay, empty, so that lines keep their numbers) and are given back to their RUN.

use std::collections::HashMap;

use crate::words;

/// Documents by the line (from 1) of their RUN: the text that follows the command, end lines included.
pub(crate) type Documents = HashMap<usize, String>;

/// One `<<[-]WORD`.
struct Marker {
    word: String,
    /// `<<-`: leading tabs of the document are taken away.
    tabs: bool,
}

/// Takes documents out of the text.
///
/// # Errors
/// Line and message for a document without an end.
pub(crate) fn extract(text: &str, escape: char) -> Result<(String, Documents), (usize, String)> {
    let mut kept = String::with_capacity(text.len());
    let mut documents = Documents::new();
    let mut lines = text.split_inclusive('\n').enumerate();
    while let Some((number, line)) = lines.next() {
        kept.push_str(line);
        if line.trim_start().starts_with('#') {
            continue;
        }
        let mut command = line.trim_end().to_owned();
        // A command may go on in the next lines, with comments between.
        let mut open = command.ends_with(escape);
        while open {
            let Some((_, next)) = lines.next() else { break };
            kept.push_str(next);
            let next = next.trim_end();
            if next.trim_start().starts_with('#') || next.trim().is_empty() {
                continue;
            }
            command.truncate(command.len() - escape.len_utf8());
            command.push_str(next);
            open = command.ends_with(escape);
        }
        let markers = markers(&command, escape);
        if markers.is_empty() {
            // COPY's and the parser's own documents are passed by: what looks like a RUN in them is none.
            for marker in own_markers(&command, escape) {
                for (_, next) in lines.by_ref() {
                    kept.push_str(next);
                    if is_end(next, &marker) {
                        break;
                    }
                }
            }
            continue;
        }
        let document = documents.entry(number + 1).or_default();
        for marker in markers {
            loop {
                let Some((_, next)) = lines.next() else {
                    return Err((number + 1, format!("the here-document has no line {:?} that ends it", marker.word)));
                };
                document.push('\n');
                document.push_str(next.trim_end_matches(['\n', '\r']));
                kept.push('\n');
                if is_end(next, &marker) {
                    break;
                }
            }
        }
    }
    Ok((kept, documents))
}

fn is_end(line: &str, marker: &Marker) -> bool {
    let line = line.trim_end_matches(['\n', '\r']);
    let line = if marker.tabs { line.trim_start_matches('\t') } else { line };
    line == marker.word
}

/// The instruction's arguments, if it is this one.
fn arguments<'a>(line: &'a str, instruction: &str) -> Option<&'a str> {
    let line = line.trim_start();
    let rest = line.get(instruction.len()..)?;
    (line[..instruction.len()].eq_ignore_ascii_case(instruction) && rest.starts_with([' ', '\t']))
        .then(|| rest.trim_start())
}

/// Of a RUN in shell form whose command is more than one document.
fn markers(line: &str, escape: char) -> Vec<Marker> {
    let Some(mut command) = arguments(line, "RUN") else { return Vec::new() };
    while command.starts_with("--") {
        let Some((_, rest)) = command.split_once([' ', '\t']) else { return Vec::new() };
        command = rest.trim_start();
    }
    if command.starts_with('[') {
        return Vec::new();
    }
    let words = words::split(command, escape);
    let markers: Vec<Marker> = words.iter().filter_map(|word| marker(word)).collect();
    if words.len() == 1 { Vec::new() } else { markers }
}

/// Of instructions whose documents the parser reads.
fn own_markers(line: &str, escape: char) -> Vec<Marker> {
    let found = ["RUN", "COPY", "ADD"].iter().find_map(|instruction| arguments(line, instruction));
    let words = found.map(|text| words::split(text, escape)).unwrap_or_default();
    words.iter().filter_map(|word| marker(word)).collect()
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF`.
fn marker(word: &str) -> Option<Marker> {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (tabs, word) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let word = word.trim_matches(['"', '\'']);
    let first = word.chars().next()?;
    (first.is_alphabetic() || first == '_').then(|| Marker { word: word.to_owned(), tabs })
}

/// The names that a COPY's documents have, in order.
pub(crate) fn names(line: &str, escape: char) -> Vec<String> {
    own_markers(line, escape).into_iter().map(|marker| marker.word).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn documents_are_taken_out_and_lines_stay() {
        let text = "FROM x\nRUN cat <<EOF > /a && \\\n  cat <<-\"B\" >/b\none $A\nEOF\n\ttwo\n\tB\nCOPY <<EOF /x\nRUN cat <<NOT\nEOF\nRUN <<EOF\nRUN y <<NOT\nEOF\nRUN [\"<<EOF\"]\nCMD x\n";
        let (kept, documents) = extract(text, '\\').unwrap();
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[&2], "\none $A\nEOF\n\ttwo\n\tB");
        assert_eq!(kept.lines().count(), text.lines().count());
        assert_eq!(kept.lines().nth(7), Some("COPY <<EOF /x"));
        assert!(kept.lines().skip(3).take(4).all(str::is_empty));
        assert_eq!(extract("RUN a <<E\nx\n", '\\').unwrap_err().0, 1);
        assert_eq!(names("COPY <<a <<\"b c\" /x/", '\\'), ["a", "b c"]);
    }
}
