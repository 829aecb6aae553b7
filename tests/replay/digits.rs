//! The training images of the handwritten digits in file order, read from the crate's gzipped IDX files.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::layers::Maps;

/// Mean and standard deviation of the pixels, as values / 16.
const NORMALISATION: (f64, f64) = (0.305, 0.376);

/// Images of 8x8 values from 0 to 16, and their labels.
pub(crate) struct Digits {
    images: Vec<u8>,
    labels: Vec<u8>,
}

impl Digits {
    pub(crate) fn training_set() -> Digits {
        let (shape, images) = read_idx("digits-train-images.gz");
        assert_eq!(shape, [3823, 8, 8]);
        let (shape, labels) = read_idx("digits-train-labels.gz");
        assert_eq!(shape, [3823]);
        Digits { images, labels }
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The `index`-th `size` images, normalised, and their labels.
    pub(crate) fn batch(&self, index: usize, size: usize) -> (Maps, &[u8]) {
        let normalise = |&value: &u8| (f64::from(value) / 16.0 - NORMALISATION.0) / NORMALISATION.1;
        let data = self.images[64 * index * size..][..64 * size].iter().map(normalise).collect();
        (Maps { n: size, h: 8, w: 8, c: 1, data }, &self.labels[index * size..][..size])
    }
}

/// (sizes, bytes) of an IDX file of unsigned bytes: 0, 0, type 8, rank, the big-endian sizes, the data.
fn read_idx(name: &str) -> (Vec<usize>, Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data/embedded").join(name);
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes[..3], [0, 0, 8], "{name}");
    let (sizes, data) = bytes[4..].split_at(4 * usize::from(bytes[3]));
    let sizes: Vec<_> = sizes.chunks_exact(4).map(|b| u32::from_be_bytes(b.try_into().unwrap()) as usize).collect();
    assert_eq!(data.len(), sizes.iter().product::<usize>(), "{name}");
    (sizes, data.to_vec())
}
