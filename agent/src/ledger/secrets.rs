//! Secrets in the ledger: sealed under the node's own key before anything touches the disk.
//!
//! ```text
//! STATE/identity/secret-key            the key, made when the first agent starts; it never leaves the node
//! STATE/ledger/templates/<revision>    materials of secrets have `sealed`, for (Template, revision, secret)
//! ```

use super::LedgerError;
use prost::Message;
use std::{
    collections::HashMap,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use strata_proto::{
    dispatch::{SecretContent, Template},
    types::{Kind, TemplateSpec},
};
use strata_seal::{SealError, Sealer};

const KEY_FILE: &str = "secret-key";

/// The node's key.
#[derive(Debug)]
pub(super) struct NodeKey {
    sealer: Sealer,
    path: PathBuf,
}

impl NodeKey {
    /// Reads the key, or makes it: then nothing is sealed with it yet.
    pub(super) fn open(state_dir: &Path) -> Result<Self, LedgerError> {
        let dir = state_dir.join("identity");
        let path = dir.join(KEY_FILE);
        let fail = |source: SealError| LedgerError::Key { path: path.clone(), source };
        if let Some(sealer) = Sealer::load(&path).map_err(fail)? {
            return Ok(Self { sealer, path });
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(super::disk("making", &dir))?;
        Ok(Self { sealer: Sealer::create(&path).map_err(fail)?, path })
    }

    /// The template as the ledger keeps it.
    pub(super) fn seal(&self, template: &Template) -> Result<TemplateSpec, LedgerError> {
        let mut spec = template.spec.clone().unwrap_or_default();
        for material in spec.materials.iter_mut().filter(|m| m.kind() == Kind::Secret) {
            material.data.clear();
            material.sealed.clear();
            // One that did not come is missed by whoever starts a container with it.
            let Some(content) = template.secrets.iter().find(|s| s.name == material.name) else { continue };
            let sealed = self.sealer.seal(&content.encode_to_vec(), &["Template", &template.revision, &material.name]);
            material.sealed = sealed.map_err(|source| LedgerError::Key { path: self.path.clone(), source })?;
        }
        Ok(spec)
    }

    /// The template as its pods need it, its secrets in clear: in memory only.
    pub(super) fn open_template(&self, revision: &str, spec: &mut TemplateSpec) -> Result<(), SealError> {
        for material in spec.materials.iter_mut().filter(|m| m.kind() == Kind::Secret) {
            if material.sealed.is_empty() {
                // Not there, or not sent: without a hash it counts as absent.
                material.sha256.clear();
                continue;
            }
            let clear = self.sealer.open(&material.sealed, &["Template", revision, &material.name])?;
            let content = SecretContent::decode(clear.as_slice()).map_err(|_| SealError::DoesNotOpen)?;
            material.data = HashMap::from_iter(content.data);
            material.sealed.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use crate::ledger::Ledger;
    use std::{fs, path::Path};
    use strata_proto::{
        dispatch::{Assignment, Assignments, SecretContent, Template},
        types::{Container, Kind, Material, PodTemplate, TemplateSpec},
    };

    fn frame() -> Assignments {
        let container = Container { name: "c".into(), image: "a".into(), ..Default::default() };
        let pod = PodTemplate { containers: vec![container], ..Default::default() };
        let material =
            Material { kind: Kind::Secret.into(), name: "db".into(), sha256: "h".into(), ..Default::default() };
        let spec = TemplateSpec { pod: Some(pod), materials: vec![material], ..Default::default() };
        let data = [("password".to_owned(), b"correct horse".to_vec())].into();
        Assignments {
            full: true,
            generation: 1,
            pods: vec![Assignment { uid: "u1".into(), template_revision: "r1".into(), ..Default::default() }],
            templates: vec![Template {
                revision: "r1".into(),
                spec: Some(spec),
                secrets: vec![SecretContent { name: "db".into(), data }],
            }],
            ..Default::default()
        }
    }

    fn files(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if entry.path().is_dir() {
                found.extend(files(&entry.path()));
            } else {
                found.push((entry.path(), fs::read(entry.path()).unwrap()));
            }
        }
        found
    }

    #[test]
    fn a_secret_is_sealed_on_disk_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        Ledger::open(dir.path()).unwrap().apply(&frame()).unwrap();
        for (path, content) in files(dir.path()) {
            assert!(!content.windows(13).any(|w| w == b"correct horse"), "{}", path.display());
        }
        let template = Ledger::open(dir.path()).unwrap().template("r1").unwrap().unwrap();
        assert_eq!(template.materials[0].content.as_ref().unwrap()["password"], b"correct horse");
    }

    #[test]
    fn a_secret_that_comes_later_is_taken_in() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let mut without = frame();
        without.templates[0].secrets.clear();
        ledger.apply(&without).unwrap();
        assert!(ledger.template("r1").unwrap().unwrap().materials[0].content.is_none());
        ledger.apply(&frame()).unwrap();
        assert!(ledger.template("r1").unwrap().unwrap().materials[0].content.is_some());
    }

    #[test]
    fn another_key_opens_nothing_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        Ledger::open(dir.path()).unwrap().apply(&frame()).unwrap();
        fs::remove_file(dir.path().join("identity/secret-key")).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let error = ledger.template("r1").unwrap_err().to_string();
        assert!(error.contains("secret-key") && error.contains("templates/r1"), "{error}");
        // The controller sends it again, and then it is sealed anew.
        ledger.apply(&frame()).unwrap();
        assert!(ledger.template("r1").unwrap().is_some());
    }
}
