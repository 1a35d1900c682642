//! Images that are made on this node: out of a docker archive, by a build, or from a container's writable layer.

use crate::{
    document::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST},
    error::{ImageError, Result},
    lease::Lease,
    store::{ImageStore, StoredImage},
};
use oci_spec::image::ImageConfiguration;
use serde::Serialize;
use std::sync::Arc;
use strata_model::{Digest, limits::LAYERS_MAX};

/// How errors name where the bytes came from.
const FROM: &str = "this node";

/// The canonical manifest. The order of members, the lack of white space and of annotations are part of the digests that
/// clusters hold: never change them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CanonicalManifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: CanonicalDescriptor<'a>,
    layers: Vec<CanonicalDescriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CanonicalDescriptor<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
}

/// The canonical manifest of an image: a pure function of its config's bytes and its uncompressed layers.
pub(crate) fn canonical_manifest(config: &[u8], layers: &[(Digest, u64)]) -> Result<Vec<u8>> {
    let descriptor =
        |media_type, digest: &Digest, size| CanonicalDescriptor { media_type, digest: digest.to_string(), size };
    let manifest = CanonicalManifest {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: descriptor(OCI_CONFIG, &Digest::of(config), config.len() as u64),
        layers: layers.iter().map(|(digest, size)| descriptor(OCI_LAYER, digest, *size)).collect(),
    };
    serde_json::to_vec(&manifest).map_err(|e| ImageError::invalid("canonical manifest", e.to_string()))
}

impl ImageStore {
    /// Makes an image of a config whose layers (its diff IDs) are all here: it gets a canonical manifest, so that the same config is the same
    /// image on any node. `lease` keeps its parts until the caller has told the cluster of it. Blocks on the disk.
    ///
    /// # Errors
    /// When the config is none for this platform, a layer is missing, or the disk fails.
    pub fn make(&self, config: &[u8], lease: &mut Lease) -> Result<Arc<StoredImage>> {
        let parsed: ImageConfiguration = serde_json::from_slice(config)
            .map_err(|e| ImageError::invalid("the new image", format!("its config cannot be read: {e}")))?;
        let diff_ids = parsed.rootfs().diff_ids();
        if diff_ids.len() > LAYERS_MAX {
            let detail = format!("{} layers; at most {LAYERS_MAX} are possible", diff_ids.len());
            return Err(ImageError::invalid("the new image", detail));
        }
        let mut layers = Vec::with_capacity(diff_ids.len());
        for text in diff_ids {
            let diff_id: Digest =
                text.parse().map_err(|e| ImageError::invalid("the new image", format!("diff ID: {e}")))?;
            lease.hold(&diff_id);
            let tar = self
                .layers()
                .open_tar(&diff_id)
                .map_err(|e| ImageError::layer(FROM, &format!("layer {diff_id}"), e))?;
            layers.push((diff_id, tar.len()));
        }
        let manifest = canonical_manifest(config, &layers)?;
        let (digest, config_digest) = (Digest::of(&manifest), Digest::of(config));
        for (digest, bytes) in [(&digest, manifest.as_slice()), (&config_digest, config)] {
            lease.hold(digest);
            self.keep_blob(digest, bytes, FROM)?;
        }
        self.adopt(&digest, false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_canonical_manifest_never_changes() {
        let manifest = canonical_manifest(b"{}", &[(Digest::of(b"x"), 1)]).unwrap();
        assert_eq!(
            Digest::of(&manifest).to_string(),
            "sha256:2b36fbaa88974b10f29b92d36d522d7aa52ebce86f7a6093cce8deeceface88c"
        );
    }
}
