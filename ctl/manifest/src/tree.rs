//! A document as a tree in which every node knows its place in the text.

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Pos {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) pos: Pos,
    pub(crate) value: Value,
    /// Nodes below and including this one.
    pub(crate) size: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// `plain`: written without quotes, so it may mean a number, a boolean or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the text; keys are distinct.
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) pos: Pos,
    pub(crate) node: Node,
}

impl Node {
    /// Whether it says nothing: absent, null.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if crate::scalar::is_null(text))
    }

    /// Whether it says what leaving it out would say: null, `false`, `0`, "", an empty list or map.
    pub(crate) fn is_default(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain: true } => {
                crate::scalar::is_null(text) || crate::scalar::boolean(text) == Some(false) || text == "0"
            }
            Value::Scalar { text, plain: false } => text.is_empty() || text == "0",
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.iter().all(|e| e.node.is_default()),
        }
    }

    /// The value of a key, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// The text of a scalar, however it is written.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn what(&self) -> String {
        match &self.value {
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar { text, plain: false } => format!("the string {:?}", crate::scalar::cut(text)),
            Value::Scalar { text, plain: true } => crate::scalar::what(text),
        }
    }
}
