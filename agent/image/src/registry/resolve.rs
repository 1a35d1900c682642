//! From a name to a digest, config and layers, without downloading layers.

use super::Registry;
use crate::{
    error::{ImageError, Result},
    hash::digest_like,
    limits,
    source::LayerRequest,
    store::{Chain, Link, follow},
};
use oci_spec::image::ImageConfiguration;
use strata_model::{Digest, ImageName, Layer, PinnedImage};

/// What a name means now.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The normalised name that was asked for.
    pub name: ImageName,
    /// Of the index or manifest, as the registry gave it.
    pub digest: Digest,
    /// Of the manifest for this node's platform.
    pub manifest_digest: Digest,
    /// Of the config.
    pub config_digest: Digest,
    /// Entrypoint, command, environment, user, …
    pub config: ImageConfiguration,
    /// Bottom first. Sizes are those of the compressed blobs.
    pub layers: Vec<Layer>,
    /// `linux/amd64`
    pub platform: String,
    /// The documents themselves, verified: index (if any), manifest, config.
    pub(crate) documents: Vec<(Digest, Vec<u8>)>,
}

impl Resolved {
    /// What a node needs to get it.
    #[must_use]
    pub fn pinned(&self) -> PinnedImage {
        PinnedImage {
            name: self.name.clone(),
            digest: self.digest.clone(),
            from_registry: true,
            layers: self.layers.clone(),
        }
    }
}

impl Registry {
    /// Asks the image's registry what the name means. A name with a digest is checked to exist.
    ///
    /// # Errors
    /// See [`ImageError::reason`]: `ImageNotFound`, `Unauthorized`, `RegistryUnreachable`, `UnsupportedPlatform`, …
    pub async fn resolve(&self, image: &ImageName) -> Result<Resolved> {
        let what = format!("image {image}");
        let source = self.source(image);
        let from = self.repository(image).name();
        let reference = image.digest().map_or_else(|| image.tag().to_owned(), ToString::to_string);
        let (mut bytes, claimed) = source.manifest(&what, &reference).await?;
        let claimed = claimed.and_then(|text| text.parse::<Digest>().ok());
        // By tag the registry's word is compared with its bytes; by digest the name's own is what counts.
        let expected = image.digest().cloned().or(claimed).unwrap_or_else(|| Digest::of(&bytes));
        check(&what, &from, &expected, &bytes)?;
        let (mut next, mut documents, mut blobs) = (expected, Vec::new(), Vec::new());
        for _ in 0..=limits::INDEX_DEPTH_MAX {
            let link = follow(&what, &next, &bytes, &self.0.host)?;
            blobs.push(next.clone());
            documents.push((next.clone(), bytes));
            match link {
                Link::Manifest(digest) => {
                    bytes = source.manifest(&what, &digest.to_string()).await?.0;
                    check(&what, &from, &digest, &bytes)?;
                    next = digest;
                }
                Link::Config { manifest_digest, config, layers } => {
                    let bytes = source.blob(&format!("config of {what}"), &config.digest).await?;
                    check(&what, &from, &config.digest, &bytes)?;
                    let parts = (manifest_digest, config, layers);
                    let chain = Chain::close(&what, blobs, parts, &bytes, &self.0.host)?;
                    documents.push((chain.config_digest.clone(), bytes));
                    return Ok(Resolved::new(image, chain, documents, self.0.host.to_string()));
                }
            }
        }
        Err(ImageError::invalid(what, "indexes within indexes"))
    }
}

impl Resolved {
    fn new(name: &ImageName, chain: Chain, documents: Vec<(Digest, Vec<u8>)>, platform: String) -> Self {
        let size = |layer: &LayerRequest| Layer { diff_id: layer.diff_id.clone(), size_bytes: layer.blob.size_bytes };
        Self {
            name: name.clone(),
            layers: chain.layers.iter().map(size).collect(),
            digest: chain.digest,
            manifest_digest: chain.manifest_digest,
            config_digest: chain.config_digest,
            config: chain.config,
            platform,
            documents,
        }
    }
}

fn check(what: &str, from: &str, expected: &Digest, bytes: &[u8]) -> Result<()> {
    let actual = digest_like(expected, bytes);
    if actual == *expected {
        return Ok(());
    }
    Err(ImageError::DigestMismatch { what: what.into(), from: from.into(), expected: expected.clone(), actual })
}
