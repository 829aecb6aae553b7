//! RigL as the method states it: how many weights a layer has (ERK), when and how much its mask changes, and which
//! weights are dropped and grown.

use std::cmp::Ordering;
use std::f64::consts::PI;

/// The number of weights that ERK leaves in each layer of the given kernel shapes at the global density `density`.
///
/// The raw density of a layer is the sum of its dimensions over their product. One factor scales them all; layers that
/// would exceed 1 become dense, those at the maximum first, and the factor is found anew.
pub(crate) fn erk_counts(shapes: &[Vec<usize>], density: f64) -> Vec<usize> {
    let sizes: Vec<f64> = shapes.iter().map(|s| s.iter().product::<usize>() as f64).collect();
    let raw: Vec<f64> = shapes.iter().zip(&sizes).map(|(s, n)| s.iter().sum::<usize>() as f64 / n).collect();
    let mut dense = vec![false; shapes.len()];
    loop {
        let (mut budget, mut divisor, mut largest) = (0.0, 0.0, 0.0f64);
        for l in 0..shapes.len() {
            if dense[l] {
                budget -= (sizes[l] * (1.0 - density)).floor();
            } else {
                budget += (sizes[l] * density).floor();
                divisor += raw[l] * sizes[l];
                largest = largest.max(raw[l]);
            }
        }
        let factor = budget / divisor;
        if factor * largest <= 1.0 {
            let count = |l: usize| if dense[l] { sizes[l] } else { (factor * raw[l] * sizes[l] + 0.5).floor() };
            return (0..shapes.len()).map(|l| count(l) as usize).collect();
        }
        (0..shapes.len()).filter(|&l| raw[l] == largest).for_each(|l| dense[l] = true);
    }
}

/// When masks change: every `delta_t` steps before `t_end`, by a drop fraction that falls as a cosine from `alpha`.
pub(crate) struct Schedule {
    pub(crate) alpha: f64,
    pub(crate) delta_t: usize,
    pub(crate) t_end: usize,
}

impl Schedule {
    /// Whether the 0-based step changes the masks instead of taking an SGD step.
    pub(crate) fn is_update(&self, step: usize) -> bool {
        step < self.t_end && (step + 1).is_multiple_of(self.delta_t)
    }

    /// alpha / 2 (1 + cos(pi step / t_end)).
    pub(crate) fn drop_fraction(&self, step: usize) -> f64 {
        self.alpha / 2.0 * (1.0 + (PI * step as f64 / self.t_end as f64).cos())
    }
}

/// One prune-and-grow of a layer: the `ceil(fraction x active)` smallest |weights| inside the mask go, as many positions
/// outside what is left come, those of the largest |gradient|, just-dropped ones included. A position that enters the
/// mask anew starts with weight and momentum 0; one dropped and regrown keeps both. A dense layer takes no part.
pub(crate) fn update_mask(
    mask: &mut [bool],
    weights: &mut [f64],
    momentum: &mut [f64],
    gradient: &[f64],
    fraction: f64,
) {
    let active: Vec<usize> = (0..mask.len()).filter(|&i| mask[i]).collect();
    if active.len() == mask.len() {
        return;
    }
    let before = mask.to_vec();
    let changes = (fraction * active.len() as f64).ceil() as usize;
    for i in first_by(active, changes, |&a, &b| weights[a].abs().total_cmp(&weights[b].abs())) {
        mask[i] = false;
    }
    let inactive = (0..mask.len()).filter(|&i| !mask[i]).collect();
    for i in first_by(inactive, changes, |&a, &b| gradient[b].abs().total_cmp(&gradient[a].abs())) {
        mask[i] = true;
    }
    for i in 0..mask.len() {
        if !(mask[i] && before[i]) {
            (weights[i], momentum[i]) = (0.0, 0.0);
        }
    }
}

/// The first `count` of `indices`, which ascend, in the given order; the sort is stable, so ties keep the lower index.
fn first_by(mut indices: Vec<usize>, count: usize, order: impl Fn(&usize, &usize) -> Ordering) -> Vec<usize> {
    indices.sort_by(order);
    indices.truncate(count);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(mask: &str, weights: &[f64], gradient: &[f64], fraction: f64) -> (String, Vec<f64>, Vec<f64>) {
        let (mut mask, mut weights) = (mask.bytes().map(|b| b == b'1').collect::<Vec<_>>(), weights.to_vec());
        let mut momentum = weights.iter().map(|w| 10.0 * w).collect::<Vec<_>>();
        update_mask(&mut mask, &mut weights, &mut momentum, gradient, fraction);
        (mask.iter().map(|&bit| if bit { '1' } else { '0' }).collect(), weights, momentum)
    }

    // ceil(0.3 x 4) = 2 weights change: those of .1 and -.2 go; 5 and 7 have the largest gradients.
    #[test]
    fn the_smallest_weights_make_room_for_the_largest_gradients() {
        let weights = [0.5, 0.1, -0.2, 0.9, 0.0, 0.0, 0.0, 0.0];
        let gradient = [9.0, 0.0, 0.1, 9.0, 1.0, -3.0, 0.5, 2.0];
        let (mask, weights, momentum) = update("11110000", &weights, &gradient, 0.3);
        assert_eq!(mask, "10010101");
        assert_eq!(weights, [0.5, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(momentum, [5.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_dropped_weight_of_large_gradient_returns_with_value_and_momentum() {
        let (mask, weights, momentum) = update("1100", &[0.1, 0.5, 0.0, 0.0], &[7.0, 0.0, 1.0, 2.0], 0.5);
        assert_eq!((mask.as_str(), weights[0], momentum[0]), ("1100", 0.1, 1.0));
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        let (mask, ..) = update("111000", &[0.1, -0.1, 0.1, 0.0, 0.0, 0.0], &[0.0, 0.0, 0.0, 4.0, -4.0, 4.0], 0.3);
        assert_eq!(mask, "011100");
    }

    #[test]
    fn a_dense_layer_keeps_its_mask() {
        let (mask, weights, _) = update("111", &[0.1, 0.2, 0.3], &[0.0, 1.0, 2.0], 0.3);
        assert_eq!((mask.as_str(), weights), ("111", vec![0.1, 0.2, 0.3]));
    }

    #[test]
    fn the_drop_fraction_falls_from_alpha_through_its_half_to_zero() {
        let schedule = Schedule { alpha: 0.3, delta_t: 100, t_end: 1000 };
        for (step, expected) in [(0, 0.3), (500, 0.15), (1000, 0.0)] {
            assert!((schedule.drop_fraction(step) - expected).abs() < 1e-15);
        }
    }

    // The paper's CIFAR schedule has 659 updates, the first at step 99 and the last at step 65,899.
    #[test]
    fn the_papers_schedule_has_659_updates() {
        let schedule = Schedule { alpha: 0.3, delta_t: 100, t_end: 65_918 };
        let updates: Vec<_> = (0..88_000).filter(|&step| schedule.is_update(step)).collect();
        assert_eq!((updates.len(), updates[0], updates[658]), (659, 99, 65_899));
    }

    // WRN-22-2 at a density of .1: stem, two shortcuts and classifier dense, 0.421073, 0.272918 and 0.063843 elsewhere.
    #[test]
    fn erk_counts_agree_with_the_published_densities() {
        let mut shapes = vec![vec![16, 3, 3, 3]];
        for (inputs, width) in [(16, 32), (32, 64), (64, 128)] {
            shapes.push(vec![width, 3, 3, inputs]);
            shapes.push(vec![width, 1, 1, inputs]);
            shapes.extend(vec![vec![width, 3, 3, width]; 5]);
        }
        shapes.push(vec![10, 128]);
        let counts = erk_counts(&shapes, 0.1);
        let density_of = |shape: &[usize]| {
            let l = shapes.iter().position(|s| s == shape).unwrap();
            counts[l] as f64 / shape.iter().product::<usize>() as f64
        };
        let published = [
            (vec![16, 3, 3, 3], 1.0),
            (vec![32, 3, 3, 16], 0.421073),
            (vec![32, 1, 1, 16], 1.0),
            (vec![32, 3, 3, 32], 0.272918),
            (vec![64, 1, 1, 32], 1.0),
            (vec![128, 3, 3, 128], 0.063843),
            (vec![10, 128], 1.0),
        ];
        for (shape, density) in published {
            let one_weight = 1.0 / shape.iter().product::<usize>() as f64;
            assert!((density_of(&shape) - density).abs() <= 0.5 * one_weight + 1e-6, "{shape:?}");
        }
        assert!(density_of(&[128, 1, 1, 64]) < 1.0);
    }
}
