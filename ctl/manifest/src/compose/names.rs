//! Names of objects, made from those of a Compose file.

/// Label of everything that a project made.
pub(crate) const PROJECT: &str = "com.docker.compose.project";
/// Label of the pods of a service, beside [`PROJECT`].
pub(crate) const SERVICE: &str = "com.docker.compose.service";

/// The name as DNS can have it: lower case, '-' for '_' and '.'.
pub(crate) fn dns(name: &str) -> String {
    let plain = |c: char| match c {
        '_' | '.' => '-',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
}

/// Whether a Compose file may use the name: letters, digits, '-', '_' and '.'.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=63).contains(&name.len()) && name.bytes().all(plain) && !dns(name).is_empty()
}

/// Whether it can be the name of a service object.
pub(crate) fn is_dns_label(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('-') && !name.ends_with('-')
}

/// A project's name: what Compose makes of a directory's.
pub(crate) fn project(directory: &str) -> String {
    let kept: String = directory
        .to_ascii_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect();
    kept.trim_start_matches(['-', '_']).trim_end_matches(['-', '_']).chars().take(40).collect()
}

/// Whether it can be a project's name.
pub(crate) fn is_project(name: &str) -> bool {
    (1..=40).contains(&name.len()) && project(name) == name
}
