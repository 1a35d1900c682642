//! Images out of archives: OCI layouts (image-layout.md) and docker archives (`docker save`, `skopeo copy … docker-archive:`),
//! plain or compressed, told apart by their content.
//!
//! The archive is copied, decompressed, into a file without a name and read from there by offsets. Nothing in it is ever
//! unpacked under a name that it chooses.

mod archive;
mod docker;
mod oci;

use crate::{
    error::{ImageError, Result},
    fetch::WriteJob,
    lease::Lease,
    limits,
    store::{ImageStore, StoredImage},
};
use archive::{Archive, Section};
use std::{io, sync::Arc};
use strata_model::{Digest, ImageName};

/// How errors name where the bytes came from.
const FROM: &str = "the archive";

/// An image that an archive held.
#[derive(Debug, Clone)]
pub struct ImportedImage {
    /// Its name in the cluster.
    pub name: ImageName,
    /// The image, complete on this node.
    pub image: Arc<StoredImage>,
}

/// An image found in an archive, with the names it carries.
struct Found {
    digest: Digest,
    names: Vec<String>,
}

impl ImageStore {
    /// Takes all images for this platform out of an archive. An OCI layout's images keep the digests of their manifests or
    /// indexes; those of a docker archive get a canonical manifest, so that the same archive gives the same digest everywhere.
    /// With `name` the archive must hold one image, and the names it carries are ignored.
    ///
    /// # Errors
    /// When the archive is none, is damaged, has no image for this platform or no usable name, or when the disk fails.
    /// Images that came before the error stay.
    pub async fn import(
        &self,
        reader: impl io::Read + Send + 'static,
        name: Option<ImageName>,
    ) -> Result<Vec<ImportedImage>> {
        self.blocking(move |store| store.import_blocking(reader, name)).await
    }

    fn import_blocking(&self, reader: impl io::Read + Send, name: Option<ImageName>) -> Result<Vec<ImportedImage>> {
        let archive = Archive::spool(reader, self.scratch())?;
        let mut lease = self.lease();
        let found = if let Some(prefix) = archive.prefix_of("oci-layout") {
            oci::take(self, &archive, &prefix, &mut lease, name.is_some())?
        } else if let Some(prefix) = archive.prefix_of("manifest.json") {
            docker::take(self, &archive, &prefix, &mut lease, name.is_some())?
        } else {
            let detail = "it has neither an oci-layout nor a manifest.json file at its top";
            return Err(ImageError::invalid(FROM, detail));
        };
        let mut images = Vec::new();
        for one in found {
            let image = self.adopt(&one.digest, false)?;
            let names = match &name {
                Some(name) => vec![name.clone()],
                None => parse_names(&one)?,
            };
            images.extend(names.into_iter().map(|name| ImportedImage { name, image: image.clone() }));
        }
        Ok(images)
    }

    /// Writes one layer of an archive unless it is here. `blob` is the digest of the stored form, where the archive has one.
    fn import_layer(&self, section: Section, diff_id: &Digest, blob: Option<&Digest>, lease: &mut Lease) -> Result<()> {
        lease.hold(diff_id);
        if self.layer_bytes(diff_id).is_some() {
            return Ok(());
        }
        let job = WriteJob {
            layers: self.layers().clone(),
            diff_id: diff_id.clone(),
            blob: blob.cloned(),
            compressed: true,
            from: FROM.into(),
        };
        job.run(section).map(|_| ())
    }
}

/// Refuses an archive whose images cannot be named, before anything is taken out of it.
fn check_names(found: &[Vec<String>], named: bool) -> Result<()> {
    if found.len() > limits::ARCHIVE_IMAGES_MAX {
        let detail = format!("{} images; at most {} are possible", found.len(), limits::ARCHIVE_IMAGES_MAX);
        return Err(ImageError::invalid(FROM, detail));
    }
    if named && found.len() > 1 {
        let detail = format!("it holds {} images, so a single name does not do; leave the name out", found.len());
        return Err(ImageError::NameNeeded { detail });
    }
    if !named && found.iter().any(Vec::is_empty) {
        return Err(ImageError::NameNeeded { detail: "it carries no full image name; give one".into() });
    }
    Ok(())
}

fn parse_names(found: &Found) -> Result<Vec<ImageName>> {
    let parse = |name: &String| {
        ImageName::parse(name)
            .map_err(|e| ImageError::NameNeeded { detail: format!("it carries a bad name: {e}; give one") })
    };
    found.names.iter().map(parse).collect()
}
