//! Two small sets inside the program; `embedded/README.md` credits them and `embedded/make.py` makes them.

use std::path::Path;

use super::source::{DIGIT_NAMES, FASHION_NAMES, FASHION_NORMALISATION, names};
use super::{Dataset, ImageShape, Normalisation, TrainTest, idx};
use crate::Result;

/// The bytes of an embedded file and the name errors call it by.
macro_rules! embedded {
    ($name:literal) => {
        (Path::new(concat!("embedded/", $name)), include_bytes!(concat!("embedded/", $name)).as_slice())
    };
}

/// Training and test images of Fashion-MNIST that are embedded.
pub(super) const FASHION_LEN: [usize; 2] = [3000, 2000];

/// The first 3,000 training and 2,000 test images of Fashion-MNIST, 28x28.
pub(super) fn fashion() -> Result<TrainTest> {
    let read = |images: (&Path, &[u8]), labels| {
        let (mean, std) = FASHION_NORMALISATION;
        dataset("fashion-mnist", &FASHION_NAMES, Normalisation::new(255, &[mean], &[std]), images, labels)
    };
    Ok(TrainTest {
        train: read(embedded!("fashion-train-images.gz"), embedded!("fashion-train-labels.gz"))?,
        test: read(embedded!("fashion-test-images.gz"), embedded!("fashion-test-labels.gz"))?,
        warnings: vec![],
    })
}

/// UCI's handwritten digits, 3,823 training and 1,797 test images, 8x8, pixels 0 to 16.
pub(super) fn digits() -> Result<TrainTest> {
    let read = |images: (&Path, &[u8]), labels| {
        dataset("digits", &DIGIT_NAMES, Normalisation::new(16, &[0.305], &[0.376]), images, labels)
    };
    Ok(TrainTest {
        train: read(embedded!("digits-train-images.gz"), embedded!("digits-train-labels.gz"))?,
        test: read(embedded!("digits-test-images.gz"), embedded!("digits-test-labels.gz"))?,
        warnings: vec![],
    })
}

fn dataset(
    name: &str,
    classes: &[&str],
    normalisation: Normalisation,
    images: (&Path, &[u8]),
    labels: (&Path, &[u8]),
) -> Result<Dataset> {
    let images = idx::images(images.0, images.1)?;
    let labels = idx::labels(labels.0, labels.1, images.count, classes.len())?;
    let shape = ImageShape { channels: 1, height: images.height, width: images.width };
    Dataset::in_memory(name, shape, names(classes), normalisation, labels, images.pixels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use md5::{Digest, Md5};

    // Counts and MD5s of pixels and labels were taken from the source files with zcat, cut, tail, head, uniq and md5sum.
    fn check(set: &Dataset, side: usize, counts: [usize; 10], pixels_md5: &str, labels_md5: &str) {
        assert_eq!(set.shape(), ImageShape { channels: 1, height: side, width: side });
        assert_eq!(set.len(), counts.iter().sum::<usize>());
        let count = |class: usize| set.labels().iter().filter(|&&label| label as usize == class).count();
        assert_eq!(std::array::from_fn(count), counts);
        let hex = |hash: Md5| hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (mut pixels, mut labels) = (Md5::new(), Md5::new());
        for (i, &label) in set.labels().iter().enumerate() {
            pixels.update(set.image(i).unwrap());
            labels.update([label as u8]);
        }
        assert_eq!((hex(pixels).as_str(), hex(labels).as_str()), (pixels_md5, labels_md5));
    }

    #[test]
    fn the_fashion_subset_equals_the_head_of_the_published_files() {
        let set = fashion().unwrap();
        let counts = [282, 321, 290, 312, 303, 300, 298, 312, 287, 295];
        check(&set.train, 28, counts, "c5f65ab0423f21666b159ebde5ff858e", "d65af053e3f3c550b2580a5a80aa6682");
        let counts = [200, 203, 214, 190, 219, 195, 197, 200, 194, 188];
        check(&set.test, 28, counts, "c2966db507694f43ec3513c9e1f623a8", "ba7969dd4abe87fcb10a15a1dc2637ad");
    }

    #[test]
    fn the_digits_equal_the_published_files() {
        let set = digits().unwrap();
        let counts = [376, 389, 380, 389, 387, 376, 377, 387, 380, 382];
        check(&set.train, 8, counts, "f70778d6a693a1f7332310bc5af14c55", "4474d933613a020ab81534ebacd49d65");
        let counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180];
        check(&set.test, 8, counts, "fa70cba135d4cdd4cde65da70dbffde2", "96ecbac7ce6c9c7e9f9f82160cffba40");
    }

    // The test set's mean and deviation, .30526 and .37605, were computed by awk from optdigits.tes.
    #[test]
    fn the_digits_normalise_to_mean_zero_and_deviation_one() {
        let test = digits().unwrap().test;
        let table = &test.normalisation().tables()[0];
        let values: Vec<f64> = (0..test.len())
            .flat_map(|i| test.image(i).unwrap().iter().map(|&v| f64::from(table[usize::from(v)])).collect::<Vec<_>>())
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!((mean - (0.30526 - 0.305) / 0.376).abs() < 1e-4 && (std - 0.37605 / 0.376).abs() < 1e-4);
    }
}
