//! Where in a document one is: `spec.template.spec.containers[0].image`.

use std::fmt;

use crate::scalar::cut;

/// A path from the root of a document, made of borrowed steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Key(&'a str),
    Item(usize),
}

impl<'a> At<'a> {
    /// The document itself.
    pub(crate) const ROOT: At<'static> = At { parent: None, step: Step::Root };

    /// A field below this place.
    pub(crate) fn field(&'a self, name: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Field(name) }
    }

    /// An entry of a map whose keys are free, such as labels.
    pub(crate) fn key(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(key) }
    }

    /// An item of a list.
    pub(crate) fn item(&'a self, index: usize) -> At<'a> {
        At { parent: Some(self), step: Step::Item(index) }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nested = self.parent.is_some_and(|p| p.parent.is_some());
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if nested => write!(f, ".{}", cut(name)),
            Step::Field(name) => f.write_str(&cut(name)),
            Step::Key(key) => write!(f, "[{}]", cut(key)),
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}
