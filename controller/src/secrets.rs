//! Secrets at rest: what people give is sealed before the store sees it, and opened only for the nodes that run a pod using it.
//!
//! ```text
//! <state_dir>/secret-key      the cluster's key, made at the first start; back it up apart from the store
//! Secret.spec.sealed          the data, sealed for (Secret, namespace, name, uid)
//! Secret.status               keys, and a keyed hash: equal data has equal words
//! Template.materials.sealed   the data as a template revision fixed it, sealed for (Material, name, hash)
//! ```

use crate::objects::meta;
use prost::Message as _;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};
use strata_proto::{
    dispatch::SecretContent,
    types::{Kind, Material, Object, SecretSpec, SecretStatus, object},
};
use strata_seal::{SealError, Sealer};
use strata_store::Snapshot;

/// Name of the key's file in the state directory.
pub const KEY_FILE: &str = "secret-key";

/// Why secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key is gone, but secrets need it.
    #[error(
        "{count} secrets of this cluster are sealed with a key that is not there: put {} back from your backup",
        path.display()
    )]
    KeyMissing {
        /// Where it was.
        path: PathBuf,
        /// How many objects need it.
        count: usize,
    },
    /// The key is another one.
    #[error("{} is not the key that {what} was sealed with: put the right one back from your backup", path.display())]
    KeyWrong {
        /// The file.
        path: PathBuf,
        /// What does not open.
        what: String,
    },
    /// The file itself.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What was opened is not what was sealed.
    #[error("{0}: what was sealed is no data of a secret")]
    Damaged(String),
}

/// Seals and opens secrets under the cluster's key.
#[derive(Debug)]
pub struct Vault {
    sealer: Sealer,
}

/// Keys and their bytes.
type Data = HashMap<String, Vec<u8>>;

impl Vault {
    /// Takes the key of this state directory, or makes one if nothing was ever sealed.
    ///
    /// # Errors
    /// [`VaultError`] if sealed secrets exist and the key is missing or another one.
    pub fn open(state_dir: &Path, snapshot: &Snapshot) -> Result<Self, VaultError> {
        let path = state_dir.join(KEY_FILE);
        let sealed = snapshot.list(Kind::Secret, None).filter(|o| spec(o).is_some_and(|s| !s.sealed.is_empty()));
        match Sealer::load(&path)? {
            Some(sealer) => {
                let vault = Self { sealer };
                for secret in sealed {
                    vault.data(&secret).map_err(|e| match e {
                        VaultError::Seal(SealError::DoesNotOpen) => {
                            let what = format!("secret {}/{}", meta(&secret).namespace, meta(&secret).name);
                            VaultError::KeyWrong { path: path.clone(), what }
                        }
                        other => other,
                    })?;
                }
                Ok(vault)
            }
            None => match sealed.count() {
                0 => Ok(Self { sealer: Sealer::create(&path)? }),
                count => Err(VaultError::KeyMissing { path, count }),
            },
        }
    }

    /// A vault with this key, for tests.
    #[cfg(test)]
    #[must_use]
    pub fn of_key(key: &[u8; strata_seal::KEY_BYTES]) -> Self {
        Self { sealer: Sealer::new(key) }
    }

    /// Puts what people give into the form that is stored. `present` is the secret that is there, `uid` that of the object.
    ///
    /// Equal data stays sealed as it is. A secret as answers show it, with keys but without data, keeps the data that is there.
    ///
    /// # Errors
    /// [`VaultError::Seal`].
    pub fn seal(&self, wanted: &mut Object, present: Option<&Object>, uid: &str) -> Result<(), VaultError> {
        let place = (meta(wanted).namespace.clone(), meta(wanted).name.clone());
        let Some(object::Kind::Secret(secret)) = &mut wanted.kind else { return Ok(()) };
        let spec = secret.spec.get_or_insert_default();
        if spec.r#type.is_empty() {
            "Opaque".clone_into(&mut spec.r#type);
        }
        spec.sealed.clear();
        let data = std::mem::take(&mut spec.data);
        let shown = secret.status.take().unwrap_or_default();
        let old = present.and_then(|o| match &o.kind {
            Some(object::Kind::Secret(old)) => Some((old.spec.clone()?, old.status.clone()?)),
            _ => None,
        });
        let status = self.status(&data);
        match old {
            Some((old_spec, old_status))
                if status.sha256 == old_status.sha256 || (data.is_empty() && !shown.keys.is_empty()) =>
            {
                spec.sealed = old_spec.sealed;
                secret.status = Some(old_status);
            }
            _ => {
                let clear = SecretContent { name: String::new(), data }.encode_to_vec();
                spec.sealed = self.sealer.seal(&clear, &["Secret", &place.0, &place.1, uid])?;
                secret.status = Some(status);
            }
        }
        Ok(())
    }

    /// What is shown of data: its keys, and a word that tells it from other data.
    fn status(&self, data: &Data) -> SecretStatus {
        let sorted: BTreeMap<&String, &Vec<u8>> = data.iter().collect();
        let parts = sorted.iter().flat_map(|(k, v)| [k.as_bytes(), v.as_slice()]);
        SecretStatus { sha256: self.sealer.word(parts), keys: sorted.keys().map(|k| (*k).clone()).collect() }
    }

    /// The data of a stored secret.
    fn data(&self, secret: &Object) -> Result<Data, VaultError> {
        let m = meta(secret);
        let sealed = spec(secret).map(|s| s.sealed.as_slice()).unwrap_or_default();
        let clear = self.sealer.open(sealed, &["Secret", &m.namespace, &m.name, &m.uid])?;
        let content = SecretContent::decode(clear.as_slice());
        content.map(|c| c.data).map_err(|_| VaultError::Damaged(format!("secret {}/{}", m.namespace, m.name)))
    }

    /// A secret as a template revision keeps it.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn material(&self, secret: &Object) -> Result<Material, VaultError> {
        let data = self.data(secret)?;
        let (name, sha256) = (meta(secret).name.clone(), self.status(&data).sha256);
        let clear = SecretContent { name: name.clone(), data }.encode_to_vec();
        let sealed = self.sealer.seal(&clear, &["Material", &name, &sha256])?;
        Ok(Material { kind: Kind::Secret.into(), name, sha256, data: HashMap::new(), sealed })
    }

    /// The content of a template's secret, for a node.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn content(&self, material: &Material) -> Result<SecretContent, VaultError> {
        let clear = self.sealer.open(&material.sealed, &["Material", &material.name, &material.sha256])?;
        SecretContent::decode(clear.as_slice())
            .map_err(|_| VaultError::Damaged(format!("secret {} of a template", material.name)))
    }
}

fn spec(secret: &Object) -> Option<&SecretSpec> {
    match &secret.kind {
        Some(object::Kind::Secret(s)) => s.spec.as_ref(),
        _ => None,
    }
}

/// Takes out of an object what answers never carry: the data of secrets, sealed or not.
pub fn redact(object: &mut Object) {
    match &mut object.kind {
        Some(object::Kind::Secret(secret)) => {
            if let Some(spec) = &mut secret.spec {
                spec.data.clear();
                spec.sealed.clear();
            }
        }
        Some(object::Kind::Template(template)) => {
            for material in template.spec.iter_mut().flat_map(|s| &mut s.materials) {
                material.sealed.clear();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
