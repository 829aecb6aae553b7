//! A batch of images as they lie in memory, and what is to become of each.

use rayon::prelude::*;

use super::augment::Crop;
use super::{ImageShape, Normalisation};

/// Images of one shape, to be cut, resized to that shape, mirrored and normalised, by the host or by a device
/// ([`Backend::write_images`](crate::backend::Backend::write_images)).
#[derive(Clone, Debug)]
pub struct Pixels<'a> {
    /// u8, (N, C, H, W).
    pub values: Vec<u8>,
    /// (C, H, W), before and after.
    pub shape: ImageShape,
    /// The window of each image.
    pub crops: Vec<Crop>,
    /// What makes inputs of pixels.
    pub normalisation: &'a Normalisation,
}

impl Pixels<'_> {
    /// The network's input, (N, C, H, W).
    pub fn normalised(&self) -> Vec<f32> {
        let (elements, tables) = (self.shape.elements(), self.normalisation.tables());
        let mut all = vec![0.0; self.values.len()];
        let images = self.values.par_chunks_exact(elements).zip(&self.crops);
        all.par_chunks_exact_mut(elements).zip(images).for_each(|(out, (image, &crop))| {
            prepare(image, self.shape, crop, self.shape, self.normalisation, &tables, out);
        });
        all
    }
}

/// Cuts a crop out of an image of shape `from`, resizes it to `to` and normalises it; `tables` are the normalisation's.
pub(super) fn prepare(
    image: &[u8],
    from: ImageShape,
    crop: Crop,
    to: ImageShape,
    normalisation: &Normalisation,
    tables: &[[f32; 256]],
    out: &mut [f32],
) {
    if from == to && crop == Crop::whole(from) {
        let planes = image.chunks_exact(from.plane()).zip(tables);
        for (out, (pixels, table)) in out.chunks_exact_mut(to.plane()).zip(planes) {
            out.iter_mut().zip(pixels).for_each(|(out, &pixel)| *out = table[usize::from(pixel)]);
        }
        return;
    }
    crop.apply(image, from, to, out);
    for (channel, out) in out.chunks_exact_mut(to.plane()).enumerate() {
        out.iter_mut().for_each(|value| *value = normalisation.apply(channel, *value));
    }
}
