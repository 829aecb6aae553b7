//! Epochs, batches, and filling a batch with normalised images.

use rayon::prelude::*;

use super::pixels::{self, Pixels};
use super::{Augmentation, Crop, Dataset, ImageShape};
use crate::rng::{Domain, Stream};
use crate::{Error, Result};

/// The order of `count` images in epoch `epoch`: a permutation drawn from (seed, epoch), or that of the file.
pub fn epoch_order(count: usize, seed: u64, epoch: u32, shuffle: bool) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    if shuffle {
        Stream::new(seed, Domain::Shuffle, epoch, 0).shuffle(&mut order);
    }
    order
}

/// Cuts an order into batches of `size` (not 0). The last one may be smaller; with `drop_last` such a one is left out.
pub fn batches(order: &[u32], size: usize, drop_last: bool) -> std::slice::Chunks<'_, u32> {
    let partial = if drop_last { order.len() % size } else { 0 };
    order[..order.len() - partial].chunks(size)
}

/// How the images of a batch are varied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// The kind; [`Augmentation::None`] for evaluation.
    pub kind: Augmentation,
    /// The run's seed.
    pub seed: u64,
    /// The epoch: each has its own crops.
    pub epoch: u32,
}

impl Augment {
    fn crop(self, index: u32, image: ImageShape) -> Crop {
        self.kind.crop(self.seed, self.epoch, index, image.height as u32, image.width as u32)
    }
}

/// Fills a batch with the images `indices` of `set`: `images` (N, C, H, W), normalised, and `labels` (N).
///
/// Works on all threads of the current pool; each image depends on its own index only, so the result does not depend on them.
/// Buffers of another size are an [`Error::Shape`]; an image file that cannot be decoded is an [`Error::File`].
pub fn fill(set: &Dataset, indices: &[u32], augment: Augment, images: &mut [f32], labels: &mut [u32]) -> Result<()> {
    let elements = set.shape().elements();
    if images.len() != indices.len() * elements || labels.len() != indices.len() {
        let (n, got, labels) = (indices.len(), images.len(), labels.len());
        let detail = format!("buffers of {got} values and {labels} labels, expected {n} images of {elements}");
        return Err(Error::shape("batch", detail));
    }
    if let Some(index) = indices.iter().find(|&&index| index as usize >= set.len()) {
        return Err(Error::shape("batch", format!("image {index} asked for, expected below {}", set.len())));
    }
    labels.iter_mut().zip(indices).for_each(|(label, &index)| *label = set.labels()[index as usize]);
    let tables = set.normalisation().tables();
    images.par_chunks_exact_mut(elements).zip(indices).try_for_each(|(out, &index)| {
        let (from, image) = match augment.kind {
            // Only a resized crop may choose from all of a file's pixels: the others keep the size they find.
            Augmentation::ResizedCropFlip => set.original(index as usize)?,
            _ => (set.shape(), set.image(index as usize)?),
        };
        pixels::prepare(&image, from, augment.crop(index, from), set.shape(), set.normalisation(), &tables, out);
        Ok(())
    })
}

/// The images `indices` of `set`, which must be below its length, as they lie in memory, with their crops: what [`fill`] fills a
/// batch with, still to be done. None for a set of files.
pub fn pixels<'a>(set: &'a Dataset, indices: &[u32], augment: Augment) -> Option<Pixels<'a>> {
    let (shape, all) = (set.shape(), set.in_place()?);
    let image = |&index: &u32| &all[index as usize * shape.elements()..][..shape.elements()];
    Some(Pixels {
        values: indices.iter().flat_map(image).copied().collect(),
        shape,
        crops: indices.iter().map(|&index| augment.crop(index, shape)).collect(),
        normalisation: set.normalisation(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Normalisation;

    const SHAPE: ImageShape = ImageShape { channels: 3, height: 8, width: 6 };

    fn set() -> Dataset {
        let (n, names) = (50, (0..5).map(|i| i.to_string()).collect());
        let normalisation = Normalisation::new(255, &[0.1, 0.2, 0.3], &[0.5, 0.6, 0.7]);
        let pixels = (0..n * SHAPE.elements()).map(|i| (i * 31 % 256) as u8).collect();
        Dataset::in_memory("set", SHAPE, names, normalisation, (0..n as u32).map(|i| i % 5).collect(), pixels).unwrap()
    }

    fn filled(indices: &[u32], augment: Augment) -> (Vec<f32>, Vec<u32>) {
        let (mut images, mut labels) = (vec![f32::NAN; indices.len() * SHAPE.elements()], vec![99; indices.len()]);
        fill(&set(), indices, augment, &mut images, &mut labels).unwrap();
        (images, labels)
    }

    #[test]
    fn an_epoch_visits_every_image_once_in_an_order_of_its_own() {
        let order = epoch_order(1000, 3, 1, true);
        let mut sorted = order.clone();
        sorted.sort();
        assert_eq!(sorted, epoch_order(1000, 3, 1, false));
        assert_eq!(order, epoch_order(1000, 3, 1, true));
        assert_ne!(order, epoch_order(1000, 3, 2, true));
        assert_ne!(order, epoch_order(1000, 4, 1, true));
    }

    // Section 5 of the method: 45,000 images in batches of 128 are 352 steps, the last of 72.
    #[test]
    fn the_last_partial_batch_is_kept_or_dropped() {
        let order = epoch_order(45_000, 0, 1, false);
        let kept = batches(&order, 128, false);
        assert_eq!((kept.len(), kept.last().unwrap().len()), (352, 72));
        let dropped = batches(&order, 128, true);
        assert_eq!((dropped.len(), dropped.last().unwrap().len()), (351, 128));
        assert_eq!(batches(&order[..127], 128, true).len(), 0);
    }

    #[test]
    fn a_batch_holds_normalised_images_and_their_labels() {
        let (images, labels) = filled(&[7, 2], Augment::default());
        assert_eq!(labels, [2, 2]);
        for (at, value) in images.into_iter().enumerate() {
            let (image, within) = ([7, 2][at / 144], at % 144);
            let (mean, std) = [(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)][within / 48];
            let pixel = ((image * 144 + within) * 31 % 256) as f64;
            assert!((f64::from(value) - (pixel / 255.0 - mean) / std).abs() < 1e-6);
        }
    }

    #[test]
    fn pixels_normalised_later_are_the_batch() {
        for kind in [Augmentation::None, Augmentation::PadCropFlip, Augmentation::ResizedCropFlip] {
            let augment = Augment { kind, seed: 1, epoch: 1 };
            let later = pixels(&set(), &[4, 40, 4], augment).unwrap().normalised();
            assert_eq!(later, filled(&[4, 40, 4], augment).0, "{kind:?}");
        }
    }

    // Crops and flips only move pixels about, so a pad-crop's values are values of its own channel.
    #[test]
    fn augmented_images_are_normalised_like_plain_ones() {
        let augment = Augment { kind: Augmentation::PadCropFlip, seed: 1, epoch: 1 };
        let (plain, _) = filled(&[4], Augment::default());
        let (moved, _) = filled(&[4], augment);
        assert_ne!(plain, moved);
        for (plain, moved) in plain.chunks(48).zip(moved.chunks(48)) {
            assert!(moved.iter().all(|value| plain.contains(value)));
        }
    }

    #[test]
    fn bits_do_not_depend_on_threads_or_on_the_rest_of_the_batch() {
        let augment = Augment { kind: Augmentation::ResizedCropFlip, seed: 6, epoch: 3 };
        let indices: Vec<u32> = (0..50).rev().collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| filled(&indices, augment))
        };
        let (one, three) = (with(1), with(3));
        assert_eq!(one, three);
        assert_eq!(filled(&indices[10..11], augment).0, one.0[10 * 144..11 * 144]);
    }

    #[test]
    fn buffers_and_indices_that_do_not_fit_are_errors() {
        let (mut images, mut labels) = (vec![0.0; 144], vec![0; 1]);
        let mut message = |indices: &[u32]| {
            fill(&set(), indices, Augment::default(), &mut images, &mut labels).unwrap_err().to_string()
        };
        assert_eq!(message(&[50]), "batch: image 50 asked for, expected below 50");
        assert_eq!(message(&[1, 2]), "batch: buffers of 144 values and 1 labels, expected 2 images of 144");
    }
}
