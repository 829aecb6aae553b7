//! Bilinear resampling of a plane of pixels, windows beyond its edges included.

use std::ops::Range;

/// Which source pixels make up each output pixel along one axis, and with what weights.
///
/// The weights are the triangle filter's, centres at half pixels: bilinear interpolation when enlarging, and when reducing a
/// filter widened by the ratio, so that nothing is skipped (Pillow's and torchvision's antialiased bilinear).
pub(super) struct Axis {
    /// `taps[ends[i]..ends[i + 1]]` belong to output i.
    ends: Vec<usize>,
    /// Source pixel and weight.
    taps: Vec<(usize, f32)>,
}

impl Axis {
    /// Resizes the `extent` pixels from `start` on to `resized`, and gives the outputs `window` of those.
    ///
    /// The source has `length` pixels; positions outside are reflected at its border pixels, which are not repeated.
    pub(super) fn new(start: i64, extent: usize, length: usize, resized: usize, window: Range<usize>) -> Self {
        let ratio = extent as f64 / resized as f64;
        let radius = ratio.max(1.0);
        let (mut ends, mut taps) = (vec![0], vec![]);
        for output in window {
            let centre = (output as f64 + 0.5) * ratio;
            let first = (centre - radius).floor().max(0.0) as usize;
            let last = ((centre + radius).ceil() as usize).min(extent);
            let weights = (first..last).map(|x| (x, 1.0 - (x as f64 + 0.5 - centre).abs() / radius));
            let weights: Vec<_> = weights.filter(|&(_, weight)| weight > 0.0).collect();
            let sum: f64 = weights.iter().map(|&(_, weight)| weight).sum();
            taps.extend(weights.iter().map(|&(x, w)| (reflect(start + x as i64, length), (w / sum) as f32)));
            ends.push(taps.len());
        }
        Axis { ends, taps }
    }

    /// The outputs in reverse order.
    pub(super) fn reversed(self) -> Self {
        let (mut ends, mut taps) = (vec![0], vec![]);
        for output in (0..self.len()).rev() {
            taps.extend_from_slice(self.of(output));
            ends.push(taps.len());
        }
        Axis { ends, taps }
    }

    fn len(&self) -> usize {
        self.ends.len() - 1
    }

    fn of(&self, output: usize) -> &[(usize, f32)] {
        &self.taps[self.ends[output]..self.ends[output + 1]]
    }
}

/// Folds a position into 0..length: ... 2 1 | 0 1 2 .. n-1 | n-2 n-3 ...
fn reflect(position: i64, length: usize) -> usize {
    let period = (2 * length as i64 - 2).max(1);
    let folded = position.rem_euclid(period);
    folded.min(period - folded).min(length as i64 - 1) as usize
}

/// Resamples a plane of rows of `width` pixels into `out`, (rows, columns): along the rows first, then down the columns.
pub(super) fn resample(plane: &[u8], width: usize, rows: &Axis, columns: &Axis, out: &mut [f32]) {
    let used = rows.taps.iter().map(|&(row, _)| row);
    let (Some(first), Some(last)) = (used.clone().min(), used.max()) else { return };
    let mut narrowed = Vec::with_capacity((last + 1 - first) * columns.len());
    for row in plane.chunks_exact(width).take(last + 1).skip(first) {
        for column in 0..columns.len() {
            narrowed.push(columns.of(column).iter().map(|&(x, weight)| f32::from(row[x]) * weight).sum::<f32>());
        }
    }
    for (row, out) in out.chunks_exact_mut(columns.len()).enumerate() {
        out.fill(0.0);
        for &(y, weight) in rows.of(row) {
            let source = &narrowed[(y - first) * columns.len()..][..columns.len()];
            out.iter_mut().zip(source).for_each(|(out, &value)| *out += weight * value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pixels: &[u8], axis: Axis) -> Vec<f32> {
        let mut out = vec![f32::NAN; axis.len()];
        resample(pixels, pixels.len(), &Axis::new(0, 1, 1, 1, 0..1), &axis, &mut out);
        out
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let plane: Vec<u8> = (0..35).map(|i| (i * 37 % 256) as u8).collect();
        let (rows, columns) = (Axis::new(0, 5, 5, 5, 0..5), Axis::new(0, 7, 7, 7, 0..7));
        let mut out = vec![0.0; 35];
        resample(&plane, 7, &rows, &columns, &mut out);
        assert_eq!(out, plane.iter().map(|&p| f32::from(p)).collect::<Vec<_>>());
    }

    // By hand: output centres 1/4, 3/4, 5/4, 7/4 between the pixel centres 1/2 and 3/2, clamped outside them.
    #[test]
    fn enlarging_interpolates_between_pixel_centres() {
        assert_eq!(line(&[0, 100], Axis::new(0, 2, 2, 4, 0..4)), [0.0, 25.0, 75.0, 100.0]);
    }

    // By hand: the triangle of radius 2 around centre 1 weighs pixels 0, 1, 2 with 3/4, 3/4, 1/4 before their sum, 7/4.
    #[test]
    fn reducing_averages_over_a_widened_triangle() {
        let out = line(&[7, 14, 28, 56], Axis::new(0, 4, 4, 2, 0..2));
        let expected = [(3.0 * 7.0 + 3.0 * 14.0 + 28.0) / 7.0, (14.0 + 3.0 * 28.0 + 3.0 * 56.0) / 7.0];
        assert!(out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{out:?}");
    }

    // Expected values are Pillow's `resize(.., BILINEAR)`, which rounds after each of the two passes: up to one apart.
    #[test]
    fn reducing_and_enlarging_agree_with_pillow() {
        let plane: Vec<u8> =
            (0..5).flat_map(|y| (0..7).map(move |x| ((x * x * 5 + y * y * 9 + x * y * 3) % 256) as u8)).collect();
        let check = |rows: Axis, columns: Axis, expected: &[u8]| {
            let mut out = vec![f32::NAN; expected.len()];
            resample(&plane, 7, &rows, &columns, &mut out);
            assert!(out.iter().zip(expected).all(|(a, &b)| (a - f32::from(b)).abs() <= 1.0), "{out:?}");
        };
        let reduced = [8, 30, 88, 163, 46, 76, 143, 195, 126, 163, 133, 123];
        check(Axis::new(0, 5, 5, 3, 0..3), Axis::new(0, 7, 7, 4, 0..4), &reduced);
        // The box of rows 1 to 5 and columns 1 to 6, made narrower and higher.
        let boxed = [
            [22, 47, 85, 137, 30, 56, 95, 147, 45, 73, 114, 168],
            [64, 94, 137, 193, 89, 120, 165, 223, 101, 133, 179, 238],
        ];
        check(Axis::new(1, 3, 5, 6, 0..6), Axis::new(1, 5, 7, 4, 0..4), &boxed.concat());
    }

    #[test]
    fn a_window_gives_the_same_values_as_the_whole() {
        let pixels: Vec<u8> = (0..40).map(|i| (i * 91 % 256) as u8).collect();
        let whole = line(&pixels, Axis::new(0, 40, 40, 17, 0..17));
        assert_eq!(line(&pixels, Axis::new(0, 40, 40, 17, 3..9)), whole[3..9]);
    }

    #[test]
    fn positions_outside_are_reflected_without_repeating_the_border() {
        let positions: Vec<usize> = (-4..9).map(|p| reflect(p, 5)).collect();
        assert_eq!(positions, [4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0]);
        assert_eq!([-3, 0, 2].map(|p| reflect(p, 1)), [0, 0, 0]);
        assert_eq!([-2, -1, 2, 3].map(|p| reflect(p, 2)), [0, 1, 0, 1]);
    }
}
