//! `STRATA_<KEY>` over the file's values. Lists are separated by commas, labels are `key=value`.

use super::ConfigError;
use toml::{Table, Value};

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Number,
    List,
    Map,
}

const KEYS: &[(&str, Shape)] = &[
    ("node", Shape::Text),
    ("controller", Shape::Text),
    ("token", Shape::Text),
    ("token_file", Shape::Text),
    ("state_dir", Shape::Text),
    ("listen", Shape::Text),
    ("advertise", Shape::Text),
    ("cgroup_parent", Shape::Text),
    ("shim", Shape::Text),
    ("bridge", Shape::Text),
    ("overlay", Shape::Text),
    ("labels", Shape::Map),
    ("id_start", Shape::Number),
    ("insecure_registries", Shape::List),
    ("registry_auth_file", Shape::Text),
    ("build_context_bytes_max", Shape::Number),
    ("metrics_listen", Shape::Text),
];

/// Parts of `capacity`: `STRATA_CAPACITY_CPU_MILLIS` and so on.
const CAPACITY_KEYS: &[&str] = &["cpu_millis", "memory_bytes", "pods"];

/// The keys that the environment can set, those of `capacity` with its name before them.
#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = String> {
    let capacity = CAPACITY_KEYS.iter().map(|key| format!("capacity_{key}"));
    KEYS.iter().map(|(key, _)| (*key).to_owned()).chain(capacity)
}

/// Puts what the environment sets into the table; says whether there was anything.
pub(super) fn apply(table: &mut Table, env: impl Fn(&str) -> Option<String>) -> Result<bool, ConfigError> {
    let mut any = false;
    for (key, shape) in KEYS {
        if let Some(text) = env(&variable(key)) {
            table.insert((*key).to_owned(), value(key, *shape, &text)?);
            any = true;
        }
    }
    for key in CAPACITY_KEYS {
        if let Some(text) = env(&variable(&format!("capacity_{key}"))) {
            let capacity = table.entry("capacity").or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(capacity) = capacity {
                capacity.insert((*key).to_owned(), value(key, Shape::Number, &text)?);
                any = true;
            }
        }
    }
    Ok(any)
}

fn variable(key: &str) -> String {
    format!("STRATA_{}", key.to_ascii_uppercase())
}

fn value(key: &'static str, shape: Shape, text: &str) -> Result<Value, ConfigError> {
    let bad = |why: &str| ConfigError::Value { key, why: format!("in the environment {}: {why}", variable(key)) };
    let parts = || text.split(',').map(str::trim).filter(|p| !p.is_empty());
    Ok(match shape {
        Shape::Text => Value::String(text.to_owned()),
        Shape::Number => Value::Integer(text.trim().parse().map_err(|_| bad("a whole number is expected"))?),
        Shape::List => Value::Array(parts().map(|p| Value::String(p.to_owned())).collect()),
        Shape::Map => {
            let pair = |p: &str| p.split_once('=').map(|(k, v)| (k.to_owned(), Value::String(v.to_owned())));
            Value::Table(parts().map(pair).collect::<Option<Table>>().ok_or_else(|| bad("key=value,... is expected"))?)
        }
    })
}
