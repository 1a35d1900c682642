//! Docker archives (docker image spec v1.2, "combined image JSON + filesystem changeset format").

use super::{Archive, FROM, Found, check_names};
use crate::{
    document::parse_config,
    error::{ImageError, Result},
    hash::digest_like,
    lease::Lease,
    made::canonical_manifest,
    store::ImageStore,
};
use serde::Deserialize;
use strata_model::{
    Digest,
    limits::{IMAGE_METADATA_BYTES_MAX, LAYERS_MAX},
};

/// One image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn items(archive: &Archive, prefix: &str) -> Result<Vec<Item>> {
    let bytes = archive.read(&format!("{prefix}manifest.json"), IMAGE_METADATA_BYTES_MAX)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| ImageError::invalid(FROM, format!("its manifest.json cannot be read: {e}")))
}

/// The tags that a `manifest.json` has for the image with this config.
pub(super) fn tags_of_config(archive: &Archive, prefix: &str, config: &Digest) -> Vec<String> {
    let items = items(archive, prefix).unwrap_or_default();
    let named = items.into_iter().filter(|item| digest_in_name(&item.config).as_ref() == Some(config));
    named.flat_map(|item| item.repo_tags.unwrap_or_default()).collect()
}

/// The digest that a config's file name carries: `<hex>.json` or `blobs/sha256/<hex>`.
fn digest_in_name(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next()?;
    format!("sha256:{}", last.strip_suffix(".json").unwrap_or(last)).parse().ok()
}

/// Takes the images out of a docker archive.
pub(super) fn take(
    store: &ImageStore,
    archive: &Archive,
    prefix: &str,
    lease: &mut Lease,
    named: bool,
) -> Result<Vec<Found>> {
    let items = items(archive, prefix)?;
    if items.is_empty() {
        return Err(ImageError::invalid(FROM, "its manifest.json names no image"));
    }
    let names: Vec<_> = items.iter().map(|item| item.repo_tags.clone().unwrap_or_default()).collect();
    check_names(&names, named)?;
    items.iter().zip(names).map(|(item, names)| take_image(store, archive, prefix, item, names, lease)).collect()
}

fn take_image(
    store: &ImageStore,
    archive: &Archive,
    prefix: &str,
    item: &Item,
    names: Vec<String>,
    lease: &mut Lease,
) -> Result<Found> {
    let what = format!("image {}", names.first().unwrap_or(&item.config));
    if item.layers.len() > LAYERS_MAX {
        let detail = format!("{} layers; at most {LAYERS_MAX} are possible", item.layers.len());
        return Err(ImageError::invalid(what, detail));
    }
    let config = archive.read(&format!("{prefix}{}", item.config), IMAGE_METADATA_BYTES_MAX)?;
    if let Some(expected) = digest_in_name(&item.config) {
        let actual = digest_like(&expected, &config);
        if actual != expected {
            return Err(ImageError::DigestMismatch {
                what: format!("config of {what}"),
                from: FROM.into(),
                expected,
                actual,
            });
        }
    }
    let (_, diff_ids) = parse_config(&what, &config, item.layers.len(), store.host())?;
    let mut layers = Vec::new();
    for (diff_id, name) in diff_ids.iter().zip(&item.layers) {
        store.import_layer(archive.open(&format!("{prefix}{name}"))?, diff_id, None, lease)?;
        let tar =
            store.layers().open_tar(diff_id).map_err(|e| ImageError::layer(FROM, &format!("layer {diff_id}"), e))?;
        layers.push((diff_id.clone(), tar.len()));
    }
    let manifest = canonical_manifest(&config, &layers)?;
    let (digest, config_digest) = (Digest::of(&manifest), Digest::of(&config));
    for (digest, bytes) in [(&digest, &manifest), (&config_digest, &config)] {
        lease.hold(digest);
        store.keep_blob(digest, bytes, FROM)?;
    }
    Ok(Found { digest, names })
}
