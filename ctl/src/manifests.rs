//! Reading manifests from files, directories and stdin. Everything is read and parsed before anything is done with it.

mod around;
mod parse;
mod set;

pub use set::{APPLIED_BY, PRUNED, Set, is_compose_volume, mark, parse_name};

use crate::exit::Failure;
use around::Around;
use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};
use strata_manifest::Build;
use strata_model::limits::MANIFEST_BYTES_MAX;
use strata_proto::{
    document::is_namespaced,
    types::{Kind, Object},
};

/// Files of one directory.
const FILES_MAX: usize = 1000;

/// One object to apply.
#[derive(Debug)]
pub struct Manifest {
    pub object: Object,
    /// The image that has to be there first, with the absolute path of its directory.
    pub build: Option<Build>,
}

/// The objects of all sources, in the order in which they can be applied: what others need comes first, else as they are written. Warnings
/// have been said on stderr.
pub fn read_all(sources: &[PathBuf], namespace: &str, profiles: &[String]) -> Result<Vec<Manifest>, Failure> {
    let mut objects = Vec::new();
    let mut errors = Vec::new();
    for source in sources {
        for Text { name, bytes, path } in texts_of(source)? {
            let around = path.map_or_else(|| Around::nowhere(profiles), |path| Around::file(&path, profiles));
            match parse::parse(&name, &bytes, &around) {
                Ok(parsed) => {
                    parsed.warnings.iter().for_each(|warning| crate::output::talk(&format!("warning: {warning}")));
                    objects.extend(parsed.manifests);
                }
                Err(more) => errors.extend(more),
            }
        }
    }
    if !errors.is_empty() {
        return Err(Failure::failed(errors.join("\n")));
    }
    if objects.is_empty() {
        let names: Vec<String> = sources.iter().map(|path| path.display().to_string()).collect();
        return Err(Failure::failed(format!("{}: no object in there", names.join(", "))));
    }
    objects.sort_by_key(|manifest| rank(manifest.object.kind_of()));
    for Manifest { object, .. } in &mut objects {
        if is_namespaced(object.kind_of()) {
            let meta = object.meta.get_or_insert_default();
            if meta.namespace.is_empty() {
                namespace.clone_into(&mut meta.namespace);
            }
        }
    }
    Ok(objects)
}

/// Namespaces first, then what pods mount and how they are found, then pods.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Namespace => 0,
        Kind::Config => 1,
        Kind::Secret => 2,
        Kind::Volume => 3,
        Kind::Service => 4,
        Kind::Workload => 6,
        Kind::Pod => 7,
        _ => 5,
    }
}

/// A text, the name to speak of it, and its file unless it is stdin.
struct Text {
    name: String,
    bytes: Vec<u8>,
    path: Option<PathBuf>,
}

/// The texts of a source.
fn texts_of(source: &Path) -> Result<Vec<Text>, Failure> {
    if source == Path::new("-") {
        let bytes = read_bounded("stdin", io::stdin().lock())?;
        return Ok(vec![Text { name: "stdin".into(), bytes, path: None }]);
    }
    let metadata = fs::metadata(source).map_err(|e| cannot_read(source, &e))?;
    let files = if metadata.is_dir() { files_of(source)? } else { vec![source.to_owned()] };
    let mut texts = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let file = fs::File::open(&path).map_err(|e| cannot_read(&path, &e))?;
        let bytes = read_bounded(&name, file)?;
        texts.push(Text { name, bytes, path: Some(path) });
    }
    Ok(texts)
}

/// The manifests in a directory, by name.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| cannot_read(dir, &e))? {
        let path = entry.map_err(|e| cannot_read(dir, &e))?.path();
        let is_manifest = path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json");
        if is_manifest && path.is_file() {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(Failure::failed(format!("{}: more than {FILES_MAX} manifests", dir.display())));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::failed(format!("{}: no *.yaml, *.yml or *.json in there", dir.display())));
    }
    Ok(files)
}

fn read_bounded(name: &str, from: impl io::Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.take(MANIFEST_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
    if bytes.len() > MANIFEST_BYTES_MAX {
        let mib = MANIFEST_BYTES_MAX >> 20;
        return Err(Failure::failed(format!("{name}: a manifest may have {mib} MiB, this one has more: split it")));
    }
    Ok(bytes)
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot read {}: {error}", path.display()))
}
