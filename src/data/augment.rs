//! Random crops and flips, keyed by (seed, epoch, image).
//!
//! The parameters are drawn first and applied afterwards, so that another device can apply the same ones.

use serde::{Deserialize, Serialize};

use super::ImageShape;
use super::resample::{Axis, resample};
use crate::rng::{Domain, Stream};

/// How training images are varied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augmentation {
    /// Not at all.
    #[default]
    None,
    /// Reflect-pad by 4 pixels, crop at random to the original size, flip left to right half the time (CIFAR-10).
    PadCropFlip,
    /// Crop 8 to 100 % of the area with an aspect ratio of 3/4 to 4/3, resize bilinearly, flip left to right half the time
    /// (CIFAR-100, ImageNet; Szegedy et al., "Going deeper with convolutions", CVPR 2015).
    ResizedCropFlip,
}

/// The window of an image that becomes the network's input, resized to its size and perhaps mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// First row; outside the image (negative, or too far down) it is continued by reflection without repeating the border.
    pub top: i32,
    /// First column; outside as for rows.
    pub left: i32,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Whether left and right are exchanged after the crop.
    pub flip: bool,
}

/// Pixels of reflection around the image before the crop.
const PAD: u32 = 4;

impl Augmentation {
    /// The crop of image `index` in epoch `epoch`, for an image of `height` x `width` pixels.
    ///
    /// Draws, in this order: [`Augmentation::PadCropFlip`] top, left, flip; [`Augmentation::ResizedCropFlip`] area and
    /// aspect ratio until a box fits, its top and left (after ten tries that do not fit the largest centred box in the
    /// allowed aspect ratios, nothing drawn), then flip.
    pub fn crop(self, seed: u64, epoch: u32, index: u32, height: u32, width: u32) -> Crop {
        let mut stream = Stream::new(seed, Domain::Augment, epoch, index);
        match self {
            Augmentation::None => Crop { top: 0, left: 0, height, width, flip: false },
            Augmentation::PadCropFlip => {
                let mut offset = || stream.below(2 * PAD + 1) as i32 - PAD as i32;
                let (top, left) = (offset(), offset());
                Crop { top, left, height, width, flip: stream.below(2) == 1 }
            }
            Augmentation::ResizedCropFlip => {
                let crop = resized_crop(&mut stream, height, width);
                Crop { flip: stream.below(2) == 1, ..crop }
            }
        }
    }
}

/// torchvision's `RandomResizedCrop.get_params`: area uniform, aspect ratio log-uniform.
fn resized_crop(stream: &mut Stream, height: u32, width: u32) -> Crop {
    const ASPECT: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
    let (h, w) = (f64::from(height), f64::from(width));
    let (low, high) = (ASPECT.0.ln(), ASPECT.1.ln());
    for _ in 0..10 {
        let area = h * w * (0.08 + 0.92 * stream.uniform());
        let aspect = (low + (high - low) * stream.uniform()).exp();
        let crop_width = (area * aspect).sqrt().round_ties_even() as u32;
        let crop_height = (area / aspect).sqrt().round_ties_even() as u32;
        if (1..=height).contains(&crop_height) && (1..=width).contains(&crop_width) {
            let top = stream.below(height - crop_height + 1) as i32;
            let left = stream.below(width - crop_width + 1) as i32;
            return Crop { top, left, height: crop_height, width: crop_width, flip: false };
        }
    }
    let crop_width = w.min((h * ASPECT.1).round_ties_even()) as u32;
    let crop_height = h.min((w / ASPECT.0).round_ties_even()) as u32;
    let (top, left) = ((height - crop_height) as i32 / 2, (width - crop_width) as i32 / 2);
    Crop { top, left, height: crop_height, width: crop_width, flip: false }
}

impl Crop {
    /// All of an image, as it is.
    pub(super) fn whole(image: ImageShape) -> Self {
        Crop { top: 0, left: 0, height: image.height as u32, width: image.width as u32, flip: false }
    }

    /// Cuts the crop out of `image`, u8 of shape `from`, resizes it to `to` and writes pixel values (0 to 255, not rounded)
    /// to `out`, f32 of shape `to`. Both shapes have the same channels.
    pub fn apply(self, image: &[u8], from: ImageShape, to: ImageShape, out: &mut [f32]) {
        let rows = Axis::new(self.top.into(), self.height as usize, from.height, to.height, 0..to.height);
        let columns = Axis::new(self.left.into(), self.width as usize, from.width, to.width, 0..to.width);
        let columns = if self.flip { columns.reversed() } else { columns };
        for (plane, out) in image.chunks_exact(from.plane()).zip(out.chunks_exact_mut(to.plane())) {
            resample(plane, from.width, &rows, &columns, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(crop: Crop, image: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
        let channels = image.len() / (from.0 * from.1);
        let shape = |(height, width)| ImageShape { channels, height, width };
        let mut out = vec![f32::NAN; channels * to.0 * to.1];
        crop.apply(image, shape(from), shape(to), &mut out);
        out
    }

    fn as_f32(pixels: &[u8]) -> Vec<f32> {
        pixels.iter().map(|&p| f32::from(p)).collect()
    }

    // Rows 1 2 3 / 4 5 6 / 7 8 9, one row up and two columns to the left.
    #[test]
    fn padding_reflects_without_repeating_the_border() {
        let crop = Crop { top: -1, left: -2, height: 3, width: 3, flip: false };
        let expected = [6, 5, 4, 3, 2, 1, 6, 5, 4];
        assert_eq!(apply(crop, &[1, 2, 3, 4, 5, 6, 7, 8, 9], (3, 3), (3, 3)), as_f32(&expected));
        let crop = Crop { top: 1, left: 2, height: 3, width: 3, flip: true };
        let expected = [4, 5, 6, 7, 8, 9, 4, 5, 6];
        assert_eq!(apply(crop, &[1, 2, 3, 4, 5, 6, 7, 8, 9], (3, 3), (3, 3)), as_f32(&expected));
    }

    #[test]
    fn flipping_twice_is_the_identity_and_once_mirrors_each_channel() {
        let image: Vec<u8> = (0..24).map(|i| i * 9).collect();
        let flip = Crop { top: 0, left: 0, height: 3, width: 4, flip: true };
        let once: Vec<u8> = apply(flip, &image, (3, 4), (3, 4)).into_iter().map(|v| v as u8).collect();
        assert_eq!(once[..4], [27, 18, 9, 0]);
        assert_eq!(once[12..16], [135, 126, 117, 108]);
        assert_eq!(apply(flip, &once, (3, 4), (3, 4)), as_f32(&image));
    }

    #[test]
    fn a_resized_crop_of_its_own_size_is_a_plain_crop() {
        let image: Vec<u8> = (0..30).map(|i| i * 7).collect();
        let crop = Crop { top: 1, left: 2, height: 3, width: 2, flip: false };
        let expected = [8, 9, 14, 15, 20, 21].map(|i| i * 7);
        assert_eq!(apply(crop, &image, (5, 6), (3, 2)), as_f32(&expected));
    }

    // By hand: 1x2 pixels to 1x4, centres at quarter pixels.
    #[test]
    fn a_resized_crop_interpolates_inside_the_crop_only() {
        let crop = Crop { top: 0, left: 1, height: 1, width: 2, flip: true };
        assert_eq!(apply(crop, &[255, 0, 100, 255], (1, 4), (1, 4)), [100.0, 75.0, 25.0, 0.0]);
    }

    #[test]
    fn pad_crops_take_each_of_the_nine_offsets_and_both_flips_equally_often() {
        let n = 18_000;
        let (mut tops, mut lefts, mut flips) = ([0; 9], [0; 9], 0);
        for index in 0..n {
            let crop = Augmentation::PadCropFlip.crop(5, 1, index, 32, 32);
            assert_eq!((crop.height, crop.width), (32, 32));
            tops[(crop.top + 4) as usize] += 1;
            lefts[(crop.left + 4) as usize] += 1;
            flips += i32::from(crop.flip);
        }
        // Five standard deviations of a binomial count.
        let near = |count: i32, p: f64| (f64::from(count) - 18e3 * p).abs() < 5.0 * (18e3 * p * (1.0 - p)).sqrt();
        assert!(tops.into_iter().chain(lefts).all(|count| near(count, 1.0 / 9.0)), "{tops:?} {lefts:?}");
        assert!(near(flips, 0.5), "{flips}");
    }

    #[test]
    fn resized_crops_lie_inside_the_image_within_their_area_and_aspect() {
        for (height, width) in [(32, 32), (375, 500)] {
            let mut area = 0.0;
            for index in 0..5_000 {
                let crop = Augmentation::ResizedCropFlip.crop(9, 2, index, height, width);
                assert!(crop.top >= 0 && crop.left >= 0, "{crop:?}");
                assert!(crop.top as u32 + crop.height <= height && crop.left as u32 + crop.width <= width, "{crop:?}");
                let (h, w) = (f64::from(crop.height), f64::from(crop.width));
                // Each side is rounded by at most half a pixel.
                assert!((w + 0.5) / (h - 0.5) >= 0.75 && (w - 0.5) / (h + 0.5) <= 4.0 / 3.0, "{crop:?}");
                let fraction = h * w / f64::from(height * width);
                assert!((h + 0.5) * (w + 0.5) / f64::from(height * width) >= 0.08 && fraction <= 1.0, "{crop:?}");
                area += fraction / 5_000.0;
            }
            // Uniform on .08-1 has mean .54; boxes that do not fit are the large ones, so it is somewhat less.
            assert!((0.42..0.54).contains(&area), "{area}");
        }
    }

    // By hand: 8 % of 1000x10 is 800 pixels, so at least sqrt(800 * 3/4) = 24 wide: no box fits, and the largest centred one
    // within the aspect ratios is 10 wide and 10 / (3/4) = 13 high.
    #[test]
    fn an_image_too_narrow_for_ten_tries_gives_its_centre() {
        let crops: Vec<Crop> = (0..200).map(|i| Augmentation::ResizedCropFlip.crop(1, 1, i, 1000, 10)).collect();
        for crop in crops {
            assert_eq!((crop.top, crop.left, crop.height, crop.width), (493, 0, 13, 10));
        }
        let wide = Augmentation::ResizedCropFlip.crop(1, 1, 0, 10, 1000);
        assert_eq!((wide.top, wide.left, wide.height, wide.width), (0, 493, 10, 13));
    }

    #[test]
    fn crops_depend_on_seed_epoch_and_image_alone() {
        let crop = |seed, epoch, index| Augmentation::ResizedCropFlip.crop(seed, epoch, index, 32, 32);
        assert_eq!(crop(1, 2, 3), crop(1, 2, 3));
        for other in [crop(2, 2, 3), crop(1, 3, 3), crop(1, 2, 4)] {
            assert_ne!(crop(1, 2, 3), other);
        }
    }

    #[test]
    fn names_in_files_are_in_kebab_case() {
        assert_eq!(serde_json::to_value(Augmentation::PadCropFlip).unwrap(), "pad-crop-flip");
        assert_eq!(
            serde_json::from_str::<Augmentation>("\"resized-crop-flip\"").unwrap(),
            Augmentation::ResizedCropFlip
        );
    }
}
