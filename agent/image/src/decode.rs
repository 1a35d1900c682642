//! Layer blobs to tars: gzip (also several members), zstd (also several frames) or neither, told apart by the first bytes.

use crate::limits;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufReader, Read};

const BUFFER_BYTES: usize = 128 << 10;

/// Wraps a stream of unknown compression so that it reads decompressed.
pub(crate) fn decoder<'a>(from: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    // The first read may give a single byte, so the four that tell are collected first.
    let mut from = from;
    let mut first = Vec::with_capacity(4);
    from.by_ref().take(4).read_to_end(&mut first)?;
    let from = BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(first.clone()).chain(from));
    // RFC 1952 2.3.1; RFC 8878 3.1.1 and 3.1.2 (a stream may begin with a skippable frame).
    let gzip = first.starts_with(&[0x1f, 0x8b]);
    let zstd = first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (first.len() >= 4 && first[0] & 0xf0 == 0x50 && first[1..4] == [0x2a, 0x4d, 0x18]);
    if gzip {
        Ok(Box::new(MultiGzDecoder::new(from)))
    } else if zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(from)?;
        decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX)?;
        Ok(Box::new(decoder))
    } else {
        Ok(Box::new(from))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoder(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_form_reads_as_the_same_bytes() {
        let members = [gzip(b"one "), gzip(b"two")].concat();
        let frames = [zstd::encode_all(&b"one "[..], 1).unwrap(), zstd::encode_all(&b"two"[..], 1).unwrap()].concat();
        let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9], &frames[..]].concat();
        for form in [&members[..], &frames, &skippable, b"one two"] {
            assert_eq!(decoded(form).unwrap(), b"one two");
        }
        assert_eq!(decoded(b"").unwrap(), b"");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let whole = gzip(&[7; 10_000]);
        assert!(decoded(&whole[..whole.len() - 4]).is_err());
        let whole = zstd::encode_all(&[7; 10_000][..], 1).unwrap();
        assert!(decoded(&whole[..whole.len() - 2]).is_err());
    }
}
