//! `environment` and `env_file` of a service.

use strata_proto::types::EnvVar;

use super::{dotenv, loose, project::Project};
use crate::{
    at::At,
    read::{EXTENSION, Fields, fields},
    report::Report,
    scalar::cut,
    table::{Class::Read, Table},
    tree::{Node, Value},
};

const FILE: Table = &[("path", Read), ("required", Read), ("format", Read), (EXTENSION, Read)];

/// Bytes of all variables of a service.
const BYTES_MAX: usize = 512 << 10;

/// The variables of a service: those of the files in order, then its own.
pub(crate) fn read(of: &Fields<'_, '_>, project: &Project<'_, '_>, report: &mut Report) -> Vec<EnvVar> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let size = |variables: &[(String, String)]| variables.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
    if let Some(node) = of.get("env_file") {
        let here = of.at().field("env_file");
        match &node.value {
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    file(item, here.item(i), project, &mut variables, report);
                    // It is refused below; there is no need to read more.
                    if size(&variables) > BYTES_MAX {
                        break;
                    }
                }
            }
            _ => drop(file(node, here, project, &mut variables, report)),
        }
    }
    for (name, value, pos) in loose::pairs(of, "environment", report) {
        if name.is_empty() {
            report.error(pos, of.at().field("environment"), "a variable has a name");
            continue;
        }
        // Without a value it is the environment's, and nothing if it is not there.
        if let Some(value) = value.or_else(|| project.variables.get(&name)) {
            variables.push((name, value));
        }
    }
    let size = size(&variables);
    if size > BYTES_MAX {
        report.error(of.pos(), *of.at(), format!("its variables have {size} bytes, at most {BYTES_MAX} fit"));
        return Vec::new();
    }
    // The last one of a name counts, at its place.
    let mut seen = std::collections::HashSet::new();
    let mut last: Vec<EnvVar> = Vec::with_capacity(variables.len());
    for (name, value) in variables.into_iter().rev() {
        if seen.insert(name.clone()) {
            last.push(EnvVar { name, value, from: None });
        }
    }
    last.reverse();
    last
}

fn file(
    node: &Node,
    at: At<'_>,
    project: &Project<'_, '_>,
    variables: &mut Vec<(String, String)>,
    report: &mut Report,
) -> Option<()> {
    let long = match &node.value {
        Value::Map(_) => Some(fields(node, at, FILE, report)?),
        _ => None,
    };
    let path = match &long {
        Some(f) => {
            f.require("path", report)?;
            loose::field(f, "path", report)?
        }
        None => loose::text(node, at, report)?,
    };
    let required = long.and_then(|f| f.flag("required", report)).unwrap_or(true);
    let raw = match long.and_then(|f| loose::field(&f, "format", report)).as_deref() {
        None | Some("") => false,
        Some("raw") => true,
        Some(other) => {
            report.error(node.pos, at.field("format"), format!("{:?} is no format: raw is", cut(other)));
            return None;
        }
    };
    let text = match project.around.read(&path) {
        Ok(Some(bytes)) => String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned()),
        Ok(None) if !required => return None,
        Ok(None) => Err("there is no such file".to_owned()),
        Err(why) => Err(why),
    };
    let pairs = text.and_then(|text| {
        dotenv::parse(&text, (!raw).then_some(&project.variables)).map_err(|(line, why)| format!("line {line}: {why}"))
    });
    match pairs {
        Ok(pairs) => variables.extend(pairs),
        Err(why) => report.error(node.pos, at, format!("{:?}: {why}", cut(&path))),
    }
    Some(())
}
