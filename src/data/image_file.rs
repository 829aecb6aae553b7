//! One image file (PNG or JPEG) as the pixels a network takes.

use std::path::Path;

use image::ImageReader;

use super::resample::{Axis, resample};
use super::{ImageShape, Normalisation};
use crate::{Error, Result};

/// Decodes a file to u8 (C, H, W) of its own height and width; `channels` is 1 (grey, by luminance) or 3 (RGB).
///
/// The format is told from the contents, since files with the other one's ending exist (ImageNet has a PNG named `.JPEG`).
/// Transparency and orientation tags are ignored. What cannot be decoded is an [`Error::File`].
pub(super) fn decode(path: &Path, channels: usize) -> Result<(ImageShape, Vec<u8>)> {
    let unreadable = |error| Error::file_because(path, "cannot be read, expected a PNG or JPEG image", error);
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(unreadable)?;
    let image = reader
        .decode()
        .map_err(|error| Error::file_because(path, "cannot be decoded, expected a PNG or JPEG image", error))?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    if height * width == 0 {
        return Err(Error::file(path, format!("an image of {height}x{width}, expected at least one pixel")));
    }
    let pixels = match channels {
        1 => image.into_luma8().into_raw(),
        3 => {
            let rgb = image.into_rgb8().into_raw();
            (0..3).flat_map(|c| rgb.iter().skip(c).step_by(3).copied()).collect()
        }
        _ => return Err(Error::shape("image file", format!("{channels} channels asked for, expected 1 or 3"))),
    };
    Ok((ImageShape { channels, height, width }, pixels))
}

/// Decodes a file and stretches it to `shape` (bilinear) where its size differs, for sets of small images; white becomes the largest pixel value of the set `normalisation` belongs to.
pub(super) fn read_stretched(path: &Path, shape: ImageShape, normalisation: &Normalisation) -> Result<Vec<u8>> {
    let (from, pixels) = decode(path, shape.channels)?;
    let rows = Axis::new(0, from.height, from.height, shape.height, 0..shape.height);
    let columns = Axis::new(0, from.width, from.width, shape.width, 0..shape.width);
    Ok(planes(&pixels, from, shape, &rows, &columns, 1.0 / (255.0 * normalisation.scale)))
}

/// Decodes a file, rescales its shorter side to 256/224 of `shape`'s (antialiased bilinear, aspect kept) and cuts out the
/// centre: the evaluation of ImageNet and of image folders. A `shape` that is not square is an [`Error::Shape`].
pub(super) fn read_centre(path: &Path, shape: ImageShape) -> Result<Vec<u8>> {
    if shape.height != shape.width {
        return Err(Error::shape("centre crop", format!("{}x{}, expected a square", shape.height, shape.width)));
    }
    let (from, pixels) = decode(path, shape.channels)?;
    let (side, shorter) = (shape.height, from.height.min(from.width));
    let scaled = side * 256 / 224;
    // As torchvision: the longer side is rounded down, the window's start to the nearest.
    let axis = |length: usize| {
        let resized = scaled * length / shorter;
        let start = ((resized - side) as f64 / 2.0).round_ties_even() as usize;
        Axis::new(0, length, length, resized, start..start + side)
    };
    Ok(planes(&pixels, from, shape, &axis(from.height), &axis(from.width), 1.0))
}

/// Resamples every channel, times `gain`, to whole pixel values.
fn planes(pixels: &[u8], from: ImageShape, to: ImageShape, rows: &Axis, columns: &Axis, gain: f32) -> Vec<u8> {
    let mut values = vec![0.0; to.elements()];
    for (plane, out) in pixels.chunks_exact(from.plane()).zip(values.chunks_exact_mut(to.plane())) {
        resample(plane, from.width, rows, columns, out);
    }
    values.into_iter().map(|value| (value * gain).round() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};
    use tempfile::tempdir;

    const RGB_3X2: ImageShape = ImageShape { channels: 3, height: 2, width: 3 };

    fn norm(white: u8) -> Normalisation {
        Normalisation::new(white, &[0.0; 3], &[1.0; 3])
    }

    #[test]
    fn colour_files_become_planes_and_sizes_that_agree_stay_exact() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("a.png");
        RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8, 10 + y as u8, 250])).save(&path).unwrap();
        let expected = [0, 1, 2, 0, 1, 2, 10, 10, 10, 11, 11, 11, 250, 250, 250, 250, 250, 250];
        assert_eq!(decode(&path, 3).unwrap(), (RGB_3X2, expected.to_vec()));
        assert_eq!(read_stretched(&path, RGB_3X2, &norm(255)).unwrap(), expected);
    }

    #[test]
    fn grey_and_colour_are_converted_into_each_other() {
        let dir = tempdir().unwrap();
        let (grey, colour) = (dir.path().join("grey.png"), dir.path().join("colour.png"));
        GrayImage::from_fn(2, 1, |x, _| Luma([100 + x as u8])).save(&grey).unwrap();
        assert_eq!(decode(&grey, 3).unwrap().1, [100, 101, 100, 101, 100, 101]);
        RgbImage::from_pixel(1, 1, Rgb([77; 3])).save(&colour).unwrap();
        assert_eq!(decode(&colour, 1).unwrap().1, [77]);
    }

    #[test]
    fn white_becomes_the_largest_value_of_the_set() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("a.png");
        GrayImage::from_fn(3, 1, |x, _| Luma([[0, 128, 255][x as usize]])).save(&path).unwrap();
        let shape = ImageShape { channels: 1, height: 1, width: 3 };
        assert_eq!(read_stretched(&path, shape, &norm(16)).unwrap(), [0, 8, 16]);
    }

    #[test]
    fn other_sizes_are_stretched_bilinearly() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("a.png");
        GrayImage::from_fn(2, 1, |x, _| Luma([100 * x as u8])).save(&path).unwrap();
        let shape = ImageShape { channels: 1, height: 2, width: 4 };
        assert_eq!(read_stretched(&path, shape, &norm(255)).unwrap(), [0, 25, 75, 100, 0, 25, 75, 100]);
    }

    // 256x300 needs no rescaling for a side of 224: rows 16..240 and columns 38..262 remain.
    #[test]
    fn the_centre_is_cut_out_after_the_shorter_side_is_rescaled() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("a.png");
        GrayImage::from_fn(300, 256, |x, y| Luma([((x * 7 + y * 3) % 256) as u8])).save(&path).unwrap();
        let shape = ImageShape { channels: 1, height: 224, width: 224 };
        let pixels = read_centre(&path, shape).unwrap();
        for (at, pixel) in pixels.into_iter().enumerate() {
            let (y, x) = (at / 224 + 16, at % 224 + 38);
            assert_eq!(usize::from(pixel), (x * 7 + y * 3) % 256);
        }
    }

    #[test]
    fn what_is_no_image_is_one_error_that_names_the_file() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("a.png");
        assert!(
            decode(&path, 3).unwrap_err().to_string().ends_with("a.png: cannot be read, expected a PNG or JPEG image")
        );
        RgbImage::new(50, 50).save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for contents in [&b"not an image"[..], &[], &whole[..whole.len() / 2]] {
            std::fs::write(&path, contents).unwrap();
            let error = decode(&path, 3).unwrap_err().to_string();
            assert!(error.ends_with("a.png: cannot be decoded, expected a PNG or JPEG image"), "{error}");
        }
    }

    #[test]
    fn a_png_with_the_ending_of_a_jpeg_is_read() {
        let dir = tempdir().unwrap();
        let (png, jpeg) = (dir.path().join("a.png"), dir.path().join("a.JPEG"));
        GrayImage::from_pixel(1, 1, Luma([9])).save(&png).unwrap();
        std::fs::rename(&png, &jpeg).unwrap();
        assert_eq!(decode(&jpeg, 1).unwrap().1, [9]);
    }
}
