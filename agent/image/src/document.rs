//! Manifests, indexes and configs: from bytes to what is used of them (OCI image-spec manifest.md, image-index.md, config.md;
//! Docker image manifest version 2, schema 2).

use crate::{
    Platform,
    error::{ImageError, Result},
    limits,
};
use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use std::collections::BTreeMap;
use strata_model::{Digest, limits::LAYERS_MAX};

/// Media types that are accepted when a manifest is asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// A reference to content by digest (OCI descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What it says it is.
    pub media_type: String,
    /// Of the bytes as they are stored at the source.
    pub digest: Digest,
    /// Bytes as they are stored at the source.
    pub size_bytes: u64,
}

/// An index entry.
#[derive(Debug, Clone)]
pub(crate) struct IndexEntry {
    pub(crate) descriptor: Descriptor,
    /// os, architecture, variant, where the entry says so.
    pub(crate) platform: Option<(String, String, String)>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What a manifest document is.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
    Index(Vec<IndexEntry>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<WirePlatform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct WirePlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDocument {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<WireDescriptor>,
    layers: Option<Vec<WireDescriptor>>,
    manifests: Option<Vec<WireDescriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl WireDescriptor {
    fn checked(self, what: &str) -> Result<Descriptor> {
        let digest = self.digest.parse().map_err(|e| ImageError::invalid(what, format!("{e}")))?;
        Ok(Descriptor { media_type: self.media_type, digest, size_bytes: self.size })
    }
}

impl Document {
    /// Reads a manifest or an index. `what` names it in errors.
    ///
    /// A document that could be taken for both is refused (CVE-2021-41190).
    pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Self> {
        let wire: WireDocument =
            serde_json::from_slice(bytes).map_err(|e| ImageError::invalid(what, format!("not a manifest: {e}")))?;
        let unsupported = |media_type: &str| {
            Err(ImageError::UnsupportedMediaType { what: what.into(), media_type: media_type.into() })
        };
        if wire.fs_layers.is_some() || wire.schema_version == Some(1) {
            return unsupported("application/vnd.docker.distribution.manifest.v1+json");
        }
        let said = wire.media_type.as_deref().unwrap_or("");
        match (wire.config, wire.layers, wire.manifests) {
            (Some(config), Some(layers), None) if matches!(said, "" | OCI_MANIFEST | DOCKER_MANIFEST) => {
                Self::manifest(what, config, layers)
            }
            (None, None, Some(entries)) if matches!(said, "" | OCI_INDEX | DOCKER_INDEX) => Self::index(what, entries),
            (None, None, None) => Err(ImageError::invalid(what, "it has neither layers nor manifests")),
            (_, _, Some(_)) if matches!(said, "" | OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_INDEX) => {
                Err(ImageError::invalid(what, "it is a manifest and an index at the same time"))
            }
            _ if matches!(said, "" | OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_INDEX) => {
                Err(ImageError::invalid(what, "its content does not fit its media type"))
            }
            _ => unsupported(said),
        }
    }

    fn manifest(what: &str, config: WireDescriptor, layers: Vec<WireDescriptor>) -> Result<Self> {
        if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            // An artifact (chart, signature, …): it has layers, but no root file system.
            return Err(ImageError::UnsupportedMediaType { what: what.into(), media_type: config.media_type });
        }
        if layers.len() > LAYERS_MAX {
            return Err(ImageError::invalid(
                what,
                format!("{} layers; at most {LAYERS_MAX} are possible", layers.len()),
            ));
        }
        let config = config.checked(what)?;
        let layers = layers.into_iter().map(|layer| layer.checked(what)).collect::<Result<Vec<_>>>()?;
        if let Some(layer) = layers.iter().find(|layer| !is_layer(&layer.media_type)) {
            return Err(ImageError::UnsupportedMediaType {
                what: format!("layer {} of {what}", layer.digest),
                media_type: layer.media_type.clone(),
            });
        }
        Ok(Self::Manifest { config, layers })
    }

    fn index(what: &str, entries: Vec<WireDescriptor>) -> Result<Self> {
        if entries.len() > limits::INDEX_ENTRIES_MAX {
            return Err(ImageError::invalid(what, format!("more than {} entries", limits::INDEX_ENTRIES_MAX)));
        }
        let entries = entries.into_iter().map(|mut entry| {
            let platform = entry
                .platform
                .take()
                .filter(|p| !p.os.is_empty() || !p.architecture.is_empty())
                .map(|p| (p.os, p.architecture, p.variant.unwrap_or_default()));
            let annotations = entry.annotations.take().unwrap_or_default();
            Ok(IndexEntry { descriptor: entry.checked(what)?, platform, annotations })
        });
        Ok(Self::Index(entries.collect::<Result<_>>()?))
    }
}

/// Layers are told apart by their first bytes, so only the families matter here; foreign layers lie outside of registries.
fn is_layer(media_type: &str) -> bool {
    let base = media_type.strip_suffix("+gzip").or_else(|| media_type.strip_suffix("+zstd")).unwrap_or(media_type);
    matches!(
        base,
        OCI_LAYER
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
    )
}

/// Whether an index entry may lead to an image: not an attestation, signature or another artifact.
pub(crate) fn is_image_entry(entry: &IndexEntry) -> bool {
    matches!(entry.descriptor.media_type.as_str(), "" | OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_INDEX)
        && !entry.annotations.contains_key("vnd.docker.reference.type")
}

/// The entry for this machine: best variant first, then in the index's order; entries without a platform last.
pub(crate) fn choose<'a>(what: &str, entries: &'a [IndexEntry], host: &Platform) -> Result<&'a Descriptor> {
    let ranked = entries.iter().filter(|entry| is_image_entry(entry)).filter_map(|entry| match &entry.platform {
        Some((os, architecture, variant)) => host.rank(os, architecture, variant).map(|rank| (rank, entry)),
        None => Some((usize::MAX, entry)),
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| &entry.descriptor).ok_or_else(|| {
        ImageError::UnsupportedPlatform { what: what.into(), wanted: host.to_string(), offered: offered(entries) }
    })
}

fn offered(entries: &[IndexEntry]) -> String {
    let mut names: Vec<String> =
        entries
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|(os, ..)| os != "unknown")
            .map(|(os, architecture, variant)| {
                if variant.is_empty() {
                    format!("{os}/{architecture}")
                } else {
                    format!("{os}/{architecture}/{variant}")
                }
            })
            .take(32)
            .collect();
    names.dedup();
    if names.is_empty() { "no platform at all".into() } else { names.join(", ") }
}

/// Reads a config and checks that it fits this machine and the manifest's number of layers.
pub(crate) fn parse_config(
    what: &str,
    bytes: &[u8],
    layers: usize,
    host: &Platform,
) -> Result<(ImageConfiguration, Vec<Digest>)> {
    let config: ImageConfiguration = serde_json::from_slice(bytes)
        .map_err(|e| ImageError::invalid(what, format!("its config cannot be read: {e}")))?;
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    if os != host.os || architecture != host.architecture {
        return Err(ImageError::UnsupportedPlatform {
            what: what.into(),
            wanted: host.to_string(),
            offered: format!("{os}/{architecture}"),
        });
    }
    let diff_ids = config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| text.parse::<Digest>().map_err(|e| ImageError::invalid(what, format!("diff ID: {e}"))))
        .collect::<Result<Vec<_>>>()?;
    if diff_ids.len() != layers {
        return Err(ImageError::invalid(
            what,
            format!("its config names {} layers, its manifest {layers}", diff_ids.len()),
        ));
    }
    Ok((config, diff_ids))
}
