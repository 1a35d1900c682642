//! Images as archives: OCI layouts (image-layout.md) and docker archives (docker image spec v1.2).
//!
//! Layers go out as the tars that they are here, bit for bit, so an image's config and with it its diff IDs and its image ID are what they were. The
//! manifest is the canonical one, because it names uncompressed layers.

use crate::{
    document::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST},
    error::{ImageError, Result},
    hash::digest_like,
    store::{ImageStore, StoredImage},
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write},
    sync::Arc,
};
use strata_model::{Digest, ImageName};

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI layout as a tar.
    Oci,
    /// What `docker load` takes.
    Docker,
}

/// An image to export.
#[derive(Debug, Clone)]
pub struct Export {
    /// Under which name; `None`: none.
    pub name: Option<ImageName>,
    /// What it is pinned by.
    pub digest: Digest,
}

impl ImageStore {
    /// Writes images into one archive; parts that they share are in it once. Blocks on the disk.
    ///
    /// # Errors
    /// `Missing` if an image is not here, or what the disk or the writer says.
    pub fn export(&self, images: &[Export], format: ArchiveFormat, out: impl Write) -> Result<()> {
        let mut lease = self.lease();
        let mut found = Vec::new();
        for image in images {
            lease.hold(&image.digest);
            let stored = self.image(&image.digest).ok_or_else(|| ImageError::Missing(image.digest.clone()))?;
            stored.layers.iter().for_each(|l| lease.hold(&l.diff_id));
            let config = self.read_blob(&stored.config_digest)?;
            let config = config.ok_or_else(|| ImageError::Missing(image.digest.clone()))?;
            found.push(Part { name: image.name.clone(), stored, config });
        }
        let mut archive = Out { store: self, out, written: BTreeSet::new() };
        match format {
            ArchiveFormat::Oci => archive.oci(&found)?,
            ArchiveFormat::Docker => archive.docker(&found)?,
        }
        archive.end()
    }
}

struct Part {
    name: Option<ImageName>,
    stored: Arc<StoredImage>,
    config: Vec<u8>,
}

struct Out<'a, W> {
    store: &'a ImageStore,
    out: W,
    written: BTreeSet<String>,
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

impl<W: Write> Out<'_, W> {
    fn oci(&mut self, images: &[Part]) -> Result<()> {
        self.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut manifests = Vec::new();
        for image in images {
            let layers = self.sizes(&image.stored)?;
            let config_digest = &image.stored.config_digest;
            let manifest = match image.stored.manifest_digest == image.stored.digest {
                // Its own, if that is what it would be: then the digest is the same in the archive as here.
                true => self.store.read_blob(&image.stored.digest)?.filter(|own| names_tars(own, &layers)),
                false => None,
            };
            let manifest = match manifest {
                Some(own) => own,
                None => manifest_of(&image.config, config_digest, &layers)?,
            };
            let digest = digest_like(&image.stored.digest, &manifest);
            self.file(&blob_path(&digest), &manifest)?;
            self.file(&blob_path(config_digest), &image.config)?;
            for (layer, _) in &layers {
                self.layer(&blob_path(layer), layer)?;
            }
            let mut entry = json!({
                "mediaType": OCI_MANIFEST,
                "digest": digest.to_string(),
                "size": manifest.len(),
                "platform": {"architecture": image.stored.config.architecture().to_string(), "os": image.stored.config.os().to_string()},
            });
            if let Some(name) = &image.name {
                let name = name.to_string();
                entry["annotations"] =
                    json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
            }
            manifests.push(entry);
        }
        let index =
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});
        self.file("index.json", index.to_string().as_bytes())
    }

    fn docker(&mut self, images: &[Part]) -> Result<()> {
        let mut items = Vec::new();
        for image in images {
            let config = format!("{}.json", image.stored.config_digest.hex());
            self.file(&config, &image.config)?;
            let mut layers = Vec::new();
            for (layer, _) in self.sizes(&image.stored)? {
                let path = format!("{}.tar", layer.hex());
                self.layer(&path, &layer)?;
                layers.push(path);
            }
            // docker knows names of Docker Hub by their short form.
            let tags: Vec<String> = image.name.iter().map(|n| short(&n.to_string())).collect();
            items.push(json!({"Config": config, "RepoTags": tags, "Layers": layers}));
        }
        self.file("manifest.json", serde_json::Value::Array(items).to_string().as_bytes())
    }

    /// The layers with the sizes of their tars.
    fn sizes(&self, image: &StoredImage) -> Result<Vec<(Digest, u64)>> {
        image.layers.iter().map(|l| Ok((l.diff_id.clone(), self.tar(&l.diff_id)?.len()))).collect()
    }

    fn tar(&self, layer: &Digest) -> Result<strata_layer::TarReader> {
        self.store.layers().open_tar(layer).map_err(|e| ImageError::layer("this node", &format!("layer {layer}"), e))
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        if self.begin(path, bytes.len() as u64)? {
            self.write(bytes)?;
            self.pad(bytes.len() as u64)?;
        }
        Ok(())
    }

    fn layer(&mut self, path: &str, layer: &Digest) -> Result<()> {
        let mut tar = self.tar(layer)?;
        let size = tar.len();
        if !self.begin(path, size)? {
            return Ok(());
        }
        let mut buffer = vec![0; crate::limits::EXPORT_BUFFER_BYTES];
        loop {
            let got =
                tar.read(&mut buffer).map_err(|e| ImageError::io("reading", self.store.layers().path(layer), e))?;
            if got == 0 {
                return self.pad(size);
            }
            self.write(&buffer[..got])?;
        }
    }

    /// Writes a header, unless the archive has this file already.
    fn begin(&mut self, path: &str, size: u64) -> Result<bool> {
        if !self.written.insert(path.to_owned()) {
            return Ok(false);
        }
        let mut header = tar::Header::new_ustar();
        header.set_path(path).map_err(|e| ImageError::invalid("archive", e.to_string()))?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        self.write(header.as_bytes())?;
        Ok(true)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = usize::try_from(size % 512).unwrap_or(0);
        if rest == 0 { Ok(()) } else { self.write(&[0; 512][rest..]) }
    }

    fn end(&mut self) -> Result<()> {
        self.write(&[0; 1024])?;
        self.out.flush().map_err(gone)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(gone)
    }
}

fn gone(error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => ImageError::Cancelled { what: "an export".into() },
        _ => ImageError::io("writing", "the archive", error),
    }
}

/// `docker.io/library/hello:1` as docker shows it.
fn short(name: &str) -> String {
    let hub = name.strip_prefix("docker.io/").unwrap_or(name);
    hub.strip_prefix("library/").unwrap_or(hub).to_owned()
}

fn names_tars(manifest: &[u8], layers: &[(Digest, u64)]) -> bool {
    let Ok(crate::document::Document::Manifest { layers: own, .. }) = crate::document::Document::parse("", manifest)
    else {
        return false;
    };
    own.len() == layers.len()
        && own.iter().zip(layers).all(|(a, (digest, size))| a.digest == *digest && a.size_bytes == *size)
}

fn manifest_of(config: &[u8], config_digest: &Digest, layers: &[(Digest, u64)]) -> Result<Vec<u8>> {
    let descriptor = |media_type: &str, digest: &Digest, size: u64| json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
    let layers: Vec<_> = layers.iter().map(|(digest, size)| descriptor(OCI_LAYER, digest, *size)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config_digest, config.len() as u64),
        "layers": layers,
    });
    serde_json::to_vec(&manifest).map_err(|e| ImageError::invalid("manifest", e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_where_docker_has_them_so() {
        for (name, want) in [
            ("docker.io/library/hello:1", "hello:1"),
            ("docker.io/a/b:1", "a/b:1"),
            ("registry.example:5000/x:1", "registry.example:5000/x:1"),
        ] {
            assert_eq!(short(name), want);
        }
    }
}
