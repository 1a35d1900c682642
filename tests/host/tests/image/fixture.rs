//! Images made of bytes, and stores to put them in.

use serde_json::{Value, json};
use std::{collections::HashMap, io::Write as _};
use strata_image::{ImageStore, Platform};
use strata_layer::LayerStore;
use strata_model::Digest;
use tempfile::TempDir;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub fn store() -> (TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (dir, store)
}

pub fn open(dir: &std::path::Path) -> ImageStore {
    ImageStore::open(dir, LayerStore::open(dir).unwrap()).unwrap()
}

/// A tar of files and symbolic links under any names, also such as the tar crate refuses to write.
pub fn tar(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    for (name, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A layer with one file.
pub fn layer(text: &str) -> Vec<u8> {
    tar(&[("file", text.as_bytes())], &[])
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

pub fn config(tars: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
    serde_json::to_vec(&json!({
        "architecture": Platform::host().architecture, "os": "linux",
        "config": {"Cmd": ["/a"], "Volumes": null, "ExposedPorts": null},
        "rootfs": {"type": "layers", "diff_ids": ids}
    }))
    .unwrap()
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

/// An image as a registry has it.
#[derive(Clone)]
pub struct Image {
    pub manifest: Vec<u8>,
    /// Config and layers by digest.
    pub blobs: HashMap<String, Vec<u8>>,
    pub diff_ids: Vec<Digest>,
    pub layer_blobs: Vec<Digest>,
}

impl Image {
    /// Makes an image of tars and the form in which each is stored.
    pub fn new(layers: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let tars: Vec<&[u8]> = layers.iter().map(|(tar, _)| &tar[..]).collect();
        let config = config(&tars);
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|(_, blob)| descriptor(media_type, blob)).collect::<Vec<_>>()
        });
        let key = |bytes: &[u8]| Digest::of(bytes).to_string();
        let mut blobs: HashMap<_, _> = layers.iter().map(|(_, blob)| (key(blob), blob.clone())).collect();
        blobs.insert(key(&config), config.clone());
        Self {
            manifest: serde_json::to_vec(&manifest).unwrap(),
            blobs,
            diff_ids: tars.iter().map(|tar| Digest::of(tar)).collect(),
            layer_blobs: layers.iter().map(|(_, blob)| Digest::of(blob)).collect(),
        }
    }

    pub fn simple() -> Self {
        let tar = layer("simple");
        Self::new(&[(tar.clone(), gzip(&tar))])
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub fn layer_blob(&self, number: usize) -> &Vec<u8> {
        &self.blobs[&self.layer_blobs[number].to_string()]
    }
}
