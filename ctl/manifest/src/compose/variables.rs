//! Variables in Compose files: `$NAME`, `${NAME:-default}`, `${NAME:?message}`, `${NAME:+instead}`, `$$` for a dollar.
//! Source: the Compose specification, "Interpolation".

use std::{cell::Cell, collections::HashMap};

use strata_model::limits::MANIFEST_BYTES_MAX;

use crate::{
    around::Surroundings,
    at::At,
    report::Report,
    scalar::cut,
    tree::{Entry, Node, Pos, Value},
};

/// Levels of `${A:-${B:-...}}`.
const NESTED_MAX: usize = 16;

/// The variables of one project: the environment first, then its `.env` file.
pub(crate) struct Variables<'w> {
    around: &'w dyn Surroundings,
    file: HashMap<String, String>,
    /// What values have brought into texts so far.
    bytes: Cell<usize>,
}

impl<'w> Variables<'w> {
    pub(crate) fn new(around: &'w dyn Surroundings, file: HashMap<String, String>) -> Self {
        Self { around, file, bytes: Cell::new(0) }
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.around.variable(name).or_else(|| self.file.get(name).cloned())
    }

    /// Replaces the variables in a text.
    ///
    /// # Errors
    /// A reference that is none, a demand that is not met, or more than a manifest may have.
    pub(crate) fn interpolate(&self, text: &str, missing: &mut dyn FnMut(&str)) -> Result<String, String> {
        Interpolation { variables: self, more: None, missing }.text(text, 0)
    }

    /// As [`Self::interpolate`], with more variables behind the project's; what is missing is empty.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn interpolate_with(&self, text: &str, more: &HashMap<String, String>) -> Result<String, String> {
        Interpolation { variables: self, more: Some(more), missing: &mut |_| {} }.text(text, 0)
    }

    /// Replaces the variables in all values of a tree; keys stay.
    pub(crate) fn tree(&self, node: Node, at: At<'_>, report: &mut Report) -> Node {
        let Node { pos, value, size } = node;
        let value = match value {
            Value::Scalar { text, plain } => match self.scalar(&text, pos, at, report) {
                Some(text) => Value::Scalar { text, plain },
                None => Value::Scalar { text, plain },
            },
            Value::List(items) => Value::List(
                items.into_iter().enumerate().map(|(i, item)| self.tree(item, at.item(i), report)).collect(),
            ),
            Value::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|Entry { key, pos, node }| {
                        let node = self.tree(node, at.field(&key), report);
                        Entry { key, pos, node }
                    })
                    .collect(),
            ),
        };
        Node { pos, value, size }
    }

    fn scalar(&self, text: &str, pos: Pos, at: At<'_>, report: &mut Report) -> Option<String> {
        if !text.contains('$') {
            return None;
        }
        let mut unset = Vec::new();
        match self.interpolate(text, &mut |name| unset.push(name.to_owned())) {
            Ok(text) => {
                for name in unset {
                    report.warn(pos, at, format!("the variable {} is not set: it is taken as empty", cut(&name)));
                }
                Some(text)
            }
            Err(why) => {
                report.error(pos, at, why);
                None
            }
        }
    }
}

/// One text on its way.
struct Interpolation<'v, 'w> {
    variables: &'v Variables<'w>,
    more: Option<&'v HashMap<String, String>>,
    missing: &'v mut dyn FnMut(&str),
}

impl Interpolation<'_, '_> {
    fn get(&self, name: &str) -> Option<String> {
        self.variables.get(name).or_else(|| self.more?.get(name).cloned())
    }

    fn text(&mut self, text: &str, depth: usize) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            let (before, from) = rest.split_at(dollar);
            out.push_str(before);
            let after = &from[1..];
            if let Some(more) = after.strip_prefix('$') {
                out.push('$');
                rest = more;
            } else if let Some(inner) = after.strip_prefix('{') {
                let end = closing(inner).ok_or_else(|| bad(from))?;
                let value = self.braced(&inner[..end], depth)?;
                self.push(&mut out, &value)?;
                rest = &inner[end + 1..];
            } else {
                let end = name_end(after);
                if end == 0 {
                    return Err(bad(from));
                }
                let (name, more) = after.split_at(end);
                let value = self.get(name);
                if value.is_none() {
                    (self.missing)(name);
                }
                self.push(&mut out, &value.unwrap_or_default())?;
                rest = more;
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// What stands between `${` and `}`.
    fn braced(&mut self, inner: &str, depth: usize) -> Result<String, String> {
        if depth == NESTED_MAX {
            return Err(format!("variables are nested deeper than {NESTED_MAX} levels"));
        }
        let (name, rest) = inner.split_at(name_end(inner));
        if name.is_empty() {
            return Err(bad(&format!("${{{inner}}}")));
        }
        let value = self.get(name);
        let (also_empty, operator) = match rest.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let there = value.filter(|value| !also_empty || !value.is_empty());
        let mut chars = operator.chars();
        match (chars.next(), chars.as_str()) {
            (None, _) if !also_empty => {
                if there.is_none() {
                    (self.missing)(name);
                }
                Ok(there.unwrap_or_default())
            }
            (Some('-'), default) => match there {
                Some(value) => Ok(value),
                None => self.text(default, depth + 1),
            },
            (Some('+'), instead) if there.is_some() => self.text(instead, depth + 1),
            (Some('+'), _) => Ok(String::new()),
            (Some('?'), message) => match there {
                Some(value) => Ok(value),
                None => {
                    let message = self.text(message, depth + 1)?;
                    let message = if message.is_empty() { "it must be set".to_owned() } else { cut(&message) };
                    Err(format!("the variable {} is missing: {message}", cut(name)))
                }
            },
            _ => Err(bad(&format!("${{{inner}}}"))),
        }
    }

    fn push(&self, out: &mut String, value: &str) -> Result<(), String> {
        let bytes = self.variables.bytes.get() + value.len();
        if bytes > MANIFEST_BYTES_MAX {
            return Err(format!("with its variables replaced the text has more than {} MiB", MANIFEST_BYTES_MAX >> 20));
        }
        self.variables.bytes.set(bytes);
        out.push_str(value);
        Ok(())
    }
}

fn bad(reference: &str) -> String {
    format!("{:?} is no reference to a variable: write ${{NAME}}, or $$ for a dollar", cut(reference))
}

/// The length of the name that a text begins with.
fn name_end(text: &str) -> usize {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(first) {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// Where the brace that encloses a text ends.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0usize, 0);
    while i < bytes.len() {
        match bytes[i] {
            b'$' if bytes.get(i + 1) == Some(&b'{') => {
                depth += 1;
                i += 1;
            }
            b'}' if depth == 0 => return Some(i),
            b'}' => depth -= 1,
            _ => {}
        }
        i += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::around::Nowhere;

    fn variables() -> Variables<'static> {
        let file = [("A", "1"), ("EMPTY", ""), ("DOLLAR", "$A")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        Variables::new(&Nowhere, file.into())
    }

    #[test]
    fn references_are_replaced_as_the_specification_says() {
        let v = variables();
        for (text, want) in [
            ("plain", "plain"),
            ("$A", "1"),
            ("${A}", "1"),
            ("x${A}y$A-z", "x1y1-z"),
            ("$$A $${A}", "$A ${A}"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${B:-d}", "d"),
            ("${B-d}", "d"),
            ("${B:-}", ""),
            ("${B:-${A}}", "1"),
            ("${B:-${C:-x}y}", "xy"),
            ("${B:-a:b}", "a:b"),
            ("${A:+yes}", "yes"),
            ("${EMPTY:+yes}", ""),
            ("${EMPTY+yes}", "yes"),
            ("${B+yes}", ""),
            ("${A:?m}", "1"),
            ("${EMPTY?m}", ""),
            ("$DOLLAR", "$A"),
            ("é$A", "é1"),
        ] {
            assert_eq!(v.interpolate(text, &mut |name| panic!("{text}: {name}")).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let v = variables();
        let mut unset = Vec::new();
        assert_eq!(v.interpolate("[$B][${C}]", &mut |name| unset.push(name.to_owned())).unwrap(), "[][]");
        assert_eq!(unset, ["B", "C"]);
        for (text, want) in [
            ("${B:?set it}", "the variable B is missing: set it"),
            ("${EMPTY:?}", "the variable EMPTY is missing: it must be set"),
            ("$", "\"$\" is no reference"),
            ("$1", "\"$1\" is no reference"),
            ("${A", "\"${A\" is no reference"),
            ("${}", "\"${}\" is no reference"),
            ("${A:}", "\"${A:}\" is no reference"),
            ("${A!}", "\"${A!}\" is no reference"),
        ] {
            let error = v.interpolate(text, &mut |_| {}).unwrap_err();
            assert!(error.starts_with(want), "{text}: {error}");
        }
    }

    #[test]
    fn bombs_are_defused() {
        let v = Variables::new(&Nowhere, [("BIG".to_owned(), "x".repeat(1 << 20))].into());
        let error = v.interpolate(&"$BIG".repeat(100), &mut |_| {}).unwrap_err();
        assert!(error.contains("more than 8 MiB"), "{error}");
        let nested = format!("{}x{}", "${B:-".repeat(100_000), "}".repeat(100_000));
        assert!(v.interpolate(&nested, &mut |_| {}).unwrap_err().contains("nested deeper"));
    }
}
