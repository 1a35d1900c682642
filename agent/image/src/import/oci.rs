//! OCI image layouts (image-layout.md).

use super::{Archive, FROM, Found, check_names};
use crate::{
    document::{Document, IndexEntry, is_image_entry},
    error::{ImageError, Result},
    lease::Lease,
    limits,
    store::{Chain, ImageStore, Link, follow},
};
use strata_model::{Digest, limits::IMAGE_METADATA_BYTES_MAX};

/// containerd and buildkit: the whole name.
const NAME: &str = "io.containerd.image.name";
/// OCI annotations.md: a tag or a whole name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Takes the images for this platform out of a layout.
pub(super) fn take(
    store: &ImageStore,
    archive: &Archive,
    prefix: &str,
    lease: &mut Lease,
    named: bool,
) -> Result<Vec<Found>> {
    let index = archive.read(&format!("{prefix}index.json"), IMAGE_METADATA_BYTES_MAX)?;
    let Document::Index(entries) = Document::parse("index.json of the archive", &index)? else {
        return Err(ImageError::invalid(FROM, "its index.json is no index"));
    };
    let usable: Vec<&IndexEntry> = entries.iter().filter(|entry| is_image_entry(entry) && runs(store, entry)).collect();
    if usable.is_empty() {
        // Names the platforms in its error, or says that there is none.
        crate::document::choose(FROM, &entries, store.host())?;
    }
    let mut images: Vec<(&Digest, Vec<String>)> = Vec::new();
    for entry in usable {
        let names = names(archive, prefix, entry);
        match images.iter_mut().find(|(digest, _)| **digest == entry.descriptor.digest) {
            Some((_, known)) => known.extend(names),
            None => images.push((&entry.descriptor.digest, names)),
        }
    }
    check_names(&images.iter().map(|(_, names)| names.clone()).collect::<Vec<_>>(), named)?;
    images
        .into_iter()
        .map(|(digest, names)| {
            take_image(store, archive, prefix, digest, lease)?;
            Ok(Found { digest: digest.clone(), names })
        })
        .collect()
}

fn runs(store: &ImageStore, entry: &IndexEntry) -> bool {
    entry.platform.as_ref().is_none_or(|(os, arch, variant)| store.host().rank(os, arch, variant).is_some())
}

/// The whole names of an entry: its own, else those that a docker manifest in the same archive has for its config.
fn names(archive: &Archive, prefix: &str, entry: &IndexEntry) -> Vec<String> {
    let annotation = |key| entry.annotations.get(key).cloned();
    let whole = |name: &String| name.contains(['/', ':']);
    if let Some(name) = annotation(NAME).or_else(|| annotation(REF_NAME).filter(whole)) {
        return vec![name];
    }
    let config = blob(archive, prefix, &entry.descriptor.digest).ok().and_then(|bytes| {
        match Document::parse(FROM, &bytes).ok()? {
            Document::Manifest { config, .. } => Some(config.digest),
            Document::Index(_) => None,
        }
    });
    config.map(|config| super::docker::tags_of_config(archive, prefix, &config)).unwrap_or_default()
}

fn blob(archive: &Archive, prefix: &str, digest: &Digest) -> Result<Vec<u8>> {
    archive.read(&path(prefix, digest), IMAGE_METADATA_BYTES_MAX)
}

fn path(prefix: &str, digest: &Digest) -> String {
    format!("{prefix}blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Takes one image: documents first, each verified as it is kept, then layers.
fn take_image(store: &ImageStore, archive: &Archive, prefix: &str, digest: &Digest, lease: &mut Lease) -> Result<()> {
    let what = format!("image {digest}");
    let keep = |digest: &Digest, lease: &mut Lease| {
        lease.hold(digest);
        let bytes = blob(archive, prefix, digest)?;
        store.keep_blob(digest, &bytes, FROM)?;
        Ok::<_, ImageError>(bytes)
    };
    let (mut next, mut blobs) = (digest.clone(), Vec::new());
    for _ in 0..=limits::INDEX_DEPTH_MAX {
        let bytes = keep(&next, lease)?;
        blobs.push(next.clone());
        match follow(&what, &next, &bytes, store.host())? {
            Link::Manifest(digest) => next = digest,
            Link::Config { manifest_digest, config, layers } => {
                let bytes = keep(&config.digest, lease)?;
                let chain = Chain::close(&what, blobs, (manifest_digest, config, layers), &bytes, store.host())?;
                for layer in &chain.layers {
                    let section = archive.open(&path(prefix, &layer.blob.digest))?;
                    store.import_layer(section, &layer.diff_id, Some(&layer.blob.digest), lease)?;
                }
                return Ok(());
            }
        }
    }
    Err(ImageError::invalid(what, "indexes within indexes"))
}
