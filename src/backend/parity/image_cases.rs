//! Images from u8, against what the host makes of them.

use super::arena::{Arena, Output};
use super::bounded::Bounded;
use super::{assert_within, devices};
use crate::data::{Augmentation, Crop, ImageShape, Normalisation, Pixels};
use crate::shape::Shape;

const DEVIATION: f32 = 0.27;

/// Crops of the images' own size are copies, and exact. Of others the host's values and a device's are each off by a rounding for
/// each tap of either axis, four at most here, and two more: of numbers up to 1, which the deviation divides.
fn check(name: &str, shape: ImageShape, crops: Vec<Crop>) {
    let (n, ImageShape { channels, height, width }) = (crops.len(), shape);
    let mean: Vec<f32> = (0..channels).map(|c| 0.4 + 0.03 * c as f32).collect();
    let normalisation = Normalisation::new(255, &mean, &vec![DEVIATION; channels]);
    let values = (0..n * shape.elements()).map(|i| (i * i % 251 + i % 5) as u8).collect();
    let pixels = Pixels { values, shape, crops, normalisation: &normalisation };
    let exact = |crop: &Crop| [crop.height as usize, crop.width as usize] == [height, width];
    let resampled = 2.0 * 10.0 / f64::from(1 << 24) / f64::from(DEVIATION);
    let errors = pixels.crops.iter().map(|crop| if exact(crop) { 0.0 } else { resampled });
    let errors = errors.flat_map(|error| std::iter::repeat_n(error, shape.elements()));
    let expected: Vec<Bounded> =
        pixels.normalised().iter().zip(errors).map(|(&x, error)| Bounded { value: x.into(), error }).collect();
    for device in devices() {
        let who = format!("write_images, {name} of {n} {shape:?}, {}", device.name);
        let case = |arena: &mut Arena| {
            for halo in [0, 1] {
                let y = arena.result(Shape::images(n, channels, height, width), halo);
                arena.run(&[Output::Gradient(y)], |on| {
                    on.write_images(y, &pixels)?;
                    let stored: Vec<Bounded> = expected.iter().map(|x| x.stored(y.precision)).collect();
                    assert_within(&who, &on.read_map(y)?, &stored);
                    Ok(())
                });
            }
        };
        device.run(|on| {
            Arena::play(on, 1, &case).iter().for_each(|output| drop(output.observed(on, &who)));
        });
    }
}

#[test]
fn augmented_images_are_those_of_the_host() {
    for (channels, height, width) in [(3, 32, 32), (1, 28, 28), (3, 9, 7), (9, 6, 11)] {
        let shape = ImageShape { channels, height, width };
        for kind in [Augmentation::None, Augmentation::PadCropFlip, Augmentation::ResizedCropFlip] {
            let crop = |index| kind.crop(3, 1, index, height as u32, width as u32);
            check(&format!("{kind:?}"), shape, (0..17).map(crop).collect());
        }
    }
}

#[test]
fn windows_beyond_the_edges_are_reflected_when_resized_too() {
    let windows = [(-3, -2, 12, 4), (5, 6, 9, 9), (-1, 0, 2, 20), (0, 0, 1, 1)];
    let crops = windows
        .into_iter()
        .flat_map(|(top, left, height, width)| [false, true].map(|flip| Crop { top, left, height, width, flip }));
    check("windows", ImageShape { channels: 3, height: 8, width: 10 }, crops.collect());
}
