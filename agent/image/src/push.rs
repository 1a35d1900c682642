//! Pushing an image: what the registry lacks of it.
//!
//! A node keeps a layer's tar, not the blob that it came as. So a layer's blob is, in this order: at the registry already; mounted there from the
//! repository that the image came from; fetched from there again; compressed anew, and then it has another digest, the manifest names
//! that one, and the image has another digest at the registry than here. Its config, and with it its diff IDs and image ID, stay.

use crate::{
    document::{Descriptor, Document, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST},
    error::{ImageError, Result},
    hash::{Hasher, digest_like},
    limits,
    registry::{Content, Registry, Target},
    source::{BlobSource as _, LayerRequest},
    store::{ImageStore, StoredImage},
};
use flate2::{Compression, write::GzEncoder};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{self, Read as _, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use strata_model::{Algorithm, Digest, ImageName};

const GZIP: &str = "+gzip";
static NEXT_SPOOL: AtomicU64 = AtomicU64::new(0);

/// One piece of news about a push.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushNews {
    /// The blob; "" = the image as a whole.
    pub blob: String,
    /// Bytes sent.
    pub done_bytes: u64,
    /// Of so many; 0 = not known.
    pub total_bytes: u64,
    /// `Present`, `Mounted`, `Pushing`, `Pushed`.
    pub step: &'static str,
    /// For people.
    pub message: String,
}

/// Takes the news; must not block.
pub type PushSink = Arc<dyn Fn(PushNews) + Send + Sync>;

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest at the registry.
    pub digest: Digest,
    /// Layers that were compressed anew: diff ID and the blob's digest.
    pub recompressed: Vec<(Digest, Digest)>,
}

impl ImageStore {
    /// Pushes an image under a name with a tag. `known_as` is how it is called here: the repository that its blobs may be had from.
    ///
    /// # Errors
    /// `Missing` if it is not here, what the registry says, or when the disk fails.
    pub async fn push(
        &self,
        registry: &Registry,
        digest: &Digest,
        known_as: Option<&ImageName>,
        to: &ImageName,
        news: PushSink,
    ) -> Result<Pushed> {
        if to.tag().is_empty() || to.digest().is_some() {
            return Err(ImageError::invalid(format!("{to}"), "an image is pushed under a tag, not a digest"));
        }
        let mut lease = self.lease();
        lease.hold(digest);
        let image = self.image(digest).ok_or_else(|| ImageError::Missing(digest.clone()))?;
        image.layers.iter().for_each(|l| lease.hold(&l.diff_id));
        let (manifest_digest, config_digest) = (image.manifest_digest.clone(), image.config_digest.clone());
        let missing = digest.clone();
        let (manifest, config) = self
            .blocking(move |store| {
                let read = |d: &Digest| store.read_blob(d)?.ok_or_else(|| ImageError::Missing(missing.clone()));
                Ok((read(&manifest_digest)?, read(&config_digest)?))
            })
            .await?;
        let what = format!("image {to}");
        let Document::Manifest { layers, .. } = Document::parse(&what, &manifest)? else {
            return Err(ImageError::invalid(what, "its manifest is an index"));
        };
        let push = Push {
            store: self,
            registry,
            target: registry.target(to),
            from: known_as.filter(|_| image.from_registry),
            to,
            news,
        };
        let mut described = Vec::with_capacity(layers.len());
        let mut recompressed = Vec::new();
        for (layer, blob) in image.layers.iter().zip(layers) {
            let new = push.layer(&layer.diff_id, &blob).await?;
            if new.digest != blob.digest {
                recompressed.push((layer.diff_id.clone(), new.digest.clone()));
            }
            described.push(new);
        }
        push.config(&image, &config).await?;
        let (media_type, manifest) = match recompressed.is_empty() {
            true => (media_type_of(&manifest), manifest),
            false => (OCI_MANIFEST.to_owned(), manifest_of(&image, config.len() as u64, &described)?),
        };
        push.target.put_manifest(&what, to.tag(), &media_type, &manifest).await?;
        drop(lease);
        Ok(Pushed { digest: digest_like(&image.manifest_digest, &manifest), recompressed })
    }
}

struct Push<'a> {
    store: &'a ImageStore,
    registry: &'a Registry,
    target: Target,
    from: Option<&'a ImageName>,
    to: &'a ImageName,
    news: PushSink,
}

impl Push<'_> {
    fn tell(&self, blob: &Digest, step: &'static str, bytes: u64) {
        (self.news)(PushNews {
            blob: blob.to_string(),
            done_bytes: bytes,
            total_bytes: bytes,
            step,
            ..PushNews::default()
        });
    }

    /// Makes a layer's blob be at the registry; gives the one that it has now.
    async fn layer(&self, diff_id: &Digest, blob: &Descriptor) -> Result<Descriptor> {
        let what = format!("layer {diff_id}");
        if self.target.has(&what, &blob.digest).await? {
            self.tell(&blob.digest, "Present", blob.size_bytes);
            return Ok(blob.clone());
        }
        if let Some(from) = self.from {
            let elsewhere = from.repository() != self.to.repository();
            if from.registry() == self.to.registry()
                && elsewhere
                && self.target.mount(&what, &blob.digest, from.repository()).await?
            {
                self.tell(&blob.digest, "Mounted", blob.size_bytes);
                return Ok(blob.clone());
            }
            match self.fetched(from, diff_id, blob).await {
                Ok(content) => {
                    self.send(&what, &blob.digest, &content).await?;
                    return Ok(blob.clone());
                }
                Err(error @ (ImageError::DiskFull { .. } | ImageError::Io { .. })) => return Err(error),
                Err(error) => {
                    tracing::info!(%diff_id, %error, "the layer's blob cannot be had again; it is compressed anew")
                }
            }
        }
        let (content, digest) = self.compressed(diff_id).await?;
        let new = Descriptor { media_type: format!("{OCI_LAYER}{GZIP}"), digest, size_bytes: content.len };
        if self.target.has(&what, &new.digest).await? {
            self.tell(&new.digest, "Present", new.size_bytes);
        } else {
            self.send(&what, &new.digest, &content).await?;
        }
        Ok(new)
    }

    async fn config(&self, image: &StoredImage, bytes: &[u8]) -> Result<()> {
        let (what, digest) = (format!("config {}", image.config_digest), &image.config_digest);
        if self.target.has(&what, digest).await? {
            self.tell(digest, "Present", bytes.len() as u64);
            return Ok(());
        }
        let mut file = self.spool()?;
        file.write_all(bytes).map_err(|e| ImageError::io("writing", self.store.scratch(), e))?;
        self.send(&what, digest, &Content::new(file, bytes.len() as u64)).await
    }

    async fn send(&self, what: &str, digest: &Digest, content: &Content) -> Result<()> {
        let (news, blob, total_bytes) = (self.news.clone(), digest.to_string(), content.len);
        let sent = move |done_bytes| {
            news(PushNews { blob: blob.clone(), done_bytes, total_bytes, step: "Pushing", message: String::new() });
        };
        self.target.upload(what, digest, content, sent).await?;
        self.tell(digest, "Pushed", content.len);
        Ok(())
    }

    /// The blob as its source has it, verified.
    async fn fetched(&self, from: &ImageName, diff_id: &Digest, blob: &Descriptor) -> Result<Content> {
        let source = self.registry.source(from);
        let request = LayerRequest { diff_id: diff_id.clone(), blob: blob.clone() };
        let mut chunks = source.fetch_layer(&request, 0).await?.chunks;
        let (mut file, mut hasher, mut len) = (self.spool()?, Hasher::new(blob.digest.algorithm()), 0);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            hasher.update(&chunk);
            len += chunk.len() as u64;
            file.write_all(&chunk).map_err(|e| ImageError::io("writing", self.store.scratch(), e))?;
        }
        let actual = hasher.finish();
        if actual != blob.digest {
            let (what, from) = (format!("layer {diff_id}"), source.name().to_owned());
            return Err(ImageError::DigestMismatch { what, from, expected: blob.digest.clone(), actual });
        }
        Ok(Content::new(file, len))
    }

    /// The layer's tar, compressed: the same tar gives the same blob.
    async fn compressed(&self, diff_id: &Digest) -> Result<(Content, Digest)> {
        let diff_id = diff_id.clone();
        let file = self.spool()?;
        self.store
            .blocking(move |store| {
                let failed = |e| ImageError::io("compressing", store.layers().path(&diff_id), e);
                let tar = store.layers().open_tar(&diff_id);
                let mut tar = tar.map_err(|e| ImageError::layer("this node", &format!("layer {diff_id}"), e))?;
                let out = Hashing { file, hasher: Hasher::new(Algorithm::Sha256), len: 0 };
                let mut encoder = GzEncoder::new(out, Compression::default());
                let mut buffer = vec![0; limits::EXPORT_BUFFER_BYTES];
                loop {
                    match tar.read(&mut buffer).map_err(failed)? {
                        0 => break,
                        got => encoder.write_all(&buffer[..got]).map_err(failed)?,
                    }
                }
                let Hashing { file, hasher, len } = encoder.finish().map_err(failed)?;
                Ok((Content::new(file, len), hasher.finish()))
            })
            .await
    }

    /// A file without a name: it goes with its descriptor, whatever happens.
    fn spool(&self) -> Result<File> {
        let path = self.store.scratch().join(format!(".tmp-push-{}", NEXT_SPOOL.fetch_add(1, Ordering::Relaxed)));
        let made = File::options().read(true).write(true).create_new(true).open(&path);
        let file = made.map_err(|e| ImageError::io("creating", &path, e))?;
        fs::remove_file(&path).map_err(|e| ImageError::io("unlinking", &path, e))?;
        Ok(file)
    }
}

struct Hashing {
    file: File,
    hasher: Hasher,
    len: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.len += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn media_type_of(manifest: &[u8]) -> String {
    let said = serde_json::from_slice::<Value>(manifest).ok();
    let said = said.as_ref().and_then(|m| m["mediaType"].as_str()).filter(|t| !t.is_empty());
    said.unwrap_or(OCI_MANIFEST).to_owned()
}

/// A manifest of blobs some of which are new. Layers that keep theirs are named by OCI's words for what they are.
fn manifest_of(image: &StoredImage, config_bytes: u64, layers: &[Descriptor]) -> Result<Vec<u8>> {
    let media_type = |own: &str| match own {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => format!("{OCI_LAYER}{GZIP}"),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => format!("{OCI_LAYER}+zstd"),
        "application/vnd.docker.image.rootfs.diff.tar" => OCI_LAYER.to_owned(),
        own => own.to_owned(),
    };
    let descriptor = |media_type: &str, digest: &Digest, size: u64| json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
    let layers: Vec<Value> =
        layers.iter().map(|l| descriptor(&media_type(&l.media_type), &l.digest, l.size_bytes)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, &image.config_digest, config_bytes),
        "layers": layers,
    });
    serde_json::to_vec(&manifest).map_err(|e| ImageError::invalid("manifest", e.to_string()))
}
