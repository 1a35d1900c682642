//! Bytes to trees: everything about hostile text ends here.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use strata_model::limits::MANIFEST_BYTES_MAX;

use crate::{
    at::At,
    report::Report,
    tree::{Entry, Node, Pos, Value},
};

/// Levels of nesting; the deepest Kubernetes document has about 15.
const DEPTH_MAX: usize = 64;
/// Nodes of all documents of a text, aliases followed.
const NODES_MAX: usize = 1_000_000;

/// A list or map that is not complete yet.
enum Open {
    List { pos: Pos, anchor: usize, items: Vec<Node> },
    Map { pos: Pos, anchor: usize, entries: Vec<Entry>, keys: HashSet<String>, key: Option<(String, Pos, bool)> },
}

/// The documents of a text. Stops at the first thing that is no YAML.
pub(crate) fn load(bytes: &[u8], report: &mut Report) -> Vec<Node> {
    let text = match text_of(bytes) {
        Ok(text) => text,
        Err((pos, message)) => {
            report.error(pos, At::ROOT, message);
            return Vec::new();
        }
    };
    let mut loader = Loader::default();
    let options = granit_parser::options! { emit_comments: false };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => loader.take(event, span),
            Err(error) => Err((pos_of(*error.marker()), format!("this is not valid YAML: {}", error.info()))),
        };
        if let Err((pos, message)) = step {
            report.error(pos, At::ROOT, message);
            // What was read so far is whole documents; errors in them are of use too.
            break;
        }
    }
    loader.documents
}

type Bad = (Pos, String);

#[derive(Default)]
struct Loader {
    documents: Vec<Node>,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl Loader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Bad> {
        let pos = pos_of(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = self.is_quoted(style, tag.as_deref(), pos)?;
                let value = Value::Scalar { text: text.into_owned(), plain: !quoted };
                self.count(1, pos)?;
                self.put(Node { pos, value, size: 1 }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(Open::List { pos, anchor, items: Vec::new() }, tag.as_deref(), pos)
            }
            Event::MappingStart(_, anchor, tag) => {
                let open = Open::Map { pos, anchor, entries: Vec::new(), keys: HashSet::new(), key: None };
                self.open(open, tag.as_deref(), pos)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id) else {
                    return Err((pos, "an alias to a value that contains it has no end".to_owned()));
                };
                let node = node.clone();
                self.count(node.size, pos)?;
                self.put(node, 0)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, pos: Pos) -> Result<(), Bad> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return Err((pos, format!("the text has more than {NODES_MAX} values (aliases followed): split it")));
        }
        Ok(())
    }

    fn open(&mut self, open: Open, tag: Option<&Tag>, pos: Pos) -> Result<(), Bad> {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && matches!(tag.suffix(), "map" | "seq"))
        {
            return Err((pos, format!("the tag {tag} is not supported")));
        }
        self.count(1, pos)?;
        if self.stack.len() == DEPTH_MAX {
            return Err((pos, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.stack.push(open);
        Ok(())
    }

    fn is_quoted(&self, style: ScalarStyle, tag: Option<&Tag>, pos: Pos) -> Result<bool, Bad> {
        match tag {
            None => Ok(style != ScalarStyle::Plain),
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix() == "str" => Ok(true),
            Some(tag) if tag.is_yaml_core_schema() => Ok(false),
            Some(tag) => Err((pos, format!("the tag {tag} is not supported"))),
        }
    }

    fn close(&mut self) -> Result<(), Bad> {
        match self.stack.pop() {
            Some(Open::List { pos, anchor, items }) => {
                let size = 1 + items.iter().map(|i| i.size).sum::<usize>();
                self.put(Node { pos, value: Value::List(items), size }, anchor)
            }
            Some(Open::Map { pos, anchor, mut entries, .. }) => {
                merge(&mut entries)?;
                let size = 1 + entries.iter().map(|e| e.node.size).sum::<usize>();
                self.put(Node { pos, value: Value::Map(entries), size }, anchor)
            }
            None => Ok(()),
        }
    }

    /// A complete node goes to where it belongs.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Bad> {
        if anchor != 0 {
            self.count(node.size, node.pos)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => {
                if !node.is_null() {
                    self.documents.push(node);
                }
            }
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, keys, key, .. }) => match key.take() {
                None => {
                    let Value::Scalar { text, plain } = node.value else {
                        return Err((node.pos, "a key is a word, not a list or a map".to_owned()));
                    };
                    let is_merge = plain && text == "<<";
                    if !is_merge && !keys.insert(text.clone()) {
                        let message = format!("the key `{}` is here twice", crate::scalar::cut(&text));
                        return Err((node.pos, message));
                    }
                    *key = Some((text, node.pos, is_merge));
                }
                Some((name, pos, is_merge)) => {
                    // A name that no key can have marks a merge until the map is complete.
                    let key = if is_merge { MERGE.to_owned() } else { name };
                    entries.push(Entry { key, pos, node });
                }
            },
        }
        Ok(())
    }
}

/// The key of a merge while its map is open: NUL is refused in texts.
const MERGE: &str = "\0<<";

/// Follows YAML 1.1's `<<: *base` and `<<: [*a, *b]`: keys of the map itself win, then those of earlier bases.
fn merge(entries: &mut Vec<Entry>) -> Result<(), Bad> {
    if !entries.iter().any(|e| e.key == MERGE) {
        return Ok(());
    }
    let (merges, own): (Vec<Entry>, Vec<Entry>) = entries.drain(..).partition(|e| e.key == MERGE);
    let mut seen: HashSet<String> = own.iter().map(|e| e.key.clone()).collect();
    *entries = own;
    for Entry { pos, node, .. } in merges {
        let bases = match node.value {
            Value::List(items) => items,
            _ => vec![node],
        };
        for base in bases {
            let Value::Map(inherited) = base.value else {
                return Err((pos, "`<<` takes a map or a list of maps".to_owned()));
            };
            entries.extend(inherited.into_iter().filter(|e| seen.insert(e.key.clone())));
        }
    }
    Ok(())
}

fn pos_of(marker: granit_parser::Marker) -> Pos {
    Pos { line: marker.line().max(1), column: marker.col() + 1 }
}

/// The text of the bytes: of bounded size, UTF-8, without a mark at its beginning and without control characters.
fn text_of(bytes: &[u8]) -> Result<&str, Bad> {
    let first = Pos { line: 1, column: 1 };
    if bytes.len() > MANIFEST_BYTES_MAX {
        let (size, limit) = (bytes.len(), MANIFEST_BYTES_MAX >> 20);
        return Err((first, format!("the text has {size} bytes, at most {limit} MiB are read: split it")));
    }
    if bytes.starts_with(&[0xfe, 0xff]) || bytes.starts_with(&[0xff, 0xfe]) {
        return Err((first, "the text is UTF-16: save it as UTF-8".to_owned()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let good = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
        (end_of(&good), "the text is not UTF-8".to_owned())
    })?;
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}');
    match text.char_indices().find(|(_, c)| control(*c)) {
        None => Ok(text),
        Some((at, c)) => {
            Err((end_of(&text[..at]), format!("the control character U+{:04X} is not allowed", u32::from(c))))
        }
    }
}

/// The place behind a text.
fn end_of(text: &str) -> Pos {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Pos { line, column }
}
