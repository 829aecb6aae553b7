//! Labelled images: readers, splits, augmentation and batches.
//!
//! [`Source::load`] finds and reads a data set, [`TrainTest::split`] cuts it, [`batches`] turns it into normalised f32
//! batches. Images are kept as u8 in (C, H, W) and become f32 only inside a batch.

mod augment;
pub mod batches;
mod cifar;
mod embedded;
mod folder;
mod idx;
mod image_file;
mod mixup;
mod pixels;
mod published;
mod resample;
mod source;
mod split;
mod targets;

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use augment::{Augmentation, Crop};
pub use mixup::Mixup;
pub use pixels::Pixels;
pub use source::Source;
pub use split::{Limits, Splits, TrainTest};
pub use targets::soft_targets;

use crate::rng::{Domain, Stream};
use crate::{Error, Result};

/// The shape of one image, stored as (C, H, W).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageShape {
    /// C: 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// H, in pixels.
    pub height: usize,
    /// W, in pixels.
    pub width: usize,
}

impl ImageShape {
    /// Values in an image: C H W.
    pub fn elements(self) -> usize {
        self.channels * self.height * self.width
    }

    /// Values in one channel: H W.
    pub(crate) fn plane(self) -> usize {
        self.height * self.width
    }
}

/// How a pixel becomes the network's input: `(scale * pixel - mean[c]) / std[c]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    /// What brings pixels to [0, 1]: 1/255, or 1/16 for the digits.
    pub scale: f32,
    /// Mean of each channel of the scaled pixels.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel of the scaled pixels.
    pub std: Vec<f32>,
}

impl Normalisation {
    /// Pixels of 0 to `white`, and the channels' means and standard deviations.
    pub fn new(white: u8, mean: &[f32], std: &[f32]) -> Self {
        Normalisation { scale: 1.0 / f32::from(white), mean: mean.into(), std: std.into() }
    }

    /// The input value of a pixel value (integer or resampled) of channel `channel`.
    pub fn apply(&self, channel: usize, pixel: f32) -> f32 {
        (pixel * self.scale - self.mean[channel]) / self.std[channel]
    }

    /// [`Normalisation::apply`] of every u8, for each channel.
    pub(crate) fn tables(&self) -> Vec<[f32; 256]> {
        (0..self.mean.len()).map(|c| std::array::from_fn(|pixel| self.apply(c, pixel as f32))).collect()
    }
}

/// Where the pixels are.
#[derive(Clone, Debug)]
enum Images {
    /// All images in memory, (N, C, H, W).
    Memory(Vec<u8>),
    /// One image file each, decoded on demand.
    Files(Vec<PathBuf>),
}

/// Labelled images of one shape.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    shape: ImageShape,
    class_names: Vec<String>,
    normalisation: Normalisation,
    labels: Vec<u32>,
    images: Images,
}

impl Dataset {
    /// A data set in memory: `labels` (N), each below the number of class names, and `pixels` (N, C, H, W).
    ///
    /// Anything that does not fit together is an [`Error::Shape`].
    pub fn in_memory(
        name: impl Into<String>,
        shape: ImageShape,
        class_names: Vec<String>,
        normalisation: Normalisation,
        labels: Vec<u32>,
        pixels: Vec<u8>,
    ) -> Result<Self> {
        if pixels.len() != labels.len() * shape.elements() {
            let expected = labels.len() * shape.elements();
            return Err(Error::shape("data set", format!("{} pixels, expected {expected}", pixels.len())));
        }
        Dataset { name: name.into(), shape, class_names, normalisation, labels, images: Images::Memory(pixels) }
            .checked()
    }

    /// `n` images of random pixels with random labels, always the same: something to measure speed with.
    pub fn random(shape: ImageShape, classes: usize, n: usize) -> Result<Self> {
        let mut draws = Stream::new(0, Domain::Shuffle, 0, 1);
        let pixels = (0..n * shape.elements()).map(|_| draws.bits() as u8).collect();
        let labels = (0..n).map(|_| draws.below(classes as u32)).collect();
        let names = (0..classes).map(|class| class.to_string()).collect();
        let normalisation = Normalisation::new(255, &vec![0.5; shape.channels], &vec![0.25; shape.channels]);
        Dataset::in_memory("random", shape, names, normalisation, labels, pixels)
    }

    /// A data set of image files, decoded on demand: `labels` (N) and `paths` (N).
    fn of_files(
        name: &str,
        shape: ImageShape,
        class_names: Vec<String>,
        normalisation: Normalisation,
        labels: Vec<u32>,
        paths: Vec<PathBuf>,
    ) -> Result<Self> {
        Dataset { name: name.into(), shape, class_names, normalisation, labels, images: Images::Files(paths) }.checked()
    }

    fn checked(self) -> Result<Self> {
        let (c, n) = (self.shape.channels, self.normalisation.mean.len());
        if n != c || self.normalisation.std.len() != c {
            return Err(Error::shape("data set", format!("normalisation of {n} channels, images have {c}")));
        }
        if let Some(label) = self.labels.iter().find(|&&label| label as usize >= self.classes()) {
            return Err(Error::shape("data set", format!("label {label}, expected below {}", self.classes())));
        }
        Ok(self)
    }

    /// The data set's usual name in lower case, `cifar10`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape of every image [`Dataset::image`] gives.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// The classes' names, by label.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// How its pixels become a network's input.
    pub fn normalisation(&self) -> &Normalisation {
        &self.normalisation
    }

    /// The class of each image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of memory the images take; 0 where they stay on disk.
    pub fn bytes(&self) -> usize {
        match &self.images {
            Images::Memory(pixels) => pixels.len(),
            Images::Files(_) => 0,
        }
    }

    /// Image `index` as evaluation sees it: u8 (C, H, W). One on disk is decoded, its shorter side rescaled to 256/224 of
    /// the size, and its centre cut out.
    pub fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        match &self.images {
            Images::Memory(pixels) => Ok(self.slice(pixels, index).into()),
            Images::Files(paths) => Ok(image_file::read_centre(&paths[index], self.shape)?.into()),
        }
    }

    /// Image `index` before any rescaling, with its own shape.
    fn original(&self, index: usize) -> Result<(ImageShape, Cow<'_, [u8]>)> {
        match &self.images {
            Images::Memory(pixels) => Ok((self.shape, self.slice(pixels, index).into())),
            Images::Files(paths) => {
                let (shape, pixels) = image_file::decode(&paths[index], self.shape.channels)?;
                Ok((shape, pixels.into()))
            }
        }
    }

    /// All pixels, (N, C, H, W); None for image files.
    fn in_place(&self) -> Option<&[u8]> {
        match &self.images {
            Images::Memory(pixels) => Some(pixels),
            Images::Files(_) => None,
        }
    }

    fn slice<'a>(&self, pixels: &'a [u8], index: usize) -> &'a [u8] {
        &pixels[index * self.shape.elements()..][..self.shape.elements()]
    }

    /// Keeps the first `count` images.
    fn truncate(&mut self, count: usize) {
        drop(self.split_off(count));
        if let Images::Memory(pixels) = &mut self.images {
            pixels.shrink_to_fit();
        }
    }

    /// Moves the images from `at` on into a data set of their own.
    fn split_off(&mut self, at: usize) -> Dataset {
        let images = match &mut self.images {
            Images::Memory(pixels) => Images::Memory(pixels.split_off(at * self.shape.elements())),
            Images::Files(paths) => Images::Files(paths.split_off(at)),
        };
        Dataset {
            name: self.name.clone(),
            shape: self.shape,
            class_names: self.class_names.clone(),
            normalisation: self.normalisation.clone(),
            labels: self.labels.split_off(at),
            images,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { channels: 1, height: 1, width: 2 };

    fn two_classes(labels: Vec<u32>, pixels: Vec<u8>) -> Result<Dataset> {
        let names = vec!["a".into(), "b".into()];
        Dataset::in_memory("small", SHAPE, names, Normalisation::new(255, &[0.5], &[0.5]), labels, pixels)
    }

    #[test]
    fn normalisation_follows_its_formula_in_f64() {
        let normalisation = Normalisation::new(255, &[0.4914, 0.4822], &[0.2023, 0.1994]);
        for (channel, (mean, std)) in [(0.4914, 0.2023), (0.4822, 0.1994)].into_iter().enumerate() {
            for (pixel, value) in normalisation.tables()[channel].into_iter().enumerate() {
                let expected = (pixel as f64 / 255.0 - mean) / std;
                assert!((f64::from(value) - expected).abs() < 2e-6, "{pixel}: {value} for {expected}");
            }
        }
    }

    #[test]
    fn a_data_set_refuses_parts_that_do_not_fit() {
        assert!(two_classes(vec![0, 1], vec![1, 2, 3, 4]).is_ok());
        let message = |result: Result<Dataset>| result.unwrap_err().to_string();
        assert_eq!(message(two_classes(vec![0, 1], vec![1, 2, 3])), "data set: 3 pixels, expected 4");
        assert_eq!(message(two_classes(vec![0, 2], vec![1, 2, 3, 4])), "data set: label 2, expected below 2");
    }

    #[test]
    fn splitting_off_keeps_labels_beside_their_images() {
        let mut head = two_classes(vec![0, 1, 1], vec![1, 2, 3, 4, 5, 6]).unwrap();
        let tail = head.split_off(1);
        assert_eq!((head.labels(), tail.labels()), (&[0][..], &[1, 1][..]));
        assert_eq!((head.image(0).unwrap().as_ref(), tail.image(1).unwrap().as_ref()), (&[1, 2][..], &[5, 6][..]));
    }
}
