//! Forms that Compose leaves open: maps or lists, one word or many, numbers for texts.

use crate::{
    at::At,
    read::{Fields, whole},
    report::Report,
    tree::{Entry, Node, Pos, Value},
};

use super::words;

/// The text of a value, whatever YAML reads it as; `None` for nothing.
pub(crate) fn text(node: &Node, at: At<'_>, report: &mut Report) -> Option<String> {
    if node.is_null() {
        return None;
    }
    let text = node.scalar().map(str::to_owned);
    if text.is_none() {
        report.error(node.pos, at, format!("a string is expected, this is {}", node.what()));
    }
    text
}

/// The text of a field.
pub(crate) fn field(of: &Fields<'_, '_>, name: &'static str, report: &mut Report) -> Option<String> {
    text(of.get(name)?, of.at().field(name), report)
}

/// A list of texts, or one.
pub(crate) fn texts(of: &Fields<'_, '_>, name: &'static str, report: &mut Report) -> Vec<(String, Pos)> {
    let Some(node) = of.get(name) else { return Vec::new() };
    let here = of.at().field(name);
    match &node.value {
        Value::List(items) => {
            let one = |(i, item): (usize, &Node)| text(item, here.item(i), report).map(|text| (text, item.pos));
            items.iter().enumerate().filter_map(one).collect()
        }
        _ => text(node, here, report).map(|text| (text, node.pos)).into_iter().collect(),
    }
}

/// `{KEY: value}` or `[KEY=value]`, in order; without a value `None`.
pub(crate) fn pairs(
    of: &Fields<'_, '_>,
    name: &'static str,
    report: &mut Report,
) -> Vec<(String, Option<String>, Pos)> {
    let Some(node) = of.get(name) else { return Vec::new() };
    let here = of.at().field(name);
    match &node.value {
        Value::Map(entries) => {
            let one = |Entry { key, pos, node }: &Entry| match node.is_null() {
                true => Some((key.clone(), None, *pos)),
                false => text(node, here.key(key), report).map(|text| (key.clone(), Some(text), *pos)),
            };
            entries.iter().filter_map(one).collect()
        }
        Value::List(items) => {
            let mut found = Vec::new();
            for (i, item) in items.iter().enumerate() {
                let Some(text) = text(item, here.item(i), report) else { continue };
                match text.split_once('=') {
                    Some((key, value)) => found.push((key.to_owned(), Some(value.to_owned()), item.pos)),
                    None => found.push((text, None, item.pos)),
                }
            }
            found
        }
        _ => {
            report.error(node.pos, here, format!("a map or a list of KEY=value is expected, this is {}", node.what()));
            Vec::new()
        }
    }
}

/// A command: a list of words, or a text that is split like a shell does. `None`: not there.
pub(crate) fn command(of: &Fields<'_, '_>, name: &'static str, report: &mut Report) -> Option<Vec<String>> {
    let node = of.get(name)?;
    if matches!(node.value, Value::List(_)) {
        return Some(texts(of, name, report).into_iter().map(|(text, _)| text).collect());
    }
    let here = of.at().field(name);
    match words::split(&text(node, here, report)?) {
        Ok(words) => Some(words),
        Err(why) => {
            report.error(node.pos, here, why);
            None
        }
    }
}

/// A whole number, quoted or not.
pub(crate) fn number(of: &Fields<'_, '_>, name: &'static str, max: u32, report: &mut Report) -> Option<u32> {
    let node = of.get(name)?;
    let text = node.scalar().unwrap_or_default().to_owned();
    let unquoted = Node { value: Value::Scalar { text, plain: true }, ..node.clone() };
    let node = if node.scalar().is_some() { &unquoted } else { node };
    whole(node, of.at().field(name), u64::from(max), report).and_then(|n| u32::try_from(n).ok())
}

/// A duration, in milliseconds.
pub(crate) fn duration_ms(of: &Fields<'_, '_>, name: &'static str, report: &mut Report) -> Option<u64> {
    let node = of.get(name)?;
    let found = node.scalar().and_then(words::duration_ms);
    if found.is_none() {
        let message = format!("a duration such as 30s or 1m30s is expected, this is {}", node.what());
        report.error(node.pos, of.at().field(name), message);
    }
    found
}

/// A duration in whole seconds, rounded up.
pub(crate) fn seconds(of: &Fields<'_, '_>, name: &'static str, report: &mut Report) -> Option<u32> {
    duration_ms(of, name, report).map(|ms| u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX))
}

/// A number of bytes.
pub(crate) fn size(of: &Fields<'_, '_>, name: &'static str, report: &mut Report) -> Option<u64> {
    let node = of.get(name)?;
    let found = node.scalar().and_then(words::size);
    if found.is_none() {
        let message = format!("a size such as 64m or 1g is expected, this is {}", node.what());
        report.error(node.pos, of.at().field(name), message);
    }
    found
}

/// Thousandths of a CPU.
pub(crate) fn cpus(of: &Fields<'_, '_>, name: &'static str, report: &mut Report) -> Option<u64> {
    let node = of.get(name)?;
    let found = node.scalar().and_then(words::thousandths);
    if found.is_none() {
        let message = format!("a number of CPUs such as 0.5 is expected, this is {}", node.what());
        report.error(node.pos, of.at().field(name), message);
    }
    found
}
