//! One layer from one source: network -> bounded queue -> thread that hashes, decompresses and writes the layer file.

use crate::{
    decode::decoder,
    error::{ImageError, Result},
    hash::Hasher,
    limits,
    pipe::{PipeWriter, pipe},
    source::{BlobSource, Encoding, LayerRequest},
};
use futures::StreamExt as _;
use std::{
    io::{self, Read},
    time::Duration,
};
use strata_layer::{LayerError, LayerStore, LayerWriter};
use strata_model::Digest;
use tokio::time::{sleep, timeout};

/// Bytes that are decompressed at a time.
const COPY_BYTES: usize = 256 << 10;

/// Fetches, verifies and keeps a layer; gives the bytes of its layer file.
pub(crate) async fn fetch_layer(
    layers: &LayerStore,
    source: &dyn BlobSource,
    request: &LayerRequest,
    report: impl Fn(u64, u64) + Send + Sync,
) -> Result<u64> {
    let (writer, reader) = pipe();
    let job = WriteJob {
        layers: layers.clone(),
        diff_id: request.diff_id.clone(),
        blob: (source.encoding() == Encoding::Blob).then(|| request.blob.digest.clone()),
        compressed: source.encoding() == Encoding::Blob,
        from: source.name().to_owned(),
    };
    let writing = tokio::task::spawn_blocking(move || job.run(reader));
    let fed = feed(source, request, writer, report).await;
    // The queue is closed now, so the thread comes to its end: with the layer, with its own error, or because it was left alone.
    let written = writing.await.map_err(|_| ImageError::Cancelled { what: format!("layer {}", request.diff_id) })?;
    match fed {
        Ok(()) | Err(Fed::WriterStopped) => written,
        Err(Fed::Source(error)) => Err(error),
    }
}

enum Fed {
    WriterStopped,
    Source(ImageError),
}

/// Sends the layer's bytes, taking up a broken download where it was cut.
async fn feed(
    source: &dyn BlobSource,
    request: &LayerRequest,
    writer: PipeWriter,
    report: impl Fn(u64, u64) + Send + Sync,
) -> Result<(), Fed> {
    let what = format!("layer {}", request.diff_id);
    let mut total = (source.encoding() == Encoding::Blob).then_some(request.blob.size_bytes);
    let (mut offset, mut idle_tries) = (0_u64, 0_usize);
    for _ in 0..limits::RESUMES_MAX {
        let before = offset;
        let cut = match source.fetch_layer(request, offset).await {
            Ok(mut stream) => {
                total = total.or(stream.total_bytes);
                loop {
                    match timeout(limits::STALL_TIMEOUT, stream.chunks.next()).await {
                        Ok(Some(Ok(chunk))) => {
                            offset += chunk.len() as u64;
                            if total.is_some_and(|total| offset > total) {
                                return Err(Fed::Source(ImageError::Corrupt {
                                    what,
                                    from: source.name().into(),
                                    detail: format!("it is longer than the {} bytes announced", total.unwrap_or(0)),
                                }));
                            }
                            writer.send(chunk).await.map_err(|_| Fed::WriterStopped)?;
                            report(offset, total.unwrap_or(0));
                        }
                        Ok(Some(Err(error))) => break error,
                        Ok(None) if total.is_none_or(|total| offset == total) => {
                            return writer.finish().await.map_err(|_| Fed::WriterStopped);
                        }
                        Ok(None) => {
                            break ImageError::Corrupt {
                                what: what.clone(),
                                from: source.name().into(),
                                detail: format!("it ends after {offset} of {} bytes", total.unwrap_or(0)),
                            };
                        }
                        Err(_) => {
                            break ImageError::Unreachable {
                                what: what.clone(),
                                from: source.name().into(),
                                detail: format!("no byte for {} s", limits::STALL_TIMEOUT.as_secs()),
                            };
                        }
                    }
                }
            }
            Err(error) => error,
        };
        idle_tries = if offset > before { 0 } else { idle_tries + 1 };
        match pause_before_resume(&cut, idle_tries) {
            Some(pause) => {
                tracing::warn!(error = %cut, offset, "download was cut; taking it up again");
                sleep(pause).await;
            }
            None => return Err(Fed::Source(cut)),
        }
    }
    Err(Fed::Source(ImageError::Unreachable {
        what,
        from: source.name().into(),
        detail: format!("it was cut {} times", limits::RESUMES_MAX),
    }))
}

/// How long to wait before going on after `error`; `None` if going on is of no use.
fn pause_before_resume(error: &ImageError, idle_tries: usize) -> Option<Duration> {
    let pauses = match error {
        ImageError::Unreachable { .. } | ImageError::Busy { .. } => &limits::RESUME_PAUSES[..],
        // There are other peers, and the registry.
        ImageError::PeerUnreachable { .. } => &limits::RESUME_PAUSES[..2],
        // A clean early end: a proxy that gave up, or a blob that is short at its source.
        ImageError::Corrupt { .. } => &limits::RESUME_PAUSES[..3],
        _ => return None,
    };
    pauses.get(idle_tries).copied()
}

/// What the writing thread needs.
pub(crate) struct WriteJob {
    pub(crate) layers: LayerStore,
    pub(crate) diff_id: Digest,
    /// The blob's digest, where the stream is that blob.
    pub(crate) blob: Option<Digest>,
    /// Whether the stream may be compressed.
    pub(crate) compressed: bool,
    /// Who sends it, for errors.
    pub(crate) from: String,
}

impl WriteJob {
    /// Reads the stream to its end; gives the bytes of the layer file.
    pub(crate) fn run(self, reader: impl Read + Send) -> Result<u64> {
        let what = format!("layer {}", self.diff_id);
        let layer_error = |e| ImageError::layer(&self.from, &what, e);
        let hasher = self.blob.as_ref().map(|blob| Hasher::new(blob.algorithm()));
        let mut input = Input { reader, hasher, broken: false };
        let mut layer = self.layers.writer(self.diff_id.algorithm()).map_err(layer_error)?;
        let copied = copy(&mut input, self.compressed, &mut layer);
        let error = match copied {
            Ok(()) => None,
            Err(Copy::Read(_)) if input.broken => return Err(ImageError::Cancelled { what }),
            Err(Copy::Read(error)) => {
                Some(ImageError::Corrupt { what: what.clone(), from: self.from.clone(), detail: error.to_string() })
            }
            Err(Copy::Write(error)) => Some(layer_error(error)),
        };
        // Bytes that are not the blob that was asked for explain every other complaint about them.
        if error.as_ref().is_none_or(ImageError::blames_sender) {
            self.check_blob(&what, input)?;
        }
        if let Some(error) = error {
            return Err(error);
        }
        let published = layer.finish(Some(&self.diff_id)).map_err(layer_error)?;
        Ok(published.file_bytes)
    }

    /// Reads what is left of the stream and compares its digest with the one the manifest names.
    fn check_blob(&self, what: &str, mut input: Input<impl Read>) -> Result<()> {
        let Some(expected) = &self.blob else { return Ok(()) };
        if io::copy(&mut input, &mut io::sink()).is_err() {
            return Err(ImageError::Cancelled { what: what.into() });
        }
        match input.hasher.map(Hasher::finish) {
            Some(actual) if actual != *expected => Err(ImageError::DigestMismatch {
                what: format!("blob of {what}"),
                from: self.from.clone(),
                expected: expected.clone(),
                actual,
            }),
            _ => Ok(()),
        }
    }
}

/// Which side of a copy failed.
enum Copy {
    /// The source, or decompressing it.
    Read(io::Error),
    /// The layer file.
    Write(LayerError),
}

/// Copies a layer's stream, decompressed if it may be compressed, to its writer.
fn copy(from: impl Read + Send, decompress: bool, to: &mut LayerWriter) -> Result<(), Copy> {
    let mut from: Box<dyn Read + Send + '_> =
        if decompress { decoder(from).map_err(Copy::Read)? } else { Box::new(from) };
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.push(&buffer[..count]).map_err(Copy::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Copy::Read(error)),
        }
    }
}

/// The pipe, hashed as it is read; remembers whether an error was the pipe's own.
struct Input<R> {
    reader: R,
    hasher: Option<Hasher>,
    broken: bool,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer).inspect_err(|_| self.broken = true)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}
