//! Writing objects to stdout: as a table, JSON, YAML or names.

use crate::{
    columns::{self, Look},
    exit::Failure,
    kind::word_of,
    table::Table,
};
use serde_json::Value;
use std::io::{self, Write as _};
use strata_proto::types::{Kind, Object};

/// The form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// More columns
    Wide,
    /// Documents as JSON: an array for lists
    Json,
    /// Documents as YAML
    Yaml,
    /// KIND/NAME a line
    Name,
}

/// Writes text to stdout as it is.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Writes bytes of a container to stdout, at once.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Says something to people, on stderr. If nobody listens there, it is lost.
pub fn talk(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// The present time, Unix milliseconds.
pub fn now_ms() -> u64 {
    strata_proto::timestamp_ms(Some(&strata_proto::timestamp_now()))
}

/// Whether one object or several are shown: JSON has an object or an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    One,
    Many,
}

/// The whole text for these objects, which are of one kind.
pub fn render(
    kind: Kind,
    objects: &[Object],
    number: Number,
    format: Format,
    with_namespace: bool,
    now_ms: u64,
) -> Result<String, Failure> {
    match format {
        Format::Table | Format::Wide => {
            let look = Look { wide: format == Format::Wide, with_namespace };
            let rows: Vec<_> = objects.iter().map(|object| columns::row(object, look, now_ms)).collect();
            Ok(Table::new(columns::headers(kind, look)).render(&rows))
        }
        Format::Json => {
            let value = value_of(objects, number)?;
            serde_json::to_string_pretty(&value).map(|text| text + "\n").map_err(|e| no_form("JSON", &e))
        }
        Format::Yaml => {
            let value = value_of(objects, number)?;
            yaml(&value)
        }
        Format::Name => Ok(objects.iter().map(|object| name_line(object) + "\n").collect()),
    }
}

/// `kind/name`.
pub fn name_line(object: &Object) -> String {
    let name = object.meta.as_ref().map_or("", |meta| &meta.name);
    format!("{}/{name}", word_of(object.kind_of()))
}

/// The document of one object.
pub fn document(object: &Object) -> Result<Value, Failure> {
    strata_proto::document::to_json(object).map_err(|e| no_form("JSON", &e))
}

/// A document as YAML.
pub fn yaml(document: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(document).map_err(|e| no_form("YAML", &e))
}

fn value_of(objects: &[Object], number: Number) -> Result<Value, Failure> {
    let mut documents = objects.iter().map(document).collect::<Result<Vec<_>, _>>()?;
    match (number, documents.len()) {
        (Number::One, 1) => Ok(documents.swap_remove(0)),
        _ => Ok(Value::Array(documents)),
    }
}

fn no_form(form: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("cannot write the object as {form}: {error}"))
}
