//! Typed reading of nodes. Each function reports what is wrong and then answers as if the field were absent.

use std::collections::HashMap;

use strata_model::Quantity;

use crate::{
    at::At,
    report::Report,
    scalar,
    suggest::did_you_mean,
    table::{Class, Table},
    tree::{Node, Pos, Value},
};

/// In a table: any name that begins with `x-`, which a Compose file may use for its own ends.
pub(crate) const EXTENSION: &str = "x-*";

/// A map whose names have been checked against a table.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'n, 'a> {
    node: &'n Node,
    at: At<'a>,
    table: Table,
}

/// Checks a map's names: unknown ones, those without effect and those not built yet are reported.
pub(crate) fn fields<'n, 'a>(node: &'n Node, at: At<'a>, table: Table, report: &mut Report) -> Option<Fields<'n, 'a>> {
    let Value::Map(entries) = &node.value else {
        report.error(node.pos, at, format!("a map is expected, this is {}", node.what()));
        return None;
    };
    for entry in entries {
        let here = at.field(&entry.key);
        let known =
            |(name, _): &&(&str, Class)| *name == entry.key || (*name == EXTENSION && entry.key.starts_with("x-"));
        let Some((_, class)) = table.iter().find(known) else {
            if report.is_full() {
                report.error(entry.pos, at, "unknown field");
                continue;
            }
            let hint = did_you_mean(&entry.key, table.iter().map(|(name, _)| *name));
            report.error(entry.pos, here, format!("unknown field{hint}"));
            continue;
        };
        match class {
            Class::Read => {}
            Class::NoEffect(why) if !entry.node.is_default() => {
                report.warn(entry.pos, here, format!("has no effect here: {why}"));
            }
            Class::Only(values) => match entry.node.scalar() {
                Some(text) if values.contains(&text) => {
                    report.warn(entry.pos, here, "has no effect here: this is what happens anyway");
                }
                _ if entry.node.is_default() => {}
                _ => {
                    let values = values.join(", ");
                    report.error(
                        entry.pos,
                        here,
                        format!("only {values} is supported yet, this is {}", entry.node.what()),
                    );
                }
            },
            Class::NotYet if !entry.node.is_default() => {
                report.error(entry.pos, here, "not supported yet: it is refused rather than ignored");
            }
            Class::NoEffect(_) | Class::NotYet => {}
        }
    }
    Some(Fields { node, at, table })
}

impl<'n, 'a> Fields<'n, 'a> {
    /// Where the map begins.
    pub(crate) fn pos(&self) -> Pos {
        self.node.pos
    }

    /// The map's path.
    pub(crate) fn at(&self) -> &At<'a> {
        &self.at
    }

    /// A field that is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        debug_assert!(
            self.table.iter().any(|(n, c)| *n == name && matches!(c, Class::Read)),
            "{name} is not in the table"
        );
        self.node.get(name).filter(|n| !n.is_null())
    }

    /// A field that must be there.
    pub(crate) fn require(&self, name: &str, report: &mut Report) -> Option<&'n Node> {
        let found = self.get(name);
        if found.is_none() {
            report.error(self.pos(), self.at, format!("`{name}` is missing"));
        }
        found
    }

    /// A string; `None` when absent or wrong.
    pub(crate) fn text(&self, name: &str, report: &mut Report) -> Option<String> {
        string(self.get(name)?, self.at.field(name), report)
    }

    /// A boolean.
    pub(crate) fn flag(&self, name: &str, report: &mut Report) -> Option<bool> {
        boolean(self.get(name)?, self.at.field(name), report)
    }

    /// A whole number from 0 to `max`.
    pub(crate) fn number(&self, name: &str, max: u32, report: &mut Report) -> Option<u32> {
        let number = whole(self.get(name)?, self.at.field(name), u64::from(max), report)?;
        u32::try_from(number).ok()
    }

    /// A list of strings.
    pub(crate) fn texts(&self, name: &str, report: &mut Report) -> Vec<String> {
        self.list(name, report, string)
    }

    /// A list; items that are wrong are left out.
    pub(crate) fn list<T>(
        &self,
        name: &str,
        report: &mut Report,
        mut read: impl FnMut(&'n Node, At<'_>, &mut Report) -> Option<T>,
    ) -> Vec<T> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let here = self.at.field(name);
        let Value::List(items) = &node.value else {
            report.error(node.pos, here, format!("a list is expected, this is {}", node.what()));
            return Vec::new();
        };
        items.iter().enumerate().filter_map(|(i, item)| read(item, here.item(i), report)).collect()
    }

    /// A map of strings, such as labels.
    pub(crate) fn strings(&self, name: &str, report: &mut Report) -> HashMap<String, String> {
        self.get(name).map(|node| strings(node, self.at.field(name), report)).unwrap_or_default()
    }

    /// One word of a few.
    pub(crate) fn word<T: Copy>(&self, name: &str, words: &[(&'static str, T)], report: &mut Report) -> Option<T> {
        let text = self.text(name, report)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let (pos, here) = (self.get(name).map_or(self.pos(), |n| n.pos), self.at.field(name));
            let hint = did_you_mean(&text, words.iter().map(|(w, _)| *w));
            let all: Vec<_> = words.iter().map(|(w, _)| if w.is_empty() { "\"\"" } else { *w }).collect();
            report.error(pos, here, format!("{:?} is not one of {}{hint}", scalar::cut(&text), all.join(", ")));
        }
        found
    }
}

/// A string. What YAML reads as something else is refused as kubectl does, not turned into text.
pub(crate) fn string(node: &Node, at: At<'_>, report: &mut Report) -> Option<String> {
    match &node.value {
        Value::Scalar { text, plain } => {
            let other = *plain && (scalar::is_null(text) || scalar::boolean(text).is_some() || scalar::is_number(text));
            if !other {
                return Some(text.clone());
            }
            let hint = if text.is_empty() { String::new() } else { format!(": write {:?}", scalar::cut(text)) };
            report.error(node.pos, at, format!("a string is expected, this is {}{hint}", node.what()));
        }
        _ => report.error(node.pos, at, format!("a string is expected, this is {}", node.what())),
    }
    None
}

/// A boolean.
pub(crate) fn boolean(node: &Node, at: At<'_>, report: &mut Report) -> Option<bool> {
    let value = match &node.value {
        Value::Scalar { text, plain: true } => scalar::boolean(text),
        _ => None,
    };
    if value.is_none() {
        report.error(node.pos, at, format!("true or false is expected, this is {}", node.what()));
    }
    value
}

/// A whole number from 0 to `max`.
pub(crate) fn whole(node: &Node, at: At<'_>, max: u64, report: &mut Report) -> Option<u64> {
    let value = match &node.value {
        Value::Scalar { text, plain: true } => scalar::whole(text).filter(|n| *n <= max),
        _ => None,
    };
    if value.is_none() {
        report.error(node.pos, at, format!("a whole number from 0 to {max} is expected, this is {}", node.what()));
    }
    value
}

/// A quantity such as `500m` or `64Mi`, quoted or not.
pub(crate) fn quantity(node: &Node, at: At<'_>, report: &mut Report) -> Option<Quantity> {
    let Some(text) = node.scalar().filter(|_| !node.is_null()) else {
        report.error(node.pos, at, format!("a quantity such as 500m or 64Mi is expected, this is {}", node.what()));
        return None;
    };
    Quantity::parse(text).map_err(|e| report.error(node.pos, at, e.to_string())).ok()
}

/// A map with string values.
pub(crate) fn strings(node: &Node, at: At<'_>, report: &mut Report) -> HashMap<String, String> {
    let Value::Map(entries) = &node.value else {
        report.error(node.pos, at, format!("a map is expected, this is {}", node.what()));
        return HashMap::new();
    };
    let read = |e: &crate::tree::Entry| Some((e.key.clone(), string(&e.node, at.key(&e.key), report)?));
    entries.iter().filter_map(read).collect()
}

/// The permissions of a file: octal as YAML 1.1 and 1.2 write it (`0400`, `0o400`), or the same as a plain number (`256`).
pub(crate) fn mode(node: &Node, at: At<'_>, report: &mut Report) -> Option<u32> {
    let value = match &node.value {
        Value::Scalar { text, plain: true } => {
            let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0')).filter(|digits| !digits.is_empty());
            match octal {
                Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => u32::from_str_radix(digits, 8).ok(),
                _ => scalar::whole(text).and_then(|n| u32::try_from(n).ok()),
            }
        }
        _ => None,
    };
    let value = value.filter(|mode| (1..=0o777).contains(mode));
    if value.is_none() {
        let message = format!("permissions such as 0644 or 0400 are expected (at most 0777), this is {}", node.what());
        report.error(node.pos, at, message);
    }
    value
}

/// A number of seconds, bytes, ... that a quantity counts in whole units.
pub(crate) fn bytes(node: &Node, at: At<'_>, report: &mut Report) -> Option<u64> {
    quantity(node, at, report).map(Quantity::units)
}
