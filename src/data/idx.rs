//! IDX, the format of MNIST and Fashion-MNIST: bytes 0, 0, a type (8 is u8), a rank, the sizes as big-endian u32, the
//! values in row-major order; often gzipped (<http://yann.lecun.com/exdb/mnist/>).

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::{Error, Result};

/// Images of an IDX file, (N, H, W).
pub(super) struct IdxImages {
    pub(super) count: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) pixels: Vec<u8>,
}

/// Reads images from the contents of `path`, gzipped or plain.
pub(super) fn images(path: &Path, contents: &[u8]) -> Result<IdxImages> {
    let (sizes, pixels) = values(path, contents, 3)?;
    let (count, height, width) = (sizes[0], sizes[1], sizes[2]);
    if pixels.is_empty() {
        return Err(Error::file(path, format!("{count} images of {height}x{width}, expected at least one pixel")));
    }
    Ok(IdxImages { count, height, width, pixels })
}

/// Reads labels from the contents of `path`, gzipped or plain: `count` of them, each below `classes`.
pub(super) fn labels(path: &Path, contents: &[u8], count: usize, classes: usize) -> Result<Vec<u32>> {
    let (sizes, labels) = values(path, contents, 1)?;
    if sizes[0] != count {
        return Err(Error::file(path, format!("{} labels, expected {count}, one for each image", sizes[0])));
    }
    if let Some((at, label)) = labels.iter().enumerate().find(|&(_, &label)| usize::from(label) >= classes) {
        let last = classes - 1;
        return Err(Error::file(path, format!("label {label} in record {at} (from 0), expected 0 to {last}")));
    }
    Ok(labels.into_iter().map(u32::from).collect())
}

/// The sizes and values of an IDX file of u8 with `rank` dimensions.
fn values(path: &Path, contents: &[u8], rank: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let zipped = contents.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read + '_> =
        if zipped { Box::new(MultiGzDecoder::new(contents)) } else { Box::new(contents) };
    let mut read = |count: u64, what: &str| {
        let mut bytes = Vec::new();
        match reader.by_ref().take(count).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(e) => {
                let got = bytes.len();
                Err(Error::file_because(path, format!("corrupt or truncated gzip after {got} bytes of {what}"), e))
            }
        }
    };

    let header = read(4 + 4 * rank as u64, "the header")?;
    let magic = [0, 0, 8, rank as u8];
    if !header.starts_with(&magic) {
        let (got, expected) = (hex(&header[..header.len().min(4)]), hex(&magic));
        return Err(Error::file(
            path,
            format!("starts with bytes {got:?}, expected the IDX magic number {expected:?}"),
        ));
    }
    if header.len() < 4 + 4 * rank {
        let (got, expected) = (header.len(), 4 + 4 * rank);
        return Err(Error::file(path, format!("ends after {got} bytes, expected a header of {expected}")));
    }
    let sizes: Vec<u32> = header[4..].chunks(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
    let shape = sizes.iter().map(u32::to_string).collect::<Vec<_>>().join("x");
    // Nothing is allocated for what a header claims: a wrong one ends as a count that does not match.
    let expected = sizes.iter().try_fold(1u64, |product, &n| product.checked_mul(u64::from(n)));
    let Some(expected) = expected.filter(|&n| n < u64::MAX) else {
        return Err(Error::file(
            path,
            format!("its header announces {shape} values, expected a size that fits in memory"),
        ));
    };
    let data = read(expected + 1, "the values")?;
    match data.len() as u64 {
        n if n < expected => Err(Error::file(path, format!("{n} values, expected {expected} ({shape}): truncated"))),
        n if n > expected => Err(Error::file(path, format!("more than the expected {expected} values ({shape})"))),
        _ => Ok((sizes.into_iter().map(|n| n as usize).collect(), data)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    const TWO_IMAGES: [u8; 22] = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6];
    const TWO_LABELS: [u8; 10] = [0, 0, 8, 1, 0, 0, 0, 2, 9, 0];

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_gzipped_files_give_the_same_images() {
        for contents in [TWO_IMAGES.to_vec(), gzip(&TWO_IMAGES)] {
            let images = images(Path::new("x"), &contents).unwrap();
            assert_eq!((images.count, images.height, images.width), (2, 1, 3));
            assert_eq!(images.pixels, [1, 2, 3, 4, 5, 6]);
        }
    }

    #[test]
    fn labels_come_in_file_order() {
        assert_eq!(labels(Path::new("x"), &TWO_LABELS, 2, 10).unwrap(), [9, 0]);
    }

    #[test]
    fn a_broken_image_file_is_one_error_that_says_what_was_expected() {
        let mut huge = TWO_IMAGES;
        huge[4..16].fill(0xff);
        let mut zipped = gzip(&TWO_IMAGES);
        zipped.truncate(zipped.len() - 9);
        let none = [0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3];
        let cases: [(&[u8], &str); 8] = [
            (&[], "x: starts with bytes \"\", expected the IDX magic number \"00 00 08 03\""),
            (&TWO_LABELS, "x: starts with bytes \"00 00 08 01\", expected the IDX magic number \"00 00 08 03\""),
            (&TWO_IMAGES[..9], "x: ends after 9 bytes, expected a header of 16"),
            (&TWO_IMAGES[..20], "x: 4 values, expected 6 (2x1x3): truncated"),
            (&[&TWO_IMAGES[..], &[0]].concat(), "x: more than the expected 6 values (2x1x3)"),
            (&huge, "x: its header announces 4294967295x4294967295x4294967295 values"),
            (&zipped, "x: corrupt or truncated gzip after "),
            (&none, "x: 0 images of 1x3, expected at least one pixel"),
        ];
        for (contents, expected) in cases {
            let Err(error) = images(Path::new("x"), contents) else { panic!("read {expected}") };
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn labels_must_match_the_images_and_the_classes() {
        let message = |count, classes| labels(Path::new("x"), &TWO_LABELS, count, classes).unwrap_err().to_string();
        assert_eq!(message(3, 10), "x: 2 labels, expected 3, one for each image");
        assert_eq!(message(2, 9), "x: label 9 in record 0 (from 0), expected 0 to 8");
    }
}
