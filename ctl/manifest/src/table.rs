//! Tables of fields: which names a map may have, and what becomes of each.

/// What becomes of a field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Class {
    /// It is read.
    Read,
    /// It is known and means nothing here: accepted with a warning that says why.
    NoEffect(&'static str),
    /// One of these values is what happens anyway (accepted with a warning); any other is an error, its effect is not built yet.
    Only(&'static [&'static str]),
    /// Its effect is not built yet: an error, unless it says what leaving it out would say.
    NotYet,
}

/// The fields of a map.
pub(crate) type Table = &'static [(&'static str, Class)];
